//! Policies and docker configs: documents that others write as well.

use std::collections::{BTreeMap, BTreeSet};

use ecr_operator::api::{ForeignStatements, OWNER_UID, RepositoryPolicy};
use ecr_operator::core::lifecycle::LifecycleDocument;
use ecr_operator::core::names::Region;
use ecr_operator::core::policy::{PolicyDocument, Statement, WantedPolicy, target};
use ecr_operator::core::pull_secret::{
    CREATED, Change, DOCKER_CONFIG_KEY, DOCKER_CONFIG_TYPE, MERGED, Marks, SecretOwner, TokenLives, merge, note_key,
    noted, unmerge,
};
use ecr_operator::core::token::{Life, Secret};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use serde_json::{Value, json};

use crate::mutate::fuzz;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const UID: &str = "00000000-0000-0000-0000-000000000000";

#[test]
fn repository_policies() {
    let ours =
        Statement::new(json!({"Sid": "EcrOperatorA", "Effect": "Allow", "Principal": "*", "Action": "a:a"})).unwrap();
    fuzz("policy", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for foreign_statements in [None, Some(ForeignStatements::Keep), Some(ForeignStatements::Remove)] {
            let declared = RepositoryPolicy {
                policy_text: Some(text.to_string()),
                foreign_statements,
                ..RepositoryPolicy::default()
            };
            drop(WantedPolicy::parse(&declared, &Region::parse("eu-west-1").unwrap()));
        }
        let Ok(there) = PolicyDocument::parse(&text) else { return };
        // Written and read again, it means the same.
        if there.text().chars().count() <= 10_240 {
            assert_eq!(PolicyDocument::parse(&there.text()).unwrap(), there);
        }
        assert!(PolicyDocument::changes(Some(&there), Some(&there)).is_empty());
        // What others wrote stays beside ours, and once that is so nothing more is to be done.
        let wanted = WantedPolicy::Statements { ours: vec![ours.clone()], keep_foreign: true };
        if let Ok(Some(with_ours)) = target(&wanted, Some(&there), false) {
            let kept = |it: &&Statement| it.is_ours() || it.says_the_same(&ours) || with_ours.statements().contains(it);
            assert!(there.statements().iter().all(|it| kept(&it)));
            assert_eq!(target(&wanted, Some(&with_ours), false).unwrap().as_ref(), Some(&with_ours));
        }
    });
}

#[test]
fn lifecycle_policies() {
    fuzz("lifecycle", |bytes| {
        let Ok(document) = LifecycleDocument::parse(&String::from_utf8_lossy(bytes)) else { return };
        assert!(document.text().chars().count() >= 100, "ECR takes no fewer");
        assert_eq!(LifecycleDocument::parse(&document.text()).as_ref(), Ok(&document));
        assert!(LifecycleDocument::changes(Some(&document), Some(&document)).is_empty());
    });
}

fn secret(bytes: &[u8]) -> KubeSecret {
    KubeSecret {
        type_: Some(DOCKER_CONFIG_TYPE.to_owned()),
        data: Some([(DOCKER_CONFIG_KEY.to_owned(), ByteString(bytes.to_vec()))].into()),
        ..KubeSecret::default()
    }
}

fn marks() -> Marks {
    let life =
        Life { issued_at: Timestamp::UNIX_EPOCH, expires_at: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(12) };
    let owner =
        SecretOwner { kind: "EcrPullSecret".into(), namespace: Some("a".into()), name: "b".into(), uid: UID.into() };
    Marks { owner, content: "c".into(), tokens: TokenLives::of([(HOST, life, "r")]), life, refresh_at: life.expires_at }
}

/// The Secret after a change.
fn changed(mut secret: KubeSecret, change: Change) -> Option<KubeSecret> {
    let Change::Write { text, note, label, .. } = change else { return None };
    if let Some(text) = text {
        let bytes = ByteString(text.expose().as_bytes().to_vec());
        secret.data.get_or_insert_default().insert(DOCKER_CONFIG_KEY.to_owned(), bytes);
    }
    let annotations = secret.metadata.annotations.get_or_insert_default();
    match note {
        Some(note) => drop(annotations.insert(note_key(UID), note)),
        None => drop(annotations.remove(&note_key(UID))),
    }
    let labels = secret.metadata.labels.get_or_insert_default();
    if label {
        labels.insert(OWNER_UID.to_owned(), MERGED.to_owned());
    } else {
        labels.remove(OWNER_UID);
    }
    Some(secret)
}

/// What is in it, apart from an `auths` that is empty; `None` where it isn't JSON.
fn content(secret: &KubeSecret, without: &str) -> Option<Value> {
    let text = &secret.data.as_ref().unwrap()[DOCKER_CONFIG_KEY].0;
    let text = if text.trim_ascii().is_empty() { b"null" } else { text.as_slice() };
    let mut value: Value = serde_json::from_slice(text).ok()?;
    if value.is_null() {
        value = json!({});
    }
    let auths = value.get_mut("auths").and_then(Value::as_object_mut);
    let empty = auths.is_none_or(|auths| {
        auths.remove(without);
        auths.is_empty()
    });
    if let Some(object) = value.as_object_mut().filter(|_| empty) {
        object.remove("auths");
    }
    Some(value)
}

#[test]
fn docker_configs_that_others_share() {
    let entry = Secret::new(json!({"auth": "QVdTOnA="}).to_string());
    fuzz("docker-config", |bytes| {
        let before = secret(bytes);
        let entries = BTreeMap::from([(HOST.to_owned(), Some(entry.clone()))]);
        let Ok(outcome) = merge(&before, &marks(), &entries, &BTreeSet::new()) else { return };
        let Some(change) = outcome.change else { return };
        let merged = changed(before.clone(), change).unwrap();
        let written = merged.data.as_ref().unwrap()[DOCKER_CONFIG_KEY].0.clone();
        // A raw value may be deeper than anything that is looked into.
        if let Ok(value) = serde_json::from_slice::<Value>(&written) {
            assert_eq!(value["auths"][HOST]["auth"], "QVdTOnA=");
        }
        // What others wrote is all there, with us and after us; a second pass has nothing to do.
        if let Some(theirs) = content(&before, HOST) {
            assert_eq!(content(&merged, HOST), Some(theirs));
        }
        assert!(merge(&merged, &marks(), &entries, &BTreeSet::new()).unwrap().change.is_none());
        let left = changed(merged.clone(), unmerge(&merged, UID, &BTreeSet::new()).unwrap())
            .expect("others' Secrets aren't deleted");
        assert_eq!(noted(&left.metadata).count(), 0);
        if let Some(theirs) = content(&before, "") {
            assert!(content(&left, "") == Some(theirs) || before == secret(&written), "something went with us");
        }
    });
}

#[test]
fn notes_on_secrets_that_anybody_may_have_written() {
    fuzz("docker-config", |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut forged = secret(b"{}");
        forged.metadata.annotations =
            Some(BTreeMap::from([(note_key(UID), text.clone()), (CREATED.to_owned(), text.clone())]));
        forged.metadata.labels = Some(BTreeMap::from([(OWNER_UID.to_owned(), text)]));
        drop(merge(&forged, &marks(), &BTreeMap::new(), &BTreeSet::new()));
        drop(unmerge(&forged, UID, &BTreeSet::new()));
        drop(Marks::read(&forged.metadata));
    });
}
