//! What it costs: the calls to AWS and the writes to Kubernetes, counted.

use ecr_operator::api::{EcrRegistry, EcrRepository};
use futures::StreamExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::support::world::{ACCOUNT, REGION, World};

fn with_everything() -> serde_json::Value {
    json!({
        "imageTagMutability": "IMMUTABLE",
        "lifecyclePolicy": {"rules": [{
            "rulePriority": 1,
            "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 3},
            "action": {"type": "expire"},
        }]},
        "repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]},
        "tags": {"team": "a"},
    })
}

async fn change(world: &World, name: &str, patch: serde_json::Value) {
    world.api::<EcrRepository>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test]
async fn a_change_of_one_aspect_reads_that_aspect_and_the_tags_that_say_whose_it_is() {
    let world = World::new("reads").await;
    world.repository("app", with_everything()).await;
    world.repository_says("app", "True", "Ready").await;
    for (patch, reads) in [
        (json!({"tags": {"team": "b"}}), vec!["ListTagsForResource"]),
        (json!({"imageTagMutability": "MUTABLE"}), vec!["DescribeRepositories", "ListTagsForResource"]),
        (json!({"lifecyclePolicy": {"rules": []}}), vec!["GetLifecyclePolicy", "ListTagsForResource"]),
        (json!({"repositoryPolicy": null}), vec!["GetRepositoryPolicy", "ListTagsForResource"]),
        (json!({"deletionPolicy": "Delete"}), vec![]),
    ] {
        world.ecr.clear_calls();
        change(&world, "app", json!({"spec": patch})).await;
        world.repository_says("app", "True", "Ready").await;
        let writes = world.writes();
        let mut asked = world.operations();
        asked.retain(|operation| !writes.contains(operation));
        asked.sort();
        assert_eq!(asked, reads, "{patch}");
    }
}

#[tokio::test]
async fn a_pass_without_a_difference_writes_nothing_anywhere() {
    let world = World::new("quiet").await;
    world.repository("app", with_everything()).await;
    let settled = world.repository_says("app", "True", "Ready").await;
    let api = world.api::<EcrRepository>();
    let params = WatchParams::default().fields("metadata.name=app");
    let mut changes = Box::pin(api.watch(&params, settled.metadata.resource_version.as_ref().unwrap()).await.unwrap());
    world.ecr.clear_calls();
    change(&world, "app", json!({"metadata": {"annotations": {"note": "of no meaning"}}})).await;
    change(&world, "app", json!({"metadata": {"annotations": {"ecr-operator.dev/reconcile-at": "1"}}})).await;
    let handled = |object: &EcrRepository| {
        object.status.as_ref().is_some_and(|status| status.last_handled_reconcile_at.as_deref() == Some("1"))
    };
    let after = world.until(&api, "app", "handled", handled).await;
    let mut operations = world.operations();
    operations.sort();
    let everything = ["DescribeRepositories", "GetLifecyclePolicy", "GetRepositoryPolicy", "ListTagsForResource"];
    assert_eq!(operations, everything, "one full pass, and none for the other annotation");
    let mut versions = Vec::new();
    while versions.last() != after.metadata.resource_version.as_ref() {
        if let WatchEvent::Modified(object) = changes.next().await.unwrap().unwrap() {
            versions.push(object.metadata.resource_version.unwrap());
        }
    }
    assert_eq!(versions.len(), 3, "two annotations, and the status that remembers the second");
}

#[tokio::test]
async fn drift_of_many_is_found_by_one_listing_and_only_what_differs_is_looked_at() {
    let world = World::new("many").await;
    for n in 0..120 {
        world.repository(&format!("app-{n}"), json!({"imageTagMutability": "IMMUTABLE"})).await;
    }
    world.repository_says("app-119", "True", "Ready").await;
    let all = || async {
        let list = world.api::<EcrRepository>().list(&ListParams::default()).await.unwrap();
        let ready = list
            .items
            .iter()
            .filter(|object| object.status.as_ref().is_some_and(|status| status.repository_arn.is_some()));
        (ready.count() == 120).then_some(())
    };
    world.eventually("all created", all).await;
    world.age("app-8").await;
    for (operation, body) in [
        ("PutImageTagMutability", json!({"repositoryName": "app-7", "imageTagMutability": "MUTABLE"})),
        ("DeleteRepository", json!({"repositoryName": "app-8"})),
    ] {
        world.ecr.behind_the_back(ACCOUNT, REGION, operation, body).unwrap();
    }
    world.ecr.clear_calls();
    world.again(&Api::<EcrRegistry>::all(world.client.clone()), &world.registry).await;
    let repaired = |object: &EcrRepository| object.status.as_ref().is_some_and(|status| status.drift.is_some());
    world.until(&world.api::<EcrRepository>(), "app-7", "repaired", repaired).await;
    world.eventually("app-8 created again", || async { world.there("app-8") }).await;
    world.event("app-8", "Recreated").await;
    let mut operations = world.operations();
    operations.sort();
    let listings = operations.iter().filter(|operation| *operation == "DescribeRepositories").count();
    assert!(listings <= 1 + 2, "one listing, and both by name: {operations:?}");
    let mut writes = world.writes();
    writes.sort();
    assert_eq!(writes, ["CreateRepository", "PutImageTagMutability"]);
}
