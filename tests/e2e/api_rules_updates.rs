//! What may be changed in an object that exists, and what may not.

use kube::api::{DeleteParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Error, ResourceExt as _};

use crate::support::api::{misjudged, object, objects};
use crate::support::cluster::Cluster;

/// From, to, and where and how it is refused, if it is.
type Change = (&'static str, &'static str, Option<(&'static str, &'static str)>);

#[tokio::test]
async fn of_a_repository() {
    let renamed = Some(("spec.name", "a repository can't be renamed"));
    let encrypted = Some(("spec", "encryptionConfiguration can't be changed, added or removed"));
    let kms = "encryptionConfiguration: {encryptionType: KMS}";
    let changes: &[Change] = &[
        ("name: changed/a", "name: changed/a, mode: Plan", None),
        ("name: changed/a", "name: changed/b", renamed),
        ("name: changed/a", "", renamed),
        ("", "name: changed/a", renamed),
        // The object's own name, written out or not.
        ("", "name: changed", None),
        ("name: changed", "", None),
        (kms, "encryptionConfiguration: {encryptionType: KMS}, mode: Plan", None),
        (kms, "encryptionConfiguration: {encryptionType: KMS_DSSE}", encrypted),
        (kms, "encryptionConfiguration: {encryptionType: KMS, kmsKey: alias/a}", encrypted),
        (kms, "", encrypted),
        ("", kms, encrypted),
        ("deletionPolicy: Delete", "deletionPolicy: Retain", None),
        ("", "registryRef: {name: other}", None),
        ("adoptionPolicy: Adopt, inheritDefaults: true", "", None),
    ];
    try_changes("EcrRepository", changes).await;
}

#[tokio::test]
async fn of_a_registry() {
    let account = Some(("spec", "accountId can be added, but not changed or removed"));
    let changes: &[Change] = &[
        ("", "region: eu-west-2", Some(("spec", "region can't be changed"))),
        ("", "accountId: '123456789012'", None),
        ("accountId: '123456789012'", "accountId: '210987654321'", account),
        ("accountId: '123456789012'", "", account),
        ("identity: {ambient: {}}", "identity: {accessKey: {secretName: key}}", None),
        ("defaults: {encryptionConfiguration: {encryptionType: KMS}}", "", None),
    ];
    try_changes("EcrRegistry", changes).await;
}

#[tokio::test]
async fn of_a_pull_secret() {
    let changes: &[Change] = &[
        ("secretName: a", "secretName: b", None),
        ("serviceAccounts: [default]", "access: Push", None),
        ("mergePolicy: Merge", "", Some(("spec", "mergePolicy can't change"))),
        ("", "format: Template, secretTemplate: {data: {a: b}}", Some(("spec", "format can't change"))),
        ("secretTemplate: {labels: {a: b}}", "", None),
    ];
    try_changes("EcrPullSecret", changes).await;
}

async fn try_changes(kind: &str, changes: &[Change]) {
    let client = Cluster::shared().await.client().await;
    let api = objects(&client, kind);
    let mut wrongs = Vec::new();
    for (from, to, refused) in changes {
        api.create(&PostParams::default(), &object(kind, "changed", from)).await.unwrap();
        let answer = change(&api, object(kind, "changed", to)).await;
        let wrong = match refused {
            Some((path, message)) => misjudged(answer, path, message),
            None => answer.err().map(|error| format!("was refused: {error}")),
        };
        wrongs.extend(wrong.map(|how| format!("{kind}, from {{{from}}} to {{{to}}} {how}")));
        api.delete("changed", &DeleteParams::default()).await.unwrap();
    }
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

/// Tries it on the latest version: an operator that runs for other tests may write a status in between.
async fn change(api: &Api<DynamicObject>, mut new: DynamicObject) -> Result<DynamicObject, Error> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    loop {
        new.metadata.resource_version = api.get(&new.name_any()).await?.resource_version();
        match api.replace(&new.name_any(), &dry, &new).await {
            Err(Error::Api(status)) if status.is_conflict() => {}
            answer => return answer,
        }
    }
}
