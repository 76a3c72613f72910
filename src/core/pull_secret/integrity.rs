//! Whether a Secret is as we wrote it, read off its metadata alone.
//!
//! The API server lists the fields that an apply wrote under its manager's name, and takes one off that list as soon as
//! anybody else changes or removes it. So our list must be as it was when we wrote.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use serde_json::{Value, json};

use crate::core::token::fingerprint;

/// Annotation that tells what was listed when the Secret was written.
pub const FIELDS: &str = "ecr-operator.dev/fields";

/// How much is left of what we wrote into a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Integrity {
    /// Somebody else wrote the data or the marks: they tell nothing.
    Edited,
    /// The data is as we wrote it, but a label, annotation, owner reference or key of ours isn't.
    Stripped,
    /// Everything.
    Whole,
}

impl Integrity {
    /// Of a Secret that `manager` applied; `None` where it didn't.
    #[must_use]
    pub fn of(meta: &ObjectMeta, manager: &str) -> Option<Self> {
        let is_ours = |entry: &&ManagedFieldsEntry| {
            entry.manager.as_deref() == Some(manager) && entry.operation.as_deref() == Some("Apply")
        };
        let (ours, others): (Vec<_>, Vec<_>) = meta.managed_fields.iter().flatten().partition(is_ours);
        let ours = ours.first()?;
        let is_edit = |entry: &&ManagedFieldsEntry| {
            writes_data(entry) || writes_marks(entry) || (writes_text(entry) && !is_older(entry, ours))
        };
        if !writes_data(ours) || others.iter().any(is_edit) {
            return Some(Self::Edited);
        }
        let listed = ours.fields_v1.as_ref().map(|fields| match &fields.0["f:data"] {
            // As it is kept.
            Value::String(digest) => digest.clone(),
            _ => Fields::listed(&fields.0).digest(),
        });
        Some(if listed.as_ref() == written(meta) { Self::Whole } else { Self::Stripped })
    }

    /// What is kept of `managedFields`: as much as it takes to read this off it again.
    #[must_use]
    pub fn entry(self, meta: &ObjectMeta, manager: String) -> ManagedFieldsEntry {
        let fields = match self {
            Self::Edited => None,
            Self::Stripped => Some(json!({"f:data": {}})),
            Self::Whole => Some(json!({"f:data": written(meta)})),
        };
        ManagedFieldsEntry {
            manager: Some(manager),
            operation: Some("Apply".to_owned()),
            fields_v1: fields.map(FieldsV1),
            ..ManagedFieldsEntry::default()
        }
    }
}

/// Whether the entry's manager wrote a Secret's data.
#[must_use]
pub fn writes_data(entry: &ManagedFieldsEntry) -> bool {
    entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:data").is_some())
}

/// Whether its manager applied `stringData`: it is listed by that name and takes nothing off our list.
fn writes_text(entry: &ManagedFieldsEntry) -> bool {
    entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:stringData").is_some())
}

/// Whether `entry`'s manager changed nothing since `ours` did. Within one second nobody knows.
fn is_older(entry: &ManagedFieldsEntry, ours: &ManagedFieldsEntry) -> bool {
    let times = entry.time.as_ref().zip(ours.time.as_ref());
    times.is_some_and(|(theirs, ours)| theirs.0 < ours.0)
}

fn writes_marks(entry: &ManagedFieldsEntry) -> bool {
    let annotations = entry.fields_v1.as_ref().and_then(|fields| fields.0.pointer("/f:metadata/f:annotations"));
    let keys = annotations.and_then(Value::as_object);
    keys.is_some_and(|keys| keys.keys().any(|key| key.starts_with("f:ecr-operator.dev/")))
}

fn written(meta: &ObjectMeta) -> Option<&String> {
    meta.annotations.as_ref()?.get(FIELDS)
}

/// The names of data keys, labels, annotations and owner references.
#[derive(Debug, PartialEq, Eq)]
pub struct Fields(BTreeSet<String>);

