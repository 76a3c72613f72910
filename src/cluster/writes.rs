//! Writes to our own objects: the finalizer and the status, each only if it differs.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::object::HasStatus;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::FINALIZER;
use crate::core::pull_secret::MANAGER;

/// Writes to the API server under way at once, for one object.
pub const CONCURRENT_WRITES: usize = 16;

/// For one write into a namespace, which others wait for: an admission webhook has ten seconds unless it asks for more.
const WRITE: Duration = Duration::from_secs(12);

/// What `write` comes to, unless that takes too long.
///
/// # Errors
/// Its own, or that no answer came.
pub async fn in_time<T>(write: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let late = |_| kube::Error::Service(format!("no answer within {WRITE:?}; an admission webhook may be slow").into());
    tokio::time::timeout(WRITE, write).await.map_err(late)?
}

/// Puts our finalizer on or takes it off, if it isn't so already. Guarded by the resourceVersion: of two writers one
/// starts anew. Returns the object as it then is.
///
/// # Errors
/// A conflict where somebody else changed the object meanwhile.
pub async fn set_finalizer<K>(api: &Api<K>, object: &K, wanted: bool) -> Result<K, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let present = object.finalizers().iter().any(|name| name == FINALIZER);
    if present == wanted {
        return Ok(object.clone());
    }
    let others = object.finalizers().iter().filter(|name| *name != FINALIZER).cloned();
    let finalizers: Vec<_> = others.chain(wanted.then(|| FINALIZER.to_owned())).collect();
    let patch = json!({"metadata": {
        "uid": object.uid(),
        "resourceVersion": object.resource_version(),
        "finalizers": finalizers,
    }});
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
}

/// Writes statuses, and remembers what it wrote: the cache may show an older one for a moment.
#[derive(Debug, Default)]
pub struct Statuses {
    /// By UID.
    written: Mutex<HashMap<String, Written>>,
}

#[derive(Debug)]
struct Written {
    digest: u64,
    /// The version of the object with it, and the status itself, until the cache is known to show it.
    unseen: Option<(u64, String)>,
}

impl Statuses {
    /// `object`, from the cache, with the status that was last written, where the cache doesn't show that yet: a pass
    /// doesn't begin with what the one before has done.
    #[must_use]
    pub fn latest<K>(&self, mut object: Arc<K>) -> Arc<K>
    where
        K: Resource + HasStatus<Status: DeserializeOwned> + Clone,
    {
        let mut all = self.written();
        let Some(written) = object.uid().and_then(|uid| all.get_mut(&uid)) else {
            return object;
        };
        let is_older = |written: &(u64, String)| version(&*object).is_some_and(|shown| shown < written.0);
        match written.unseen.as_ref().filter(|written| is_older(written)) {
            Some((_, status)) => {
                if let Ok(status) = serde_json::from_str(status) {
                    *Arc::make_mut(&mut object).status_mut() = Some(status);
                }
            }
            None => written.unseen = None,
        }
        object
    }

    /// Applies `status` to `object` unless it has it. `seen` is its status in the cache.
    ///
    /// # Errors
    /// Where the API server refuses; an object that is gone needs no status.
    pub async fn write<K, S>(&self, api: &Api<K>, object: &K, seen: Option<&S>, status: &S) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
        S: Serialize + PartialEq,
    {
        let uid = object.uid().unwrap_or_default();
        let value = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
        let digest = digest(&value);
        let same_as_written = self.written().get(&uid).is_none_or(|written| written.digest == digest);
        if seen == Some(status) && same_as_written {
            return Ok(());
        }
        let unseen = value.to_string();
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": object.name_any(), "uid": uid},
            "status": value,
        });
        let params = PatchParams::apply(MANAGER).force();
        match api.patch_status(&object.name_any(), &params, &Patch::Apply(&patch)).await {
            Ok(written) => {
                let unseen = version(&written).map(|version| (version, unseen));
                self.written().insert(uid, Written { digest, unseen });
                Ok(())
            }
            // A uid that no longer fits is a conflict: the object was deleted, and perhaps made anew.
            Err(error) if super::is_not_found(&error) || super::is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.written().remove(uid);
    }

    fn written(&self) -> MutexGuard<'_, HashMap<String, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Versions of one object are told in the order in which they came
/// ([KEP-5504](https://github.com/kubernetes/enhancements/issues/5504)).
fn version<K: Resource>(object: &K) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

fn digest(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
