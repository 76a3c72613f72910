//! Watches: each keeps a store and says what changed. An object this version can't read is left out, told, and never
//! stops the others.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use futures::StreamExt;
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

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
/// reads; `on` is told of changes.
pub fn watch<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    prune: impl Fn(&mut K) + Send + 'static,
    mut on: impl FnMut(Change<'_, K>) + Send + 'static,
) -> (Store<K>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let mut writer = Writer::<K>::new(());
    let store = writer.as_reader();
    let task = async move {
        let mut events = Box::pin(watcher(api, config).default_backoff());
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    tracing::warn!(kind = %<K as Resource>::kind(&()), %error, "watch interrupted");
                    continue;
                }
            };
            let Some(event) = readable(event, &prune) else { continue };
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

/// Tells an object's changes that ask for work from those that don't, such as our own writes to its status.
#[derive(Debug, Default)]
pub struct Relevant {
    last: HashMap<String, u64>,
}

impl Relevant {
    /// Whether it differs from when it was last asked about: in spec, annotations, finalizers or deletion.
    pub fn is_new<K: Resource>(&mut self, object: &K) -> bool {
        let meta = object.meta();
        let mut hasher = DefaultHasher::new();
        (meta.generation, &meta.finalizers, &meta.annotations, meta.deletion_timestamp.is_some()).hash(&mut hasher);
        let now = hasher.finish();
        self.last.insert(object.uid().unwrap_or_default(), now) != Some(now)
    }

    /// Forgets an object that is gone.
    pub fn forget<K: Resource>(&mut self, object: &K) {
        self.last.remove(&object.uid().unwrap_or_default());
    }
}