impl Fields {
    /// Of an object that is to be applied.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let keys = |pointer: &str| {
            let members = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
            members.map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
        let owners = owners.filter_map(|owner| owner["uid"].as_str().map(str::to_owned)).collect();
        Self::named(keys("/data"), keys("/metadata/labels"), keys("/metadata/annotations"), owners)
    }

    /// Of an entry of `managedFields`, in the format `FieldsV1`: `f:` and the name of a member, `k:` and the key of an
    /// element.
    #[must_use]
    pub fn listed(fields: &Value) -> Self {
        let names = |pointer: &str, prefix: &str| {
            let members = fields.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
            members.filter_map(|(key, _)| Some(key.strip_prefix(prefix)?.to_owned())).collect::<Vec<_>>()
        };
        let uid = |key: String| Some(serde_json::from_str::<Value>(&key).ok()?["uid"].as_str()?.to_owned());
        let owners = names("/f:metadata/f:ownerReferences", "k:").into_iter().filter_map(uid).collect();
        let (labels, annotations) = ("/f:metadata/f:labels", "/f:metadata/f:annotations");
        Self::named(names("/f:data", "f:"), names(labels, "f:"), names(annotations, "f:"), owners)
    }

    fn named(data: Vec<String>, labels: Vec<String>, annotations: Vec<String>, owners: Vec<String>) -> Self {
        let all = [("data", data), ("label", labels), ("annotation", annotations), ("owner", owners)];
        Self(
            all.into_iter()
                .flat_map(|(kind, names)| names.into_iter().map(move |name| format!("{kind} {name}")))
                .collect(),
        )
    }

    /// A short name for all of them.
    #[must_use]
    pub fn digest(&self) -> String {
        fingerprint(&self.0.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANAGER: &str = "ecr-operator/u";

    /// What our apply lists.
    fn ours() -> Value {
        let metadata = json!({
            "f:annotations": {"f:c": {}, "f:ecr-operator.dev/expires-at": {}},
            "f:labels": {"f:a": {}},
            "f:ownerReferences": {r#"k:{"uid":"u"}"#: {}},
        });
        json!({"f:data": {"f:p": {}, "f:u": {}}, "f:metadata": metadata, "f:type": {}})
    }

    #[test]
    fn an_edit_by_anybody_is_seen_without_reading_the_data() {
        use Integrity::{Edited, Stripped, Whole};
        let data = json!({"f:data": {"f:.dockerconfigjson": {}}});
        let label = json!({"f:metadata": {"f:labels": {"f:theirs": {}}}});
        let mark = json!({"f:metadata": {"f:annotations": {"f:ecr-operator.dev/expires-at": {}}}});
        let without = |pointer: &str, key: &str| {
            let mut fields = ours();
            fields.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap().remove(key).unwrap();
            (MANAGER, "Apply", fields)
        };
        let digest = Fields::listed(&ours()).digest();
        let ours = (MANAGER, "Apply", ours());
        for (entries, integrity) in [
            (vec![ours.clone(), ("kubectl-label", "Update", label)], Whole),
            (vec![without("/f:data", "f:u")], Stripped),
            (vec![without("/f:metadata/f:labels", "f:a")], Stripped),
            (vec![without("/f:metadata/f:annotations", "f:c")], Stripped),
            (vec![without("/f:metadata/f:ownerReferences", r#"k:{"uid":"u"}"#)], Stripped),
            (vec![ours.clone(), ("kubectl-annotate", "Update", mark)], Edited),
            (vec![(MANAGER, "Apply", json!({})), ("kubectl-edit", "Update", data.clone())], Edited),
            (vec![ours.clone(), ("other", "Apply", data.clone())], Edited),
            (vec![ours, (MANAGER, "Update", data)], Edited),
        ] {
            let fields = entries.iter().map(|(manager, operation, fields)| {
                serde_json::from_value(json!({"manager": manager, "operation": operation, "fieldsV1": fields})).unwrap()
            });
            let annotations = Some([(FIELDS.to_owned(), digest.clone())].into());
            let mut meta = ObjectMeta { managed_fields: Some(fields.collect()), annotations, ..ObjectMeta::default() };
            assert_eq!(Integrity::of(&meta, MANAGER), Some(integrity), "{entries:?}");
            meta.managed_fields = Some(vec![integrity.entry(&meta, MANAGER.to_owned())]);
            assert_eq!(Integrity::of(&meta, MANAGER), Some(integrity), "kept: {entries:?}");
        }
    }

    #[test]
    fn data_that_somebody_applied_in_the_clear_is_seen_by_its_time() {
        let entry = |manager: &str, time: Option<&str>, fields: Value| json!({"manager": manager, "operation": "Apply", "time": time, "fieldsV1": fields});
        let text = json!({"f:stringData": {"f:p": {}}});
        let annotations = Some([(FIELDS.to_owned(), Fields::listed(&ours()).digest())].into());
        for (time, integrity) in [
            (Some("2026-01-01T00:00:00Z"), Integrity::Whole),
            (Some("2026-01-01T00:00:01Z"), Integrity::Edited),
            (Some("2026-01-01T00:00:02Z"), Integrity::Edited),
            (None, Integrity::Edited),
        ] {
            let entries =
                json!([entry("other", time, text.clone()), entry(MANAGER, Some("2026-01-01T00:00:01Z"), ours())]);
            let managed_fields = Some(serde_json::from_value(entries).unwrap());
            let meta = ObjectMeta { managed_fields, annotations: annotations.clone(), ..ObjectMeta::default() };
            assert_eq!(Integrity::of(&meta, MANAGER), Some(integrity), "{time:?}");
        }
    }

    #[test]
    fn what_the_api_server_lists_is_what_was_applied() {
        let object = json!({
            "metadata": {
                "name": "n", "labels": {"a": "b"}, "annotations": {FIELDS: "x", "c": "d"},
                "ownerReferences": [{"uid": "u", "name": "o"}],
            },
            "type": "Opaque",
            "data": {".dockerconfigjson": "e30="},
        });
        let listed = json!({
            "f:metadata": {
                "f:labels": {"f:a": {}}, "f:annotations": {".": {}, "f:c": {}, "f:ecr-operator.dev/fields": {}},
                "f:ownerReferences": {r#"k:{"uid":"u"}"#: {}},
            },
            "f:type": {},
            "f:data": {"f:.dockerconfigjson": {}},
        });
        assert_eq!(Fields::of(&object), Fields::listed(&listed));
        assert_eq!(Fields::of(&object).0.len(), 5);
    }
}
