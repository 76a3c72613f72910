//! `exportTo`: what others need of a repository, in a ConfigMap of ours. One that isn't ours is refused: writing it would let
//! whoever may declare a repository write what only others may write.

use std::collections::{BTreeMap, BTreeSet};

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

    /// Brings `data` into the ConfigMap `name`; keys of this object that aren't in it any more go. One that is as it
    /// should be is read and not written.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn write(&self, name: &str, data: &BTreeMap<String, String>) -> Result<Exported, kube::Error> {
        let there = self.api.get_opt(name).await?;
        if there.as_ref().is_some_and(|there| !is_ours(there)) {
            return Ok(Exported::Refused(format!("ConfigMap {name} exists and wasn't made by this operator")));
        }
        if there.as_ref().is_some_and(|there| holds(there, &self.owner_uid, data)) {
            return Ok(Exported::Done);
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

fn is_ours(object: &impl ResourceExt) -> bool {
    object.labels().contains_key(LABEL)
}

/// Whether the object with that UID has these keys in it, with these values, and no others.
fn holds(there: &ConfigMap, owner_uid: &str, data: &BTreeMap<String, String>) -> bool {
    let manager = secret_manager(owner_uid);
    let written = there.managed_fields().iter().find(|entry| entry.manager.as_deref() == Some(&manager));
    let fields = written.and_then(|entry| entry.fields_v1.as_ref()?.0.get("f:data")?.as_object());
    let keys: BTreeSet<_> = fields.into_iter().flatten().filter_map(|(field, _)| field.strip_prefix("f:")).collect();
    let values = there.data.as_ref();
    there.owner_references().iter().any(|owner| owner.uid == owner_uid)
        && keys == data.keys().map(String::as_str).collect()
        && data.iter().all(|(key, value)| values.and_then(|values| values.get(key)) == Some(value))
}

/// Whether anybody but objects of ours wrote to it.
fn has_strangers(object: &impl ResourceExt) -> bool {
    object
        .managed_fields()
        .iter()
        .any(|entry| !entry.manager.as_deref().is_some_and(|manager| manager.starts_with(MANAGER)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the API server keeps it: these keys with these values, of which an object wrote some.
    fn there(owner: &str, data: &Value, written: &Value) -> ConfigMap {
        let fields: serde_json::Map<_, _> =
            written.as_array().unwrap().iter().map(|key| (format!("f:{}", key.as_str().unwrap()), json!({}))).collect();
        let entry = json!({"manager": "ecr-operator/u1", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": fields}});
        serde_json::from_value(json!({
            "metadata": {
                "labels": {LABEL: "true"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "x", "name": "app", "uid": owner}],
                "managedFields": [{"manager": "ecr-operator/other", "fieldsV1": {"f:data": {"f:OTHER": {}}}}, entry],
            },
            "data": data,
        }))
        .unwrap()
    }

    #[test]
    fn what_is_as_it_should_be_is_known_as_such_and_any_difference_is_seen() {
        let wanted = BTreeMap::from([("A".to_owned(), "x".to_owned())]);
        for (owner, data, written, good) in [
            ("u1", json!({"A": "x", "OTHER": "y"}), json!(["A"]), true),
            ("u2", json!({"A": "x"}), json!(["A"]), false),
            ("u1", json!({"A": "edited"}), json!(["A"]), false),
            ("u1", json!({"OTHER": "y"}), json!(["A"]), false),
            ("u1", json!({"A": "x", "OLD": "x"}), json!(["A", "OLD"]), false),
            ("u1", json!({"A": "x"}), json!([]), false),
        ] {
            assert_eq!(holds(&there(owner, &data, &written), "u1", &wanted), good, "{owner} {data} {written}");
        }
    }
}
