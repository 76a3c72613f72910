//! Writing pull secrets: by server-side apply, in place, and never over somebody else's.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::refusals::{is_terminating, secret_refused};
use super::{in_time, is_conflict, is_not_found};
use crate::api::OWNER_UID;
use crate::core::pull_secret::{FIELDS, Fields, MANAGER, Marks, Seen, secret_manager, writes_data};
use crate::core::reason::{Problem, Reason};
use crate::core::token::Secret;

/// What a pull secret looks like, but for its data.
#[derive(Clone)]
pub struct SecretWriter {
    client: Client,
    /// Its name in every namespace.
    pub name: String,
    /// The pull secret it belongs to, as an owner reference: garbage collection takes it along.
    pub owner: Value,
    /// From the template.
    pub labels: BTreeMap<String, String>,
    /// From the template.
    pub annotations: BTreeMap<String, String>,
}

/// What is in a Secret.
#[derive(Debug)]
pub struct Data {
    /// Its type, which can't change later.
    pub type_: &'static str,
    /// Its values.
    pub values: BTreeMap<String, Secret>,
}

impl Data {
    fn encoded(&self) -> BTreeMap<&str, String> {
        self.values.iter().map(|(key, value)| (key.as_str(), BASE64_STANDARD.encode(value.expose()))).collect()
    }
}

/// What became of a write.
#[derive(Debug)]
pub enum Applied {
    /// It is there, and became this version if it had to be written for that.
    Done(Option<String>),
    /// So much of it is there, and why no more; likewise.
    Partly(Box<Marks>, Problem, Option<String>),
    /// The namespace is going away.
    Terminating,
}

impl SecretWriter {
    /// A writer.
    #[must_use]
    pub fn new(
        client: Client,
        name: String,
        owner: Value,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        Self { client, name, owner, labels, annotations }
    }

    /// Writes it. `seen` is the Secret as it is: then it is updated in place, by force, and only that very one. Where none is
    /// there it is created without force, so that one of somebody else that comes meanwhile stays as it is.
    ///
    /// # Errors
    /// Why the namespace has no such Secret.
    pub async fn apply(
        &self,
        namespace: &str,
        marks: &Marks,
        data: &Data,
        seen: Option<&Seen>,
    ) -> Result<Applied, Problem> {
        let there = match seen {
            Some(seen) => Some(seen.uid.clone()),
            None => self.unseen(namespace, &marks.owner.uid).await?,
        };
        let mut labels = self.labels.clone();
        labels.insert(OWNER_UID.to_owned(), marks.owner.uid.clone());
        let mut annotations = self.annotations.clone();
        annotations.extend(marks.annotations());
        annotations.insert(FIELDS.to_owned(), String::new());
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self.name,
                "namespace": namespace,
                "uid": there,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [self.owner],
            },
            "type": data.type_,
            "data": data.encoded(),
        });
        object["metadata"]["annotations"][FIELDS] = json!(Fields::of(&object).digest());
        let params = PatchParams { force: there.is_some(), ..PatchParams::apply(&secret_manager(&marks.owner.uid)) };
        // The answer is asked for as metadata: the data needn't come back.
        let api = self.api(namespace);
        match in_time(api.patch_metadata(&self.name, &params, &Patch::Apply(object))).await {
            // Identical bytes don't conflict: then only the answer tells that somebody else had written them.
            Ok(now) if there.is_none() && has_another_writer(&now, &marks.owner.uid) => {
                let nothing = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": self.name, "namespace": namespace}});
                let undone = api.patch_metadata(&self.name, &params, &Patch::Apply(nothing)).await;
                undone.map_err(|error| secret_refused(&self.name, &error))?;
                Err(foreign(&self.name, "somebody else wrote the same"))
            }
            Ok(now) => Ok(Applied::Done(now.resource_version())),
            Err(error) if is_conflict(&error) && there.is_none() => Err(foreign(&self.name, &super::words(&error))),
            Err(error) if is_terminating(&error) => Ok(Applied::Terminating),
            Err(error) => Err(secret_refused(&self.name, &error)),
        }
    }

    /// The UID of the Secret where it is there, not seen, and ours all the same: the cache lags, or somebody took our label
    /// off. Whose it is isn't left to an apply without force: the API server doesn't know who wrote what came as
    /// `stringData`, or before `managedFields` were cleared, and would overwrite it.
    async fn unseen(&self, namespace: &str, owner_uid: &str) -> Result<Option<String>, Problem> {
        let there = self.api(namespace).get_metadata_opt(&self.name).await;
        match there.map_err(|error| secret_refused(&self.name, &error))? {
            Some(there) if !has_written(&there, owner_uid) => Err(foreign(&self.name, "somebody else made it")),
            there => Ok(there.and_then(|there| there.uid())),
        }
    }

    /// Who wrote the Secret last besides its pull secret; nobody where there is none.
    pub async fn last_writer(&self, namespace: &str, owner_uid: &str) -> Option<String> {
        let there = self.api(namespace).get_metadata_opt(&self.name).await.ok()??;
        let ours = [MANAGER, &secret_manager(owner_uid)];
        let is_another = |entry: &&ManagedFieldsEntry| entry.manager.as_deref().is_none_or(|by| !ours.contains(&by));
        let others = there.managed_fields().iter().filter(is_another);
        others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?.manager.clone()
    }

    /// Deletes that very Secret.
    ///
    /// # Errors
    /// Where the API server refuses; one that is gone or replaced needs no deletion.
    pub async fn remove(&self, namespace: &str, name: &str, uid: &str) -> Result<(), kube::Error> {
        let precondition = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(precondition), ..DeleteParams::default() };
        match in_time(self.api(namespace).delete(name, &params)).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn api(&self, namespace: &str) -> Api<KubeSecret> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn has_written(secret: &PartialObjectMeta<KubeSecret>, owner_uid: &str) -> bool {
    let ours = secret_manager(owner_uid);
    secret.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(&ours))
}

fn has_another_writer(secret: &PartialObjectMeta<KubeSecret>, owner_uid: &str) -> bool {
    let ours = secret_manager(owner_uid);
    secret.managed_fields().iter().any(|entry| entry.manager.as_deref() != Some(&ours) && writes_data(entry))
}

/// What a Secret that isn't this object's is met with.
#[must_use]
pub fn foreign(name: &str, why: &str) -> Problem {
    Problem::new(
        Reason::SecretConflict,
        format!(
            "a Secret {name} is there and isn't this object's, and was left as it is: {why}. Delete it, or choose another secretName, or set mergePolicy to Merge"
        ),
    )
}
