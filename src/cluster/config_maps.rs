//! `exportTo`: what others need of a repository, in a ConfigMap of ours. One that isn't ours is refused: writing it would let
//! whoever may declare a repository write what only others may write.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::{is_conflict, is_not_found, words};
use crate::core::pull_secret::{MANAGER, secret_manager};

/// On every ConfigMap that the operator made for exports; several objects may share one.
const LABEL: &str = "ecr-operator.dev/export";

/// Writes exports of one object.
#[derive(Clone)]
pub struct Exports {
    api: Api<ConfigMap>,
    namespace: String,
    owner: Value,
    owner_uid: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// It is there.
    Done,
    /// The ConfigMap isn't one of ours, or another object holds the key; it was left as it is.
    Refused(String),
}

impl Exports {
    /// Of the object that `owner` refers to.
    #[must_use]
    pub fn new(client: Client, namespace: &str, owner: Value, owner_uid: String) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned(), owner, owner_uid }
    }

    /// Brings `data` into the ConfigMap `name`; keys of this object that aren't in it any more go.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn write(&self, name: &str, data: &BTreeMap<String, String>) -> Result<Exported, kube::Error> {
        let there = self.api.get_metadata_opt(name).await?;
        if there.as_ref().is_some_and(|there| !is_ours(there)) {
            return Ok(Exported::Refused(format!("ConfigMap {name} exists and wasn't made by this operator")));
        }
        let labels = json!({LABEL: "true"});
        let metadata =
            json!({"name": name, "namespace": self.namespace, "labels": labels, "ownerReferences": [self.owner]});
        match self.apply(name, &json!({"metadata": metadata, "data": data})).await {
            // Between the look and the write somebody may have made one of that name.
            Ok(now) if there.is_none() && has_strangers(&now) => {
                self.remove(name).await?;
                Ok(Exported::Refused(format!("ConfigMap {name} was made by somebody else at the same time")))
            }
            Ok(_) => Ok(Exported::Done),
            Err(error) if is_conflict(&error) => {
                Ok(Exported::Refused(format!("a key in ConfigMap {name} is held by another object: {}", words(&error))))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes this object's keys out of the ConfigMap `name`, and with the last key the ConfigMap.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn remove(&self, name: &str) -> Result<(), kube::Error> {
        let Some(there) = self.api.get_metadata_opt(name).await?.filter(is_ours) else {
            return Ok(());
        };
        let others = there.owner_references().iter().any(|owner| owner.uid != self.owner_uid);
        if others || has_strangers(&there) {
            let metadata = json!({"name": name, "namespace": self.namespace});
            return self.apply(name, &json!({"metadata": metadata})).await.map(drop);
        }
        let preconditions = Preconditions { uid: there.uid(), resource_version: there.resource_version() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api.delete(name, &params).await {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn apply(&self, name: &str, fields: &Value) -> Result<PartialObjectMeta<ConfigMap>, kube::Error> {
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap"});
        if let (Some(object), Some(fields)) = (object.as_object_mut(), fields.as_object()) {
            object.extend(fields.clone());
        }
        let params = PatchParams::apply(&secret_manager(&self.owner_uid));
        self.api.patch_metadata(name, &params, &Patch::Apply(object)).await
    }
}

fn is_ours(object: &PartialObjectMeta<ConfigMap>) -> bool {
    object.labels().contains_key(LABEL)
}

/// Whether anybody but objects of ours wrote to it.
fn has_strangers(object: &PartialObjectMeta<ConfigMap>) -> bool {
    object
        .managed_fields()
        .iter()
        .any(|entry| !entry.manager.as_deref().is_some_and(|manager| manager.starts_with(MANAGER)))
}
