//! Passes over the objects of one registry take turns among themselves: a registry whose AWS is slow, throttles or doesn't
//! answer at all holds up nobody else's. Among those of one registry namespaces take turns: a thousand objects in one hold
//! up nobody in another.
//!
//! Who waits may wait for minutes. It is taken as it is when its turn comes, and whoever is deleted meanwhile waits with
//! those that are deleted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use tokio::sync::{Notify, oneshot};

use crate::api::{ClusterEcrPullSecret, EcrPullSecret, EcrRegistry, EcrRepository};
use crate::controller::pull_secret_kind::PullSecret;
use crate::core::turns::Turns;

/// Passes in one lane under way at once.
const PASSES: usize = 16;
/// From so many lanes on, those that nobody is in are forgotten.
const MANY: usize = 256;

/// An object whose passes take turns with others'.
pub trait InLane: Resource<DynamicType = ()> {
    /// The name of its lane, among those of its kind, where there are these `registries`.
    fn lane(&self, registries: &Store<EcrRegistry>) -> String;
}

impl InLane for EcrRegistry {
    fn lane(&self, _: &Store<EcrRegistry>) -> String {
        self.name_any()
    }
}

impl InLane for EcrRepository {
    fn lane(&self, registries: &Store<EcrRegistry>) -> String {
        side_by_side(self, &among([self.spec.registry_ref.name.as_str()], registries))
    }
}

impl InLane for EcrPullSecret {
    fn lane(&self, registries: &Store<EcrRegistry>) -> String {
        side_by_side(self, &among(self.registries(), registries))
    }
}

impl InLane for ClusterEcrPullSecret {
    fn lane(&self, registries: &Store<EcrRegistry>) -> String {
        side_by_side(self, &among(self.registries(), registries))
    }
}

/// Whoever waits for a deletion needn't wait for a thousand creations, nor for AWS where it needs none.
fn side_by_side(object: &impl Resource<DynamicType = ()>, registries: &str) -> String {
    let deletion = if object.meta().deletion_timestamp.is_some() { "deletion" } else { "change" };
    format!("{deletion}/{registries}")
}

/// Those of `names` that name registries, each once and in order: whoever makes up names, or says them in another order,
/// has no lane for itself alone.
fn among<'a>(names: impl IntoIterator<Item = &'a str>, registries: &Store<EcrRegistry>) -> String {
    let exists = |name: &&str| registries.get(&ObjectRef::new(name)).is_some();
    let there: BTreeSet<_> = names.into_iter().filter(exists).collect();
    there.into_iter().collect::<Vec<_>>().join(",")
}

/// The lanes of one kind.
#[derive(Debug)]
pub struct Lanes<K: Resource<DynamicType = ()>> {
    registries: Store<EcrRegistry>,
    known: Mutex<HashMap<String, Arc<Lane>>>,
    /// Who is told of changes while it waits.
    waiting: Mutex<HashMap<ObjectRef<K>, Arc<Notify>>>,
}

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

/// An object that waits.
struct Waiting<'a, K: InLane> {
    lanes: &'a Lanes<K>,
    object: &'a ObjectRef<K>,
    changed: Arc<Notify>,
}

impl<K: InLane> Lanes<K> {
    /// For passes over objects of these `registries`.
    #[must_use]
    pub fn new(registries: Store<EcrRegistry>) -> Self {
        Self { registries, known: Mutex::default(), waiting: Mutex::default() }
    }

    /// Waits for a place for a pass over `object`, in the lane that is its own by then. `now` is what is known of it:
    /// returned as it is at the end, when a pass may begin. `None`: it is gone.
    pub async fn enter(&self, object: &ObjectRef<K>, now: impl Fn() -> Option<Arc<K>>) -> Option<(Place, Arc<K>)> {
        let namespace = object.namespace.as_deref().unwrap_or_default();
        // First of all, so that no change is missed.
        let waiting = self.wait(object);
        let mut lane = now()?.lane(&self.registries);
        let mut place = Box::pin(self.place(lane.clone(), namespace));
        loop {
            let entered = tokio::select! {
                entered = &mut place => Some(entered?),
                () = waiting.changed.notified() => None,
            };
            let object = now()?;
            let its_own = object.lane(&self.registries);
            if its_own != lane {
                place = Box::pin(self.place(its_own.clone(), namespace));
                lane = its_own;
            } else if let Some(place) = entered {
                return Some((place, object));
            }
        }
    }

