//! Watches: each keeps a store and says what changed. An object this version can't read is left out, told, and never
//! stops the others.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kube::core::{DeserializeGuard, ObjectMeta, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api::{FINALIZER, RECONCILE_AT, SUSPEND};
use crate::server::Health;

/// What a watch saw; the store shows it already.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// New or changed.
    Seen(&'a K),
    /// Deleted, or no longer selected; as it last was.
    Gone(&'a K),
    /// The whole list was read anew: anything may have changed.
    Relisted,
}

/// Watches `api`: a store, and the task that keeps it until it is dropped. `prune` drops from each object what nobody
/// reads; `on` is told of changes, `health` where there is nothing to watch.
pub fn watch<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    health: Health,
    prune: impl Fn(&mut K) + Send + 'static,
    on: impl FnMut(Change<'_, K>) + Send + 'static,
) -> (Store<K>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let events = watcher(api, config).default_backoff();
    let readable =
        move |event: Result<_, _>| std::future::ready(event.map(|event| readable(event, &prune)).transpose());
    keep(events.filter_map(readable), health, on)
}

/// The same for the metadata of objects: the API server is asked for nothing else. A guard around the type would undo that:
/// it hides from the client what it guards.
pub fn watch_metadata<K>(
    api: Api<PartialObjectMeta<K>>,
    config: watcher::Config,
    health: Health,
    prune: impl Fn(&mut PartialObjectMeta<K>) + Send + 'static,
    on: impl FnMut(Change<'_, PartialObjectMeta<K>>) + Send + 'static,
) -> (Store<PartialObjectMeta<K>>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    keep(watcher(api, config).default_backoff().modify(prune), health, on)
}

fn keep<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    health: Health,
    mut on: impl FnMut(Change<'_, K>) + Send + 'static,
) -> (Store<K>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let mut writer = Writer::<K>::new(());
    let store = writer.as_reader();
    let task = async move {
        let kind = K::kind(&());
        let mut events = Box::pin(events);
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    let why = obstacle(&error);
                    if let Some(why) = why {
                        health.cannot_see(&kind, why);
                    }
                    tracing::warn!(%kind, %error, why, "watch interrupted");
                    continue;
                }
            };
            health.sees(&kind);
            writer.apply_watcher_event(&event);
            match &event {
                Event::Apply(object) => on(Change::Seen(object)),
                Event::Delete(object) => on(Change::Gone(object)),
                Event::InitDone => on(Change::Relisted),
                Event::Init | Event::InitApply(_) => {}
            }
        }
    };
    (store, task)
}

/// What somebody has to do something about. That the API server is away, say, passes by itself.
fn obstacle(error: &watcher::Error) -> Option<&'static str> {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return None;
    };
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            Some("the API server doesn't know this kind: install the chart ecr-operator-crds")
        }
        kube::Error::Api(status) if status.code == 403 => {
            Some("the operator's ServiceAccount may not list and watch this kind: its ClusterRole is missing or older")
        }
        _ => None,
    }
}

fn readable<K: Resource<DynamicType = ()>>(
    event: Event<DeserializeGuard<K>>,
    prune: &impl Fn(&mut K),
) -> Option<Event<K>> {
    let open = |guard: DeserializeGuard<K>| match guard.0 {
        Ok(mut object) => {
            prune(&mut object);
            Some(object)
        }
        Err(invalid) => {
            let ObjectMeta { namespace, name, .. } = invalid.metadata;
            tracing::warn!(kind = %K::kind(&()), ?namespace, ?name, error = %invalid.error, "object can't be read, and is left alone");
            None
        }
    };
    match event {
        Event::Apply(guard) => open(guard).map(Event::Apply),
        Event::Delete(guard) => open(guard).map(Event::Delete),
        Event::InitApply(guard) => open(guard).map(Event::InitApply),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
    }
}

/// An object that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its UID.
    pub uid: String,
    /// Its namespace; empty where there is none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Gone {
    /// Of this object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self {
            uid: object.meta().uid.clone().unwrap_or_default(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

/// Tells an object's changes that ask for work from those that don't, such as our own writes to its status.
#[derive(Debug, Default)]
pub struct Relevant {
    last: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    state: u64,
    has_our_finalizer: bool,
    gone: Gone,
}

impl Relevant {
    /// Whether it differs from when it was last asked about: in spec, deletion, finalizers or those annotations that
    /// mean something. Our own finalizer counts when it goes, not when we put it there.
    pub fn is_new<K: Resource>(&mut self, object: &K) -> bool {
        let meta = object.meta();
        let mut hasher = DefaultHasher::new();
        let (ours, others): (Vec<_>, Vec<_>) = object.finalizers().iter().partition(|name| *name == FINALIZER);
        let asked = [RECONCILE_AT, SUSPEND].map(|key| object.annotations().get(key));
        (meta.generation, meta.deletion_timestamp.is_some(), others, asked).hash(&mut hasher);
        let now = Seen { state: hasher.finish(), has_our_finalizer: !ours.is_empty(), gone: Gone::of(object) };
        let (state, has_our_finalizer) = (now.state, now.has_our_finalizer);
        let before = self.last.insert(now.gone.uid.clone(), now);
        before.is_none_or(|before| before.state != state || (before.has_our_finalizer && !has_our_finalizer))
    }

    /// Forgets an object that is gone.
    pub fn forget<K: Resource>(&mut self, object: &K) -> Gone {
        let gone = Gone::of(object);
        self.last.remove(&gone.uid);
        gone
    }

    /// Forgets and returns all that aren't among `there`: their deletion was missed.
    pub fn missing<K: Resource>(&mut self, there: &[Arc<K>]) -> Vec<Gone> {
        let uids: HashSet<_> = there.iter().filter_map(|object| object.meta().uid.clone()).collect();
        let gone: Vec<_> = self.last.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        gone.iter().filter_map(|uid| self.last.remove(uid)).map(|seen| seen.gone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(
        generation: i64,
        finalizers: &[&str],
        annotations: &[(&str, &str)],
    ) -> PartialObjectMeta<crate::api::EcrRepository> {
        PartialObjectMeta {
            metadata: ObjectMeta {
                uid: Some("u".into()),
                generation: Some(generation),
                finalizers: Some(finalizers.iter().map(|name| (*name).to_owned()).collect()),
                annotations: Some(
                    annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
                ),
                ..ObjectMeta::default()
            },
            ..PartialObjectMeta::default()
        }
    }

    #[test]
    fn only_changes_that_ask_for_work_count() {
        let mut relevant = Relevant::default();
        for (changed, what, asks) in [
            (object(1, &[], &[]), "new", true),
            (object(1, &[], &[]), "a status write", false),
            (object(1, &[], &[("note", "x")]), "an annotation that means nothing", false),
            (object(1, &[FINALIZER], &[]), "our finalizer", false),
            (object(1, &[], &[]), "our finalizer taken away", true),
            (object(1, &["other"], &[]), "a foreign finalizer", true),
            (object(1, &["other"], &[(RECONCILE_AT, "now")]), "a wish for a pass", true),
            (object(2, &["other"], &[(RECONCILE_AT, "now")]), "a spec change", true),
        ] {
            assert_eq!(relevant.is_new(&changed), asks, "{what}");
        }
        relevant.forget(&object(2, &[], &[]));
        assert!(relevant.is_new(&object(2, &["other"], &[(RECONCILE_AT, "now")])));
    }
}
