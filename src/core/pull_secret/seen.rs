//! A pull secret as its metadata tells it: the Secret's data is never read, so what was written is marked beside it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use crate::api::OWNER_UID;
use crate::core::pull_secret::secret_manager;
use crate::core::token::Life;

const ISSUED_AT: &str = "ecr-operator.dev/issued-at";
const EXPIRES_AT: &str = "ecr-operator.dev/expires-at";
const REFRESH_AT: &str = "ecr-operator.dev/refresh-at";
const CONTENT: &str = "ecr-operator.dev/content";
const OWNER: &str = "ecr-operator.dev/owner";

/// What is noted on a Secret when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// UID of the pull secret it belongs to.
    pub owner_uid: String,
    /// `Kind/namespace/name` or `Kind/name`, for people.
    pub owner: String,
    /// A fingerprint of everything but the tokens: hosts, identities, template.
    pub content: String,
    /// The life of the token in it that ends first.
    pub life: Life,
    /// When that token is to be renewed.
    pub refresh_at: Timestamp,
}

impl Marks {
    /// As annotations.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        [
            (OWNER, self.owner.clone()),
            (CONTENT, self.content.clone()),
            (ISSUED_AT, self.life.issued_at.to_string()),
            (EXPIRES_AT, self.life.expires_at.to_string()),
            (REFRESH_AT, self.refresh_at.to_string()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// From a Secret's metadata; `None` where a mark is missing or was spoilt.
    #[must_use]
    pub fn read(meta: &ObjectMeta) -> Option<Self> {
        let annotations = meta.annotations.as_ref()?;
        let text = |key: &str| annotations.get(key).cloned();
        let time = |key: &str| text(key)?.parse::<Timestamp>().ok();
        Some(Self {
            owner_uid: meta.labels.as_ref()?.get(OWNER_UID)?.clone(),
            owner: text(OWNER)?,
            content: text(CONTENT)?,
            life: Life { issued_at: time(ISSUED_AT)?, expires_at: time(EXPIRES_AT)? },
            refresh_at: time(REFRESH_AT)?,
        })
    }
}

/// A Secret that bears our label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The Secret's own UID.
    pub uid: String,
    /// The label, whatever became of the other marks.
    pub owner_uid: String,
    /// The marks, if they are whole.
    pub marks: Option<Marks>,
    /// Whether nobody else has written what we wrote.
    pub intact: bool,
}

impl Seen {
    /// Reads it off the metadata, `managedFields` included.
    #[must_use]
    pub fn read(meta: &ObjectMeta) -> Option<Self> {
        let owner_uid = meta.labels.as_ref()?.get(OWNER_UID)?.clone();
        let intact = is_intact(meta.managed_fields.as_deref().unwrap_or_default(), &secret_manager(&owner_uid));
        Some(Self { uid: meta.uid.clone()?, marks: Marks::read(meta), intact, owner_uid })
    }

    /// Whether it needs neither a new token nor repair at `now`.
    #[must_use]
    pub fn is_good(&self, content: &str, now: Timestamp) -> bool {
        self.intact && self.marks.as_ref().is_some_and(|marks| marks.content == content && marks.refresh_at > now)
    }

    /// Whether writing `marks` would change nothing.
    #[must_use]
    pub fn holds(&self, marks: &Marks) -> bool {
        self.intact && self.marks.as_ref() == Some(marks)
    }
}

/// The API server notes who wrote which field last. Data is still ours alone if our apply lists it and nobody else does;
/// an edit of a single byte moves it to the editor. So do edits of our annotations.
fn is_intact(fields: &[ManagedFieldsEntry], manager: &str) -> bool {
    let ours = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(manager) && entry.operation.as_deref() == Some("Apply")
    };
    let writes_data =
        |entry: &ManagedFieldsEntry| entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:data").is_some());
    let writes_marks = |entry: &ManagedFieldsEntry| {
        let annotations = entry.fields_v1.as_ref().and_then(|fields| fields.0.pointer("/f:metadata/f:annotations"));
        annotations
            .and_then(serde_json::Value::as_object)
            .is_some_and(|keys| keys.keys().any(|key| key.starts_with("f:ecr-operator.dev/")))
    };
    fields.iter().any(|entry| ours(&entry) && writes_data(entry))
        && !fields.iter().any(|entry| !ours(&entry) && (writes_data(entry) || writes_marks(entry)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn marks() -> Marks {
        Marks {
            owner_uid: "u".into(),
            owner: "EcrPullSecret/a/b".into(),
            content: "c".into(),
            life: Life { issued_at: at(0), expires_at: at(100) },
            refresh_at: at(45),
        }
    }

    fn written(by: &[(&str, &str, serde_json::Value)]) -> ObjectMeta {
        let fields = by.iter().map(|(manager, operation, fields)| {
            serde_json::from_value(json!({"manager": manager, "operation": operation, "fieldsV1": fields})).unwrap()
        });
        ObjectMeta {
            uid: Some("s".into()),
            labels: Some([(OWNER_UID.to_owned(), "u".to_owned())].into()),
            annotations: Some(marks().annotations()),
            managed_fields: Some(fields.collect()),
            ..ObjectMeta::default()
        }
    }

    const MANAGER: &str = "ecr-operator/u";

    fn data() -> serde_json::Value {
        json!({"f:data": {"f:.dockerconfigjson": {}}})
    }

    #[test]
    fn marks_that_were_written_are_read_back() {
        let seen = Seen::read(&written(&[(MANAGER, "Apply", data())])).unwrap();
        assert!(seen.intact);
        assert!(seen.holds(&marks()));
        assert!(seen.is_good("c", at(44)));
        assert!(!seen.is_good("c", at(45)), "due");
        assert!(!seen.is_good("other hosts", at(44)));
    }

    #[test]
    fn an_edit_by_anybody_is_seen_without_reading_the_data() {
        let label = json!({"f:metadata": {"f:labels": {"f:theirs": {}}}});
        let mark = json!({"f:metadata": {"f:annotations": {"f:ecr-operator.dev/expires-at": {}}}});
        let ours = (MANAGER, "Apply", data());
        for (others, intact) in [
            (vec![ours.clone(), ("kubectl-label", "Update", label)], true),
            (vec![ours.clone(), ("kubectl-annotate", "Update", mark)], false),
            (vec![(MANAGER, "Apply", json!({})), ("kubectl-edit", "Update", data())], false),
            (vec![ours.clone(), ("other", "Apply", data())], false),
            (vec![ours, (MANAGER, "Update", data())], false),
            (vec![], false),
        ] {
            assert_eq!(Seen::read(&written(&others)).unwrap().intact, intact, "{others:?}");
        }
    }
}
