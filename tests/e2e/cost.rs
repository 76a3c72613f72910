//! What it costs: the calls to AWS and the writes to Kubernetes, counted.

use ecr_operator::api::{EcrRegistry, EcrRepository};
use futures::StreamExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use local_ecr::{Action, Fault, Matcher};
use serde_json::json;

use crate::support::world::{PATIENCE, World};

stories! {
    a_change_of_one_aspect_reads_that_aspect_and_the_tags_that_say_whose_it_is,
    a_pass_without_a_difference_writes_nothing_anywhere,
    one_that_may_adopt_asks_once_before_it_creates,
    drift_of_many_is_found_by_one_listing_and_only_what_differs_is_looked_at,
}

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

async fn a_change_of_one_aspect_reads_that_aspect_and_the_tags_that_say_whose_it_is(world: World) {
    world.repository("app", with_everything()).await;
    world.repository_says("app", "True", "Ready").await;
    for (patch, reads) in [
        (json!({"tags": {"team": "b"}}), vec!["ListTagsForResource"]),
        (json!({"imageTagMutability": "MUTABLE"}), vec!["DescribeRepositories", "ListTagsForResource"]),
        (json!({"lifecyclePolicy": {"rules": []}}), vec!["GetLifecyclePolicy", "ListTagsForResource"]),
        (json!({"repositoryPolicy": null}), vec!["GetRepositoryPolicy", "ListTagsForResource"]),
        (json!({"deletionPolicy": "Delete"}), vec![]),
    ] {
        world.clear_calls();
        change(&world, "app", json!({"spec": patch})).await;
        world.repository_says("app", "True", "Ready").await;
        let writes = world.writes();
        let mut asked = world.operations();
        asked.retain(|operation| !writes.contains(operation));
        asked.sort();
        assert_eq!(asked, reads, "{patch}");
    }
}