    /// The object changed, as `now` shows by now.
    pub fn changed(&self, object: &ObjectRef<K>) {
        if let Some(changed) = self.waiting().get(object) {
            changed.notify_one();
        }
    }

    fn wait<'a>(&'a self, object: &'a ObjectRef<K>) -> Waiting<'a, K> {
        let changed = Arc::new(Notify::new());
        self.waiting().insert(object.clone(), changed.clone());
        Waiting { lanes: self, object, changed }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<ObjectRef<K>, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: the process is ending.
    async fn place(&self, lane: String, namespace: &str) -> Option<Place> {
        let place = {
            let mut lanes = self.known.lock().unwrap_or_else(PoisonError::into_inner);
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

impl<K: InLane> Drop for Waiting<'_, K> {
    fn drop(&mut self) {
        self.lanes.waiting().remove(self.object);
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;

    use super::*;

    const ONE: &str = "one";

    fn no_registry() -> Store<EcrRegistry> {
        Writer::new(()).as_reader()
    }

    fn lanes() -> Lanes<EcrRepository> {
        Lanes::new(no_registry())
    }

    fn repository(name: &str, generation: i64) -> EcrRepository {
        let mut object = EcrRepository::new(name, crate::api::EcrRepositorySpec::default());
        object.metadata.namespace = Some(ONE.to_owned());
        object.metadata.generation = Some(generation);
        object
    }

    async fn filled(lanes: &Lanes<EcrRepository>, lane: &str) -> Vec<Option<Place>> {
        let mut there = Vec::new();
        for _ in 0..PASSES {
            there.push(lanes.place(lane.to_owned(), ONE).await);
        }
        there
    }

    #[tokio::test]
    async fn what_waited_is_taken_as_it_is_when_its_turn_comes() {
        let (lanes, mut writer) = (lanes(), Writer::<EcrRepository>::new(()));
        let (store, object) = (writer.as_reader(), repository("app", 1));
        let known = ObjectRef::from_obj(&object);
        let mut there = filled(&lanes, &object.lane(&no_registry())).await;
        writer.apply_watcher_event(&Event::Apply(object));
        let now = || store.get(&known);
        let mut waits = Box::pin(lanes.enter(&known, now));
        assert!(waits.as_mut().now_or_never().is_none());
        writer.apply_watcher_event(&Event::Apply(repository("app", 2)));
        there.pop();
        let (_place, taken) = waits.await.unwrap();
        assert_eq!(taken.metadata.generation, Some(2));

        let mut waits = Box::pin(lanes.enter(&known, now));
        assert!(waits.as_mut().now_or_never().is_none());
        writer.apply_watcher_event(&Event::Delete(repository("app", 2)));
        there.pop();
        assert!(waits.await.is_none(), "it is gone");
        assert!(lanes.waiting().is_empty());
        assert!(
            lanes.place(repository("app", 1).lane(&no_registry()), ONE).now_or_never().is_some(),
            "its place is to be had"
        );
    }

    #[tokio::test]
    async fn whoever_is_deleted_while_it_waits_no_longer_waits_for_changes() {
        let (lanes, mut writer) = (lanes(), Writer::<EcrRepository>::new(()));
        let (store, mut object) = (writer.as_reader(), repository("app", 1));
        let known = ObjectRef::from_obj(&object);
        let _there = filled(&lanes, &object.lane(&no_registry())).await;
        writer.apply_watcher_event(&Event::Apply(object.clone()));
        let mut waits = Box::pin(lanes.enter(&known, || store.get(&known)));
        assert!(waits.as_mut().now_or_never().is_none());
        object.metadata.generation = Some(2);
        writer.apply_watcher_event(&Event::Apply(object.clone()));
        lanes.changed(&known);
        assert!(waits.as_mut().now_or_never().is_none(), "a change waits on");
        object.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        writer.apply_watcher_event(&Event::Apply(object));
        lanes.changed(&known);
        let (_place, taken) = waits.now_or_never().unwrap().unwrap();
        assert!(taken.metadata.deletion_timestamp.is_some());
    }

    #[test]
    fn what_is_deleted_has_a_lane_beside_that_of_the_others() {
        let there = no_registry();
        let mut own = EcrPullSecret::new("pull", crate::api::EcrPullSecretSpec::default());
        let mut all = ClusterEcrPullSecret::new("pull", crate::api::ClusterEcrPullSecretSpec::default());
        let living = (own.lane(&there), all.lane(&there));
        let deleted = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        (own.metadata.deletion_timestamp, all.metadata.deletion_timestamp) = (deleted.clone(), deleted);
        assert!(own.lane(&there) != living.0 && all.lane(&there) != living.1);
    }

    #[tokio::test]
    async fn a_full_lane_holds_up_no_other() {
        let lanes = lanes();
        let mut there = Vec::new();
        for _ in 0..PASSES {
            there.push(lanes.place("slow".to_owned(), ONE).await);
        }
        assert!(lanes.place("slow".to_owned(), ONE).now_or_never().is_none());
        assert!(lanes.place("quick".to_owned(), ONE).now_or_never().is_some());
        there.pop();
        assert!(lanes.place("slow".to_owned(), ONE).now_or_never().is_some());
    }

    #[tokio::test]
    async fn namespaces_take_turns_and_whoever_gives_up_holds_up_nobody() {
        let lanes = lanes();
        let mut there = Vec::new();
        for _ in 0..PASSES {
            there.push(lanes.place("lane".to_owned(), "crowded").await);
        }
        let mut crowd = Vec::new();
        for n in 0..100 {
            let mut waits = Box::pin(lanes.place("lane".to_owned(), "crowded"));
            assert!(waits.as_mut().now_or_never().is_none());
            if n >= 50 {
                crowd.push(waits);
            }
        }
        let mut other = Box::pin(lanes.place("lane".to_owned(), "other"));
        assert!(other.as_mut().now_or_never().is_none());
        there.truncate(PASSES - 2);
        let entered: Vec<_> = crowd.iter_mut().filter_map(|waits| waits.as_mut().now_or_never()).collect();
        assert_eq!(entered.len(), 1);
        assert!(other.now_or_never().is_some(), "the second place is its, though a hundred came before");
    }

    #[tokio::test]
    async fn lanes_that_nobody_is_in_are_forgotten() {
        let lanes = lanes();
        let _there = lanes.place("busy".to_owned(), ONE).await;
        for n in 0..10 * MANY {
            lanes.place(n.to_string(), ONE).await;
        }
        let known = lanes.known.lock().unwrap();
        assert!(known.len() <= MANY && known.contains_key("busy"));
    }

    #[test]
    fn nobody_has_a_lane_of_its_own_by_making_up_names_or_their_order() {
        let mut writer = Writer::<EcrRegistry>::new(());
        let there = writer.as_reader();
        for name in ["one", "two"] {
            let registry = EcrRegistry::new(name, crate::api::EcrRegistrySpec::default());
            writer.apply_watcher_event(&Event::Apply(registry));
        }
        let lane = |names: &[&str]| among(names.iter().copied(), &there);
        assert_ne!(lane(&["one"]), lane(&["two"]));
        assert_eq!(lane(&["one", "two"]), lane(&["two", "one", "two", "made-up"]));
        assert_eq!(lane(&["made-up"]), lane(&["another"]));
    }
}
