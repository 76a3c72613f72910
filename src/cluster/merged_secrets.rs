//! Secrets that are shared with others: read right before they are written, and written only as they were read.
//!
//! The only Secrets whose data the operator reads, besides access keys.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::refusals::{is_terminating, secret_refused};
use super::{Applied, CONCURRENT_WRITES, in_time, is_conflict, is_not_found, words};
use crate::api::{ClusterEcrPullSecret, EcrPullSecret, OWNER_UID};
use crate::core::pull_secret::{
    CREATED, Change, DOCKER_CONFIG_KEY, DOCKER_CONFIG_TYPE, Entries, Integrity, MANAGER, MERGED, Marks, Note,
    SecretOwner, Seen, merge, note_key, noted, owners, unmerge,
};
use crate::core::reason::{Problem, Reason};

/// Tries against others who write at the same time.
const TRIES: usize = 5;

/// Reads and writes shared Secrets.
pub struct MergedSecrets {
    client: Client,
    /// The version at which the entries of a pull secret were last found or written as they should be, by its UID and the
    /// Secret's: so only a change makes the operator look.
    looked: Mutex<HashMap<(String, String), String>>,
}

impl MergedSecrets {
    /// Through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, looked: Mutex::default() }
    }

    /// What is in the Secret of the pull secret `owner_uid`; `None` where it noted nothing on it. It is read only if it
    /// changed since it was last looked at. One that can't be read is taken for edited: whoever then writes it reads it
    /// again, and learns why.
    pub async fn seen(&self, meta: &ObjectMeta, owner_uid: &str) -> Option<Seen> {
        let (note, uid) = (Note::read(meta, owner_uid)?, meta.uid.clone()?);
        let seen = |note: Note, intact| Seen {
            uid: uid.clone(),
            owner_uid: owner_uid.to_owned(),
            marks: Some(note.marks),
            integrity: if intact { Integrity::Whole } else { Integrity::Edited },
        };
        if self.is_known(owner_uid, &uid, meta.resource_version.as_deref()) {
            return Some(seen(note, true));
        }
        let (name, namespace) = (meta.name.clone().unwrap_or_default(), meta.namespace.clone().unwrap_or_default());
        let Ok(secret) = self.api(&namespace).get_opt(&name).await else {
            return Some(seen(note, false));
        };
        let secret = secret?;
        let note = Note::read(&secret.metadata, owner_uid)?;
        let intact = note.is_true_of(&secret);
        if intact {
            self.remember(owner_uid, &uid, secret.resource_version());
        }
        Some(seen(note, intact))
    }

    /// Puts `entries` in, beside those of others. `is_cached` tells which UIDs are known to be those of pull secrets.
    ///
    /// # Errors
    /// Why none of them is in it.
    pub async fn put(
        &self,
        (namespace, name): (&str, &str),
        marks: &Marks,
        entries: &Entries,
        is_cached: impl Fn(&str) -> bool,
    ) -> Result<Applied, Problem> {
        let api = self.api(namespace);
        for _ in 0..TRIES {
            let there = api.get_opt(name).await.map_err(|error| secret_refused(name, &error))?;
            let base = there.clone().unwrap_or_else(|| empty(namespace, name));
            let gone = self.gone(&base.metadata, &marks.owner.uid, &is_cached).await;
            let merged = merge(&base, marks, entries, &gone)?;
            let done = |version: Option<String>| match merged.left_out {
                None => Applied::Done(version),
                Some(problem) => Applied::Partly(Box::new(merged.marks), problem, version),
            };
            let Some(change) = merged.change else {
                self.remember(&marks.owner.uid, &base.uid().unwrap_or_default(), base.resource_version());
                return Ok(done(None));
            };
            match in_time(self.write(&api, there.as_ref(), &base, &marks.owner.uid, change)).await {
                Ok(Some(now)) => {
                    self.remember(&marks.owner.uid, &now.uid().unwrap_or_default(), now.resource_version());
                    return Ok(done(now.resource_version()));
                }
                Ok(None) => return Ok(done(None)),
                Err(error) if is_terminating(&error) => return Ok(Applied::Terminating),
                Err(error) if is_conflict(&error) || is_not_found(&error) => {}
                Err(error) => return Err(secret_refused(name, &error)),
            }
        }
        Err(Problem::new(Reason::Transient, format!("others keep writing the Secret {name} at the same time")))
    }

    /// Takes out what the pull secret put in, and nothing else that is somebody's. `is_cached` is as in [`Self::put`].
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn take_out(
        &self,
        (namespace, name): (&str, &str),
        owner_uid: &str,
        is_cached: impl Fn(&str) -> bool,
    ) -> Result<(), kube::Error> {
        let api = self.api(namespace);
        let mut tries = 1..=TRIES;
        loop {
            let Some(secret) = api.get_opt(name).await? else { return Ok(()) };
            let gone = self.gone(&secret.metadata, owner_uid, &is_cached).await;
            let Some(change) = unmerge(&secret, owner_uid, &gone) else { return Ok(()) };
            match in_time(self.write(&api, Some(&secret), &secret, owner_uid, change)).await {
                Ok(_) => return Ok(()),
                Err(error) if (is_conflict(&error) || is_not_found(&error)) && tries.next().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The same wherever there is something: as the API server has it now, since a cache may lag behind what was written a
    /// moment ago. Returns what couldn't be taken out, and why: one that is refused holds back no other.
    pub async fn take_out_everywhere(&self, owner: &SecretOwner, is_cached: impl Fn(&str) -> bool) -> Vec<String> {
        let api: Api<KubeSecret> = match &owner.namespace {
            Some(namespace) => self.api(namespace),
            None => Api::all(self.client.clone()),
        };
        let is_cached = &is_cached;
        let mut page = ListParams::default().labels(&format!("{OWNER_UID}={MERGED}")).limit(500);
        let mut left = Vec::new();
        loop {
            let list = match api.list_metadata(&page).await {
                Ok(list) => list,
                Err(error) => {
                    left.push(format!("the list of shared Secrets: {}", words(&error)));
                    return left;
                }
            };
            let marked = list.items.iter().filter(|secret| noted(&secret.metadata).any(|uid| uid == owner.uid));
            let writes = marked.map(|secret| async move {
                let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
                let error = self.take_out((&namespace, &name), &owner.uid, is_cached).await.err()?;
                Some(format!("Secret {namespace}/{name}: {}", words(&error)))
            });
            let writes: Vec<_> = writes.collect();
            let refused: Vec<_> = futures::stream::iter(writes).buffered(CONCURRENT_WRITES).collect().await;
            left.extend(refused.into_iter().flatten());
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return left,
            }
        }
    }

    /// Forgets a pull secret that is gone.
    pub fn forget(&self, owner_uid: &str) {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).retain(|(owner, _), _| owner != owner_uid);
    }

    /// The UIDs of those owners of a Secret, beside `but`, that are no more.
    async fn gone(&self, meta: &ObjectMeta, but: &str, is_cached: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let mut gone = BTreeSet::new();
        for owner in owners(meta).filter(|owner| owner.uid != but && !is_cached(&owner.uid)) {
            // One that has a namespace writes nowhere else.
            let is_there = match &owner.namespace {
                Some(_) => is_there::<EcrPullSecret>(&Api::namespaced(self.client.clone(), namespace), &owner).await,
                None => is_there::<ClusterEcrPullSecret>(&Api::all(self.client.clone()), &owner).await,
            };
            if !is_there {
                gone.insert(owner.uid);
            }
        }
        gone
    }

    /// Guarded by the resourceVersion: of two writers one starts anew. Returns the Secret as it then is.
    async fn write(
        &self,
        api: &Api<KubeSecret>,
        there: Option<&KubeSecret>,
        base: &KubeSecret,
        owner_uid: &str,
        change: Change,
    ) -> Result<Option<PartialObjectMeta<KubeSecret>>, kube::Error> {
        let name = base.name_any();
        let Change::Write { text, note, gone, label } = change else {
            let guard = Preconditions { uid: base.uid(), resource_version: base.resource_version() };
            let params = DeleteParams { preconditions: Some(guard), ..DeleteParams::default() };
            return api.delete(&name, &params).await.map(|_| None);
        };
        let mut patch = json!({"metadata": {
            "labels": {OWNER_UID: label.then_some(MERGED)},
            "annotations": {note_key(owner_uid): note},
        }});
        for uid in gone {
            patch["metadata"]["annotations"][note_key(&uid)] = Value::Null;
        }
        if let Some(text) = text {
            patch["data"] = json!({DOCKER_CONFIG_KEY: BASE64_STANDARD.encode(text.expose())});
        }
        let Some(there) = there else {
            return self.create(api, base, patch).await.map(Some);
        };
        patch["metadata"]["uid"] = json!(there.uid());
        patch["metadata"]["resourceVersion"] = json!(there.resource_version());
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        api.patch_metadata(&name, &params, &Patch::Merge(patch)).await.map(Some)
    }

    async fn create(
        &self,
        api: &Api<KubeSecret>,
        base: &KubeSecret,
        mut object: Value,
    ) -> Result<PartialObjectMeta<KubeSecret>, kube::Error> {
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Secret");
        object["type"] = json!(DOCKER_CONFIG_TYPE);
        object["metadata"]["name"] = json!(base.metadata.name);
        object["metadata"]["namespace"] = json!(base.metadata.namespace);
        object["metadata"]["annotations"][CREATED] = json!("true");
        let secret: KubeSecret = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let made = api.create(&params, &secret).await?;
        Ok(PartialObjectMeta { metadata: made.metadata, ..PartialObjectMeta::default() })
    }

    fn is_known(&self, owner_uid: &str, uid: &str, version: Option<&str>) -> bool {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = looked.get(&(owner_uid.to_owned(), uid.to_owned()));
        known.is_some() && known.map(String::as_str) == version
    }

    fn remember(&self, owner_uid: &str, uid: &str, version: Option<String>) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.insert((owner_uid.to_owned(), uid.to_owned()), version.unwrap_or_default());
    }

    fn api(&self, namespace: &str) -> Api<KubeSecret> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Whether a pull secret lives, as the API server has it: a cache may lag, and lacks what can't be read. Where no answer is
/// to be had, it does. It is listed by its name: a right that the operator has, and a name from an annotation may be any text.
async fn is_there<K: Resource + Clone + DeserializeOwned + Debug>(api: &Api<K>, owner: &SecretOwner) -> bool {
    let named = ListParams::default().fields(&format!("metadata.name={}", owner.name));
    let Ok(found) = in_time(api.list_metadata(&named)).await else { return true };
    found.items.iter().any(|live| live.metadata.uid.as_ref() == Some(&owner.uid))
}

/// What a Secret that isn't there yet is merged into.
fn empty(namespace: &str, name: &str) -> KubeSecret {
    let metadata =
        ObjectMeta { namespace: Some(namespace.to_owned()), name: Some(name.to_owned()), ..ObjectMeta::default() };
    KubeSecret { metadata, type_: Some(DOCKER_CONFIG_TYPE.to_owned()), ..KubeSecret::default() }
}