async fn a_pass_without_a_difference_writes_nothing_anywhere(world: World) {
    world.repository("app", with_everything()).await;
    let settled = world.repository_says("app", "True", "Ready").await;
    let api = world.api::<EcrRepository>();
    let params = WatchParams::default().fields("metadata.name=app");
    let mut changes = Box::pin(api.watch(&params, settled.metadata.resource_version.as_ref().unwrap()).await.unwrap());
    world.clear_calls();
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

async fn one_that_may_adopt_asks_once_before_it_creates(world: World) {
    let mut spec = with_everything();
    crate::support::world::merge(&mut spec, json!({"adoptionPolicy": "Adopt", "inheritDefaults": false}));
    world.repository("app", spec).await;
    world.repository_says("app", "True", "Ready").await;
    let operations = ["ListTagsForResource", "CreateRepository", "PutLifecyclePolicy", "SetRepositoryPolicy"];
    assert_eq!(world.operations(), operations);
}

async fn drift_of_many_is_found_by_one_listing_and_only_what_differs_is_looked_at(world: World) {
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
        world.behind_the_back(operation, body);
    }
    world.clear_calls();
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

/// A world with so many repositories with everything that one has its turn every few seconds.
async fn with_many_turns(name: &str, registry: serde_json::Value) -> (World, Vec<String>) {
    let world = World::new(name).await;
    let names: Vec<_> = (0..20).map(|n| format!("app-{n}")).collect();
    for name in &names {
        world.repository(name, with_everything()).await;
    }
    for name in &names {
        world.repository_says(name, "True", "Ready").await;
    }
    let mut spec = json!({"driftInterval": "1m"});
    crate::support::world::merge(&mut spec, registry);
    world.clear_calls();
    world.register(spec).await;
    world.registry_says("True", "Ready").await;
    assert!(count(&world, "GetResources") > 0, "a shorter interval counts at once");
    (world, names)
}

/// Asks for a snapshot, and waits until it was taken.
async fn snapshot(world: &World) {
    let before = world.ecr.count(|call| call.operation == "GetResources");
    world.again(&Api::<EcrRegistry>::all(world.client.clone()), &world.registry).await;
    let taken = world.ecr.wait_for_calls(before + 1, PATIENCE, |call| call.operation == "GetResources").await;
    assert!(taken.len() > before, "a snapshot");
}

fn count(world: &World, operation: &str) -> usize {
    world.ecr.calls_of(operation).len()
}

#[tokio::test]
async fn tags_of_all_are_read_by_one_call_and_only_those_that_differ_are_read_again() {
    let world = World::new("tagbatch").await;
    for name in ["app", "other"] {
        world.repository(name, json!({"tags": {"team": "a"}})).await;
        world.repository_says(name, "True", "Ready").await;
    }
    let arn = world.there("app").unwrap().arn;
    let changed = json!({"resourceArn": arn, "tags": [{"Key": "team", "Value": "z"}, {"Key": "theirs", "Value": "x"}]});
    world.behind_the_back("TagResource", changed);
    world.clear_calls();
    world.again(&Api::<EcrRegistry>::all(world.client.clone()), &world.registry).await;
    let repaired = |object: &EcrRepository| object.status.as_ref().is_some_and(|status| status.drift.is_some());
    world.until(&world.api::<EcrRepository>(), "app", "repaired", repaired).await;
    let there = world.there("app").unwrap();
    assert_eq!((there.tags["team"].as_str(), there.tags["theirs"].as_str()), ("a", "x"));
    assert_eq!(count(&world, "GetResources"), 1);
    let read = world.ecr.calls_of("ListTagsForResource").into_iter().map(|call| call.resource).collect::<Vec<_>>();
    assert_eq!(read, ["app"], "nothing is written on the strength of a hint alone");
    assert_eq!(world.writes(), ["TagResource"]);
}

#[tokio::test]
async fn what_the_batch_shows_late_is_looked_at_and_nothing_is_written() {
    let world = World::new("taglate").await;
    world.repository("app", json!({"tags": {"team": "a"}})).await;
    world.repository_says("app", "True", "Ready").await;
    let stale = json!({"ResourceTagMappingList": [{"ResourceARN": world.there("app").unwrap().arn, "Tags": []}]});
    let body = Action::Body { status: 200, body: stale.to_string() };
    world.ecr.fault(Fault::always(Matcher::operation("GetResources"), body));
    world.clear_calls();
    snapshot(&world).await;
    let read = world.ecr.wait_for_call(PATIENCE, |call| call.operation == "ListTagsForResource").await;
    assert!(read.is_some(), "ECR itself is asked");
    world.again(&world.api::<EcrRepository>(), "app").await;
    let handled = |object: &EcrRepository| {
        object.status.as_ref().is_some_and(|status| status.last_handled_reconcile_at.is_some())
    };
    let after = world.until(&world.api::<EcrRepository>(), "app", "handled", handled).await;
    assert!(after.status.unwrap().drift.is_none());
    assert_eq!(world.writes(), [""; 0]);
}

#[tokio::test]
async fn in_their_turns_policies_alone_are_read_and_tags_only_where_the_batch_is_denied() {
    let (world, names) = with_many_turns("turns", json!({})).await;
    let turn = |operation: &'static str| world.ecr.wait_for_call(PATIENCE, move |call| call.operation == operation);
    turn("GetLifecyclePolicy").await.expect("a turn");
    turn("GetRepositoryPolicy").await.expect("a turn");
    assert_eq!(count(&world, "ListTagsForResource"), 0);

    let denied = Action::Before { code: "AccessDeniedException".to_owned(), status: 400 };
    world.ecr.fault(Fault::always(Matcher::operation("GetResources"), denied));
    snapshot(&world).await;
    for name in &names {
        let arn = world.there(name).unwrap().arn;
        let body = json!({"resourceArn": arn, "tagKeys": ["team"]});
        world.behind_the_back("UntagResource", body);
    }
    turn("ListTagsForResource").await.expect("a turn with tags");
    turn("TagResource").await.expect("the tag is put back");

    world.ecr.clear_faults();
    snapshot(&world).await;
    let all_back =
        || async { names.iter().all(|name| world.there(name).unwrap().tags.contains_key("team")).then_some(()) };
    world.eventually("what is denied is tried again when asked, and then all are seen at once", all_back).await;
}

#[tokio::test]
async fn a_policy_that_is_changed_behind_our_back_is_found_in_its_turn_and_put_right() {
    let (world, names) = with_many_turns("policyturn", json!({})).await;
    for name in &names {
        let body = json!({"repositoryName": name});
        world.behind_the_back("DeleteRepositoryPolicy", body);
    }
    let repair = world.ecr.wait_for_call(PATIENCE, |call| call.operation == "SetRepositoryPolicy").await.unwrap();
    let calls = world.ecr.calls().into_iter().filter(|call| call.resource == repair.resource);
    let mut operations: Vec<_> = calls.map(|call| call.operation).collect();
    assert_eq!(operations.pop().unwrap(), "SetRepositoryPolicy");
    assert!(operations.contains(&"ListTagsForResource".to_owned()), "whose it is, is read before: {operations:?}");
    let repaired = |object: &EcrRepository| object.status.as_ref().is_some_and(|status| status.drift.is_some());
    world.until(&world.api::<EcrRepository>(), &repair.resource, "repaired", repaired).await;
}

#[tokio::test]
async fn without_a_budget_nothing_is_read_in_turns_and_snapshots_go_on() {
    let (world, _) = with_many_turns("nobudget", json!({"readBudgetPerHour": 0})).await;
    let registry = world.registry_says("True", "Ready").await;
    assert_eq!(registry.status.unwrap().full_check_every, None);
    for _ in 0..3 {
        snapshot(&world).await;
    }
    let mut asked = world.operations();
    asked.sort();
    asked.dedup();
    assert_eq!(asked, ["DescribeRepositories", "GetRegistryScanningConfiguration"]);
}
