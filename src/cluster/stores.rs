//! Watches: each keeps a store and says what changed. An object this version can't read is left out, told, and never
//! stops the others: what it was before isn't what it is.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kube::core::{DeserializeGuard, ObjectMeta, PartialObjectMeta};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::patience::Patience;
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
    keep(move || watcher(api.clone(), config.clone()), move |event, store| readable(event, store, &prune), health, on)
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
    let pruned = move |event: Event<_>, _: &_| Some(event.modify(&prune));
    keep(move || watcher(api.clone(), config.clone()), pruned, health, on)
}

fn keep<K, O, S>(
    watch: impl Fn() -> S + Send,
    open: impl Fn(Event<O>, &Store<K>) -> Option<Event<K>> + Send,
    health: Health,
    mut on: impl FnMut(Change<'_, K>) + Send + 'static,
) -> (Store<K>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    O: Send,
    S: Stream<Item = Result<Event<O>, watcher::Error>> + Send,
{
    let mut writer = Writer::<K>::new(());
    let store = writer.as_reader();
    let reader = store.clone();
    let task = async move {
        let kind = K::kind(&());
        let mut events = Box::pin(watch());
        let mut patience = Patience::default();
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    let why = obstacle(&error);
                    if let Some(why) = why {
                        health.cannot_see(&kind, why);
                        // A list that succeeds says so; a watch that goes on where it was may long say nothing.
                        events.set(watch());
                    }
                    tracing::warn!(%kind, %error, why, "watch interrupted");
                    tokio::time::sleep(patience.pause()).await;
                    continue;
                }
            };
            // A list that is about to begin may fail yet.
            if !matches!(event, Event::Init) {
                health.sees(&kind);
            }
            let Some(event) = open(event, &reader) else { continue };
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

/// An object that can't be read any more is gone, as far as this version can tell.
fn readable<K>(event: Event<DeserializeGuard<K>>, store: &Store<K>, prune: &impl Fn(&mut K)) -> Option<Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let open = |guard: DeserializeGuard<K>| match guard.0 {
        Ok(mut object) => {
            prune(&mut object);
            Ok(object)
        }
        Err(invalid) => {
            let ObjectMeta { namespace, name, .. } = invalid.metadata;
            tracing::warn!(kind = %K::kind(&()), ?namespace, ?name, error = %invalid.error, "object can't be read, and is left alone");
            let key = ObjectRef::new(&name.unwrap_or_default());
            Err(store.get(&namespace.iter().fold(key, |key, namespace| key.within(namespace))))
        }
    };
    let unreadable = |before: Option<Arc<K>>| before.map(|before| Event::Delete(K::clone(&before)));
    match event {
        Event::Apply(guard) => open(guard).map_or_else(unreadable, |object| Some(Event::Apply(object))),
        Event::Delete(guard) => open(guard).map_or_else(unreadable, |object| Some(Event::Delete(object))),
        // A list replaces all there was.
        Event::InitApply(guard) => open(guard).ok().map(Event::InitApply),
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
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::stream;
    use serde_json::json;

    use super::*;
    use crate::api::EcrRepository;

    fn object(generation: i64, finalizers: &[&str], annotations: &[(&str, &str)]) -> PartialObjectMeta<EcrRepository> {
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

    fn guarded(name: &str, spec: &serde_json::Value) -> DeserializeGuard<EcrRepository> {
        let object = json!({
            "apiVersion": "ecr-operator.dev/v1", "kind": "EcrRepository",
            "metadata": {"namespace": "team-a", "name": name, "uid": name}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    /// What a watch tells of these events, with the store at the end of each.
    async fn told(events: Vec<Event<DeserializeGuard<EcrRepository>>>) -> (Vec<String>, Vec<String>) {
        let events = Mutex::new(Some(events));
        let watch = move || stream::iter(events.lock().unwrap().take().unwrap()).map(Ok);
        let (sender, receiver) = std::sync::mpsc::channel();
        let (store, task) = keep(
            watch,
            |event, store| readable(event, store, &|_| ()),
            Health::default(),
            move |change| {
                let _ = sender.send(match change {
                    Change::Seen(object) => format!("seen {}", object.name_any()),
                    Change::Gone(object) => format!("gone {}", object.name_any()),
                    Change::Relisted => "relisted".to_owned(),
                });
            },
        );
        task.await;
        (receiver.iter().collect(), store.state().iter().map(|object| object.name_any()).collect())
    }

    #[tokio::test]
    async fn an_object_that_can_not_be_read_any_more_is_gone_with_all_it_was_and_once() {
        let (good, bad) = (json!({}), json!({"name": 7}));
        let listed = || vec![Event::Init, Event::InitApply(guarded("other", &good)), Event::InitDone];
        let edited =
            || [listed(), vec![Event::Apply(guarded("app", &good)), Event::Apply(guarded("app", &bad))]].concat();
        let (changes, there) = told(edited()).await;
        assert_eq!(changes, ["relisted", "seen app", "gone app"]);
        assert_eq!(there, ["other"]);
        let (changes, _) = told([edited(), vec![Event::Delete(guarded("app", &bad))]].concat()).await;
        assert_eq!(changes, ["relisted", "seen app", "gone app"], "it was gone already");
        let (changes, there) = told([edited(), vec![Event::Apply(guarded("app", &good))]].concat()).await;
        assert_eq!((changes.len(), there.len()), (4, 2), "it is back once it can be read again");
        let mut deleted = listed();
        deleted.extend([Event::Apply(guarded("app", &good)), Event::Delete(guarded("app", &bad))]);
        assert_eq!(told(deleted).await.1, ["other"]);
    }

    fn refused(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(kube::core::Status { code, ..kube::core::Status::default() }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_may_be_watched_again_is_seen_though_nothing_changes_and_not_before() {
        let health = Health::default();
        health.ready();
        let starts = Arc::new(AtomicUsize::new(0));
        let (ready, counted) = (health.clone(), starts.clone());
        // A watch that may not go on, lists that are refused, and one that isn't; after that, silence.
        let watch = move || {
            let list = vec![Ok(Event::Init), Ok(Event::<EcrRepository>::InitDone)];
            let start = counted.fetch_add(1, Ordering::SeqCst);
            let ready = ready.clone();
            stream::iter(match start {
                0 => list.into_iter().chain([Err(watcher::Error::WatchStartFailed(refused(403)))]).collect(),
                1..6 => vec![Ok(Event::Init), Err(watcher::Error::InitialListFailed(refused(403)))],
                _ => list,
            })
            .inspect(move |_| assert!(start == 0 || !ready.is_ready(), "a list that begins is no success"))
            .chain(stream::pending())
        };
        let (_store, task) = keep(watch, |event, _| Some(event), health.clone(), |_| ());
        tokio::time::timeout(Duration::from_mins(10), task).await.unwrap_err();
        assert!(health.is_ready());
        assert_eq!(starts.load(Ordering::SeqCst), 7, "nothing more is asked for");
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
