//! Restarts: what is as it should be costs next to nothing to know again.

use std::collections::BTreeMap;

use ecr_operator::api::{EcrPullSecret, EcrRepository};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt as _};
use local_ecr::{Action, Fault, Matcher};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::operator::Operator;
use crate::support::world::World;

async fn versions<K: Resource + Clone + DeserializeOwned + std::fmt::Debug>(
    api: Api<K>,
) -> BTreeMap<String, Option<String>> {
    let all = api.list(&ListParams::default()).await.unwrap();
    all.items.into_iter().map(|object| (object.name_any(), object.resource_version())).collect()
}

#[tokio::test]
async fn a_restart_costs_a_listing_and_writes_nothing() {
    let cluster = Cluster::start("control-plane").await;
    let first = Operator::start(&cluster, "first").await;
    let world = World::at(&cluster, "restart").await;
    let names: Vec<_> = (0..30).map(|n| format!("app-{n}")).collect();
    for name in &names {
        let spec = json!({"tags": {"a": "b"}, "deletionPolicy": "Delete", "repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]}});
        world.repository(name, spec).await;
    }
    world.pull_secret("pull", json!({"serviceAccounts": ["default"]})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    for name in &names {
        world.repository_says(name, "True", "Ready").await;
    }
    first.stop();
    let repositories = versions(world.api::<EcrRepository>()).await;
    let others = (versions(world.api::<EcrPullSecret>()).await, versions(world.api::<Secret>()).await);
    world.ecr.clear_calls();

    let _second = Operator::start(&cluster, "second").await;
    // The newcomer is worked on after all that were there before.
    world.repository("newcomer", json!({})).await;
    world.repository_says("newcomer", "True", "Ready").await;
    let scanning =
        world.ecr.wait_for_call(crate::support::world::PATIENCE, |call| call.operation == "DescribeRepositories").await;
    assert!(scanning.is_some(), "drift since is looked for at once");
    let mut operations = world.operations();
    operations.sort();
    assert_eq!(operations, ["CreateRepository", "DescribeRepositories", "GetRegistryScanningConfiguration"]);
    let mut after = versions(world.api::<EcrRepository>()).await;
    after.remove("newcomer");
    assert_eq!(after, repositories);
    assert_eq!((versions(world.api::<EcrPullSecret>()).await, versions(world.api::<Secret>()).await), others);
}

#[tokio::test]
async fn a_verdict_that_nothing_changed_survives_a_restart() {
    let cluster = Cluster::start("control-plane").await;
    let first = Operator::start(&cluster, "first").await;
    let world = World::at(&cluster, "verdicts").await;
    let api = world.api::<EcrRepository>();
    for name in ["taken", "planned"] {
        world.repository(name, json!({"imageTagMutability": "IMMUTABLE"})).await;
        world.repository_says(name, "True", "Ready").await;
    }
    let plan = Patch::Merge(json!({"spec": {"mode": "Plan"}}));
    api.patch("planned", &PatchParams::default(), &plan).await.unwrap();
    world.repository_says("planned", "True", "Ready").await;
    let mutable = json!({"repositoryName": "planned", "imageTagMutability": "MUTABLE"});
    world.behind_the_back("PutImageTagMutability", mutable);
    let arn = world.there("taken").unwrap().arn;
    let theirs =
        json!({"resourceArn": arn, "tags": [{"Key": "ecr-operator.dev/uid", "Value": "of-the-other-cluster"}]});
    world.behind_the_back("TagResource", theirs);
    for (name, reason) in [("taken", "Conflict"), ("planned", "PlanPending")] {
        world.again(&api, name).await;
        world.repository_says(name, "False", reason).await;
    }
    first.stop();
    let (before, listed) = (api.list(&ListParams::default()).await.unwrap(), versions(api.clone()).await);
    let from = before.metadata.resource_version.unwrap();
    let mut changes = Box::pin(api.watch(&WatchParams::default(), &from).await.unwrap());
    world.ecr.clear_calls();

    let _second = Operator::start(&cluster, "second").await;
    world.repository("newcomer", json!({})).await;
    // All that were there before are looked at before the newcomer.
    let mut told = false;
    while !told {
        match changes.next().await.unwrap().unwrap() {
            WatchEvent::Added(object) | WatchEvent::Modified(object) if object.name_any() == "newcomer" => {
                told = object.status.is_some();
            }
            WatchEvent::Modified(object) => panic!("{:?}", object.status),
            _ => {}
        }
    }
    let mut now = versions(api.clone()).await;
    now.remove("newcomer");
    assert_eq!(now, listed);
    assert_eq!(world.writes(), ["CreateRepository"], "of the newcomer");

    let apply = Patch::Merge(json!({"spec": {"mode": "Apply"}}));
    api.patch("planned", &PatchParams::default(), &apply).await.unwrap();
    let applied = world.repository_says("planned", "True", "Ready").await;
    assert_eq!(applied.status.unwrap().drift.unwrap().actions[0].action, "PutImageTagMutability");
}

#[tokio::test]
async fn a_secret_that_was_edited_is_not_told_as_served_where_no_token_is_to_be_had() {
    let cluster = Cluster::start("control-plane").await;
    let first = Operator::start(&cluster, "first").await;
    let world = World::at(&cluster, "edited").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    first.stop();
    let secrets = world.api::<Secret>();
    let written = secrets.get("pull").await.unwrap().data;
    let edit = Patch::Merge(json!({"stringData": {".dockerconfigjson": r#"{"auths":{}}"#}}));
    secrets.patch("pull", &PatchParams::default(), &edit).await.unwrap();
    let down = Action::Before { code: "InternalFailure".into(), status: 500 };
    world.ecr.fault(Fault::always(Matcher::operation("GetAuthorizationToken"), down));

    let _second = Operator::start(&cluster, "second").await;
    let told = world.pull_secret_says("pull", "False", "Transient").await.status.unwrap();
    assert_eq!(told.secrets.as_deref(), Some("0/1"));
    world.ecr.clear_faults();
    world.pull_secret_says("pull", "True", "Ready").await;
    let repaired = secrets.get("pull").await.unwrap().data;
    let hosts = |data: Option<_>| {
        let data: BTreeMap<String, k8s_openapi::ByteString> = data.unwrap();
        let document: serde_json::Value = serde_json::from_slice(&data[".dockerconfigjson"].0).unwrap();
        document["auths"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(hosts(repaired), hosts(written));
}
