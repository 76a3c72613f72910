//! Restarts: what is as it should be costs next to nothing to know again.

use std::collections::BTreeMap;

use ecr_operator::api::{EcrPullSecret, EcrRepository};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt as _};
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
