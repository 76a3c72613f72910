//! Passes over the objects of one registry take turns among themselves: a registry whose AWS is slow, throttles or doesn't
//! answer at all holds up nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::{Resource, ResourceExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::{ClusterEcrPullSecret, DEFAULT_REGISTRY, EcrPullSecret, EcrRegistry, EcrRepository, PullSecretSpec};

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
        registries(&self.spec.common)
    }
}

impl InLane for ClusterEcrPullSecret {
    fn lane(&self) -> String {
        registries(&self.spec.common)
    }
}

fn registries(spec: &PullSecretSpec) -> String {
    let name = |entry: &crate::api::RegistryEntry| entry.registry_ref.clone().unwrap_or_default().name;
    let names: Vec<_> = spec.registries.iter().flatten().map(name).collect();
    if names.is_empty() { DEFAULT_REGISTRY.to_owned() } else { names.join(",") }
}

/// The lanes of one kind.
#[derive(Debug, Default)]
pub struct Lanes(Mutex<HashMap<String, Arc<Semaphore>>>);

impl Lanes {
    /// Waits for a place, which is free again when what is returned is dropped.
    pub async fn enter(&self, lane: String) -> Option<OwnedSemaphorePermit> {
        let places = {
            let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if lanes.len() >= MANY {
                lanes.retain(|_, places| Arc::strong_count(places) > 1);
            }
            lanes.entry(lane).or_insert_with(|| Arc::new(Semaphore::new(PASSES))).clone()
        };
        // Nobody ever closes one.
        places.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_full_lane_holds_up_no_other() {
        let lanes = Lanes::default();
        let mut there = Vec::new();
        for _ in 0..PASSES {
            there.push(lanes.enter("slow".to_owned()).await);
        }
        assert!(lanes.enter("slow".to_owned()).now_or_never().is_none());
        assert!(lanes.enter("quick".to_owned()).now_or_never().is_some());
        there.pop();
        assert!(lanes.enter("slow".to_owned()).now_or_never().is_some());
    }

    #[tokio::test]
    async fn lanes_that_nobody_is_in_are_forgotten() {
        let lanes = Lanes::default();
        let _there = lanes.enter("busy".to_owned()).await;
        for n in 0..10 * MANY {
            lanes.enter(n.to_string()).await;
        }
        let known = lanes.0.lock().unwrap();
        assert!(known.len() <= MANY && known.contains_key("busy"));
    }
}
