//! Passes over the objects of one registry take turns among themselves: a registry whose AWS is slow, throttles or doesn't
//! answer at all holds up nobody else's. Among those of one registry namespaces take turns: a thousand objects in one hold
//! up nobody in another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::{Resource, ResourceExt};
use tokio::sync::oneshot;

use crate::api::{ClusterEcrPullSecret, EcrPullSecret, EcrRegistry, EcrRepository};
use crate::controller::pull_secret_kind::PullSecret;
use crate::core::turns::Turns;

/// Passes in one lane under way at once.
const PASSES: usize = 16;
/// From so many lanes on, those that nobody is in are forgotten.
const MANY: usize = 256;

/// An object whose passes take turns with others'.
pub trait InLane: Resource<DynamicType = ()> {
    /// The name of its lane, among those of its kind.
    fn lane(&self) -> String;
}

impl InLane for EcrRegistry {
    fn lane(&self) -> String {
        self.name_any()
    }
}

impl InLane for EcrRepository {
    fn lane(&self) -> String {
        // Whoever waits for a deletion needn't wait for a thousand creations.
        let deletion = if self.metadata.deletion_timestamp.is_some() { "deletion" } else { "change" };
        format!("{deletion}/{}", self.spec.registry_ref.name)
    }
}

impl InLane for EcrPullSecret {
    fn lane(&self) -> String {
        self.registries().join(",")
    }
}

impl InLane for ClusterEcrPullSecret {
    fn lane(&self) -> String {
        self.registries().join(",")
    }
}

/// The lanes of one kind.
#[derive(Debug, Default)]
pub struct Lanes(Mutex<HashMap<String, Arc<Lane>>>);

/// Who is in a lane, and who waits to be.
#[derive(Debug, Default)]
struct Lane(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    there: usize,
    waiting: Turns<oneshot::Sender<Place>>,
}

/// A place in a lane, free again when this is dropped.
#[derive(Debug)]
pub struct Place(Option<Arc<Lane>>);

impl Lanes {
    /// Waits for a place for a pass over an object in `namespace`. `None`: the process is ending.
    pub async fn enter(&self, lane: String, namespace: &str) -> Option<Place> {
        let place = {
            let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if lanes.len() >= MANY {
                lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
            }
            lanes.entry(lane).or_default().enter(namespace)
        };
        match place {
            Ok(place) => Some(place),
            Err(later) => later.await.ok(),
        }
    }
}

impl Lane {
    fn enter(self: &Arc<Self>, namespace: &str) -> Result<Place, oneshot::Receiver<Place>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.there < PASSES {
            state.there += 1;
            return Ok(Place(Some(self.clone())));
        }
        let (sender, later) = oneshot::channel();
        state.waiting.push(namespace, sender);
        Err(later)
    }

    /// To the next who still waits.
    fn hand_on(self: &Arc<Self>) {
        while let Some(next) = self.next() {
            match next.send(Place(Some(self.clone()))) {
                Ok(()) => return,
                // Gave up meanwhile. The place is still to be had.
                Err(mut unwanted) => drop(unwanted.0.take()),
            }
        }
    }

    /// Where nobody waits, there is one less.
    fn next(&self) -> Option<oneshot::Sender<Place>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.waiting.pop();
        state.there -= usize::from(next.is_none());
        next
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take() {
            lane.hand_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const ONE: &str = "one";

    #[tokio::test]
    async fn a_full_lane_holds_up_no_other() {
        let lanes = Lanes::default();
        let mut there = Vec::new();
        for _ in 0..PASSES {
            there.push(lanes.enter("slow".to_owned(), ONE).await);
        }
        assert!(lanes.enter("slow".to_owned(), ONE).now_or_never().is_none());
        assert!(lanes.enter("quick".to_owned(), ONE).now_or_never().is_some());
        there.pop();
        assert!(lanes.enter("slow".to_owned(), ONE).now_or_never().is_some());
    }

    #[tokio::test]
    async fn namespaces_take_turns_and_whoever_gives_up_holds_up_nobody() {
        let lanes = Lanes::default();
        let mut there = Vec::new();
        for _ in 0..PASSES {
            there.push(lanes.enter("lane".to_owned(), "crowded").await);
        }
        let mut crowd = Vec::new();
        for n in 0..100 {
            let mut waits = Box::pin(lanes.enter("lane".to_owned(), "crowded"));
            assert!(waits.as_mut().now_or_never().is_none());
            if n >= 50 {
                crowd.push(waits);
            }
        }
        let mut other = Box::pin(lanes.enter("lane".to_owned(), "other"));
        assert!(other.as_mut().now_or_never().is_none());
        there.truncate(PASSES - 2);
        let entered: Vec<_> = crowd.iter_mut().filter_map(|waits| waits.as_mut().now_or_never()).collect();
        assert_eq!(entered.len(), 1);
        assert!(other.now_or_never().is_some(), "the second place is its, though a hundred came before");
    }

    #[tokio::test]
    async fn lanes_that_nobody_is_in_are_forgotten() {
        let lanes = Lanes::default();
        let _there = lanes.enter("busy".to_owned(), ONE).await;
        for n in 0..10 * MANY {
            lanes.enter(n.to_string(), ONE).await;
        }
        let known = lanes.0.lock().unwrap();
        assert!(known.len() <= MANY && known.contains_key("busy"));
    }
}
