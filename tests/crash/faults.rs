//! What the network and the servers do, one fault at a time; where a fault has a test elsewhere, docs/faults.md names it.

use std::time::Duration;

use ecr_operator::api::EcrRepository;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use local_ecr::Config;
use serde_json::{Value, json};

use crate::support::faults::{Fault, Rule, Scope, Side, Upstream, Wire, cluster};
use crate::support::world::{PATIENCE, World};

const QUIET: Duration = Duration::from_millis(400);

/// A world whose operator's every request goes over a wire of ours; the operator is still to be started.
async fn stage(name: &str) -> (World, Wire) {
    let cluster = cluster().await;
    let kubernetes = Upstream::kubernetes().await;
    let world = World::bare(cluster, name, Config::default()).await;
    let scope = Scope::new(&world.namespace, Vec::new());
    let wire = Wire::start(&kubernetes, Upstream::aws(&world.ecr.url()), scope).await;
    world.registry_at(&wire.aws_url, json!({})).await;
    (world, wire)
}

fn refusal(code: u16, reason: &str) -> Fault {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": "planted",
    });
    let headers = vec![("content-type", "application/json"), ("retry-after", "1")];
    Fault::Answer { status: code, headers, body: status.to_string() }
}

#[tokio::test]
async fn an_old_list_after_a_restart_deletes_nothing() {
    let (world, wire) = stage("old-list").await;
    let api = world.api::<EcrRepository>();
    let mut operator = wire.operator();
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    operator.kill();
    api.delete("app", &DeleteParams::default()).await.unwrap();
    wire.begin();
    operator = wire.operator();
    world.until_gone(&api, "app").await;
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    let reborn = world.repository_says("app", "True", "Ready").await;
    operator.kill();
    world.ecr.clear_calls();

    // The list shows the object that was being deleted when the one before started, and the watch nothing newer.
    wire.freeze_watches("WATCH ecrrepositories");
    wire.rule(Rule::next(Side::Kubernetes, "LIST ecrrepositories", Fault::FirstAnswer));
    wire.revive();
    let begun = wire.seen().len();
    let _operator = wire.operator();
    let re_read =
        || async { wire.seen()[begun..].iter().any(|seen| seen.name == "GET ecrrepositories/app").then_some(()) };
    world.eventually("the object is read again before its repository is deleted", re_read).await;
    wire.quiet(QUIET).await;
    assert_eq!(world.writes(), [""; 0]);
    wire.let_watches_flow();
    let left = world.repository_says("app", "True", "Ready").await;
    assert_eq!(left.uid(), reborn.uid());
    assert!(world.there("app").is_some());
}

#[tokio::test]
async fn a_change_there_and_back_that_no_watch_showed_changes_nothing() {
    let (world, wire) = stage("frozen").await;
    let _operator = wire.operator();
    let with = |team: &str| json!({"tags": {"team": team}});
    world.repository("app", with("a")).await;
    world.repository_says("app", "True", "Ready").await;
    wire.quiet(QUIET).await;
    world.ecr.clear_calls();
    wire.freeze_watches("WATCH");
    world.repository("app", with("b")).await;
    world.repository("app", with("a")).await;
    // The watch is told that what it waits for is forgotten: all is listed anew.
    wire.begin();
    wire.expire_watches();
    world.repository_says("app", "True", "Ready").await;
    wire.quiet(QUIET).await;
    assert!(wire.seen().iter().any(|seen| seen.name == "LIST ecrrepositories"), "read anew");
    assert_eq!(world.writes(), [""; 0]);
    // And it goes on from there.
    world.repository("app", with("c")).await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(world.writes(), ["TagResource"]);
}

#[tokio::test]
async fn a_list_that_expires_between_two_pages_is_read_anew_and_nothing_of_it_is_lost() {
    let (world, wire) = stage("pages").await;
    // A page has 500 places.
    let crowd = (0..501).map(|n| {
        json!({
            "apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRepository", "spec": {},
            "metadata": {
                "name": format!("crowd-{n}"), "namespace": world.namespace,
                "annotations": {"ecr-operator.dev/suspend": "true"},
            },
        })
    });
    let made = futures::stream::iter(crowd).for_each_concurrent(8, async |object| world.apply(&object).await);
    made.await;
    for name in ["a-first", "z-last"] {
        world.repository(name, json!({})).await;
    }
    wire.rule(Rule::exactly(Side::Kubernetes, "LIST ecrrepositories", refusal(410, "Expired")).after(1));
    let mut operator = wire.operator();
    for name in ["a-first", "z-last"] {
        world.repository_says(name, "True", "Ready").await;
    }
    wire.quiet(QUIET).await;
    let lists = wire.seen().iter().filter(|seen| seen.name == "LIST ecrrepositories").count();
    assert_eq!(lists, 4, "one page, its end, and both pages anew");
    assert_eq!(world.writes(), ["CreateRepository", "CreateRepository"]);
    assert!(!operator.restart_if_ended(), "it went on; it logged:\n{}", wire.logged());
}

#[tokio::test]
async fn what_was_told_is_not_told_again_where_a_watch_lags_behind() {
    let (world, wire) = stage("lagging").await;
    let _operator = wire.operator();
    let status = "PATCH ecrpullsecrets/pull/status";
    wire.rule(Rule::exactly(Side::Kubernetes, status, Fault::Delay(Duration::from_secs(2))).times(1));
    world.pull_secret("pull", json!({})).await;
    tokio::time::timeout(PATIENCE, wire.asked(status)).await.expect("a status");
    wire.freeze_watches("WATCH ecrpullsecrets");
    world.pull_secret_says("pull", "True", "Ready").await;
    let secrets = world.api::<Secret>();
    let before = secrets.get("pull").await.unwrap();
    secrets.delete("pull", &DeleteParams::default()).await.unwrap();
    world.until(&secrets, "pull", "put back", |now: &Secret| now.uid() != before.uid()).await;
    wire.quiet(QUIET).await;
    assert_eq!(world.events("pull").await, ["Ready"]);
}

#[tokio::test]
async fn what_was_done_is_not_begun_anew_where_a_watch_lags_behind() {
    let (world, wire) = stage("unshown").await;
    let _operator = wire.operator();
    let status = "PATCH ecrrepositories/app/status";
    wire.rule(Rule::exactly(Side::Kubernetes, status, Fault::Delay(Duration::from_secs(2))).times(1));
    world.repository("app", json!({})).await;
    tokio::time::timeout(PATIENCE, wire.asked(status)).await.expect("a status");
    wire.freeze_watches("WATCH ecrrepositories");
    world.repository_says("app", "True", "Ready").await;
    world.ecr.clear_calls();
    world.registry_at(&wire.aws_url, json!({"requiredTags": {"team": "a"}})).await;
    let tagged = world.ecr.wait_for_call(PATIENCE, |call| call.operation == "TagResource").await;
    assert!(tagged.is_some(), "the pass for the changed registry");
    wire.quiet(QUIET).await;
    assert_eq!(world.writes(), ["TagResource"]);
}

/// An object with this `spec` waits for its registry. It is deleted, which the watch doesn't show, and then the registry is
/// there.
async fn goes_unseen(world: &World, wire: &Wire, spec: Value) {
    let registries = kube::Api::<ecr_operator::api::EcrRegistry>::all(world.client.clone());
    world.delete(&registries, &world.registry).await;
    let _operator = wire.operator();
    world.repository("app", spec).await;
    world.repository_says("app", "False", "RegistryNotFound").await;
    wire.freeze_watches("WATCH ecrrepositories");
    world.delete(&world.api::<EcrRepository>(), "app").await;
    wire.begin();
    world.registry_at(&wire.aws_url, json!({})).await;
    tokio::time::timeout(PATIENCE, wire.asked("GET ecrrepositories/app")).await.expect("asks before it takes it");
    wire.quiet(QUIET).await;
}

#[tokio::test]
async fn nothing_is_created_for_an_object_whose_deletion_was_never_seen() {
    let (world, wire) = stage("unseen").await;
    goes_unseen(&world, &wire, json!({})).await;
    assert_eq!(world.writes(), [""; 0]);
}

#[tokio::test]
async fn nothing_is_adopted_for_an_object_whose_deletion_was_never_seen() {
    let (world, wire) = stage("unseen-adopted").await;
    world.behind_the_back("CreateRepository", json!({"repositoryName": "app"}));
    world.ecr.clear_calls();
    goes_unseen(&world, &wire, json!({"adoptionPolicy": "Adopt", "inheritDefaults": false})).await;
    assert_eq!(world.writes(), [""; 0]);
}

#[tokio::test]
async fn nothing_is_created_anew_for_an_object_that_went_unseen_with_its_repository() {
    let (world, wire) = stage("unseen-held").await;
    let _operator = wire.operator();
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    world.age("app").await;
    wire.quiet(QUIET).await;
    wire.freeze_watches("WATCH ecrrepositories");
    world.delete(&world.api::<EcrRepository>(), "app").await;
    world.behind_the_back("DeleteRepository", json!({"repositoryName": "app", "force": true}));
    world.ecr.clear_calls();
    wire.begin();
    // A snapshot shows that it isn't there.
    let registries = kube::Api::<ecr_operator::api::EcrRegistry>::all(world.client.clone());
    world.again(&registries, &world.registry).await;
    tokio::time::timeout(PATIENCE, wire.asked("GET ecrrepositories/app")).await.expect("asks before it creates");
    wire.quiet(QUIET).await;
    assert_eq!(world.writes(), [""; 0]);
    assert!(world.there("app").is_none());
}

#[tokio::test]
async fn an_answer_about_one_object_that_never_comes_holds_up_no_other_creation() {
    let (world, wire) = stage("silent-answer").await;
    let _operator = wire.operator();
    world.registry_says("True", "Ready").await;
    wire.rule(Rule::next(Side::Kubernetes, "GET ecrrepositories/one", Fault::Silence));
    world.repository("one", json!({})).await;
    world.repository("two", json!({})).await;
    // Sooner than the connection is given up.
    let told = world.repository_says("one", "False", "Transient").await;
    let message = &told.status.unwrap().conditions[0].message;
    assert!(message.contains("no answer from the API server in time"), "{message}");
    for name in ["two", "one"] {
        world.repository_says(name, "True", "Ready").await;
    }
    assert_eq!(world.writes(), ["CreateRepository"; 2]);
}

#[tokio::test]
async fn an_api_server_that_is_overloaded_or_fails_is_waited_for() {
    let (world, wire) = stage("overload").await;
    for (name, fault, times) in [
        ("LIST ecrrepositories", refusal(429, "TooManyRequests"), 2),
        ("LIST secrets", refusal(500, "InternalError"), 2),
        ("WATCH ecrrepositories", refusal(503, "ServiceUnavailable"), 2),
        ("PATCH ecrrepositories/app", refusal(409, "Conflict"), 1),
        ("PATCH ecrrepositories/app/status", refusal(429, "TooManyRequests"), 2),
        ("PATCH secrets/pull", refusal(503, "ServiceUnavailable"), 2),
        ("PATCH ecrpullsecrets/pull/status", refusal(500, "InternalError"), 2),
        ("POST events", Fault::Cut, 1),
    ] {
        wire.rule(Rule::exactly(Side::Kubernetes, name, fault).times(times));
    }
    let mut operator = wire.operator();
    world.repository("app", json!({"deletionPolicy": "Delete", "tags": {"team": "a"}})).await;
    world.pull_secret("pull", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    world.pull_secret_says("pull", "True", "Ready").await;
    wire.quiet(QUIET).await;
    assert_eq!(world.writes(), ["CreateRepository"]);
    assert_eq!(
        world.ecr.calls_of("GetAuthorizationToken").len(),
        1,
        "the token isn't fetched again for a write that failed"
    );
    assert!(!operator.restart_if_ended(), "it went on; it logged:\n{}", wire.logged());
}

#[tokio::test]
async fn connections_to_the_api_server_that_broke_unnoticed_are_given_up() {
    let (world, wire) = stage("half-open").await;
    let mut operator = wire.operator_with(&[("ECR_OPERATOR_API_SERVER_SILENCE", "3s")]);
    world.repository("before", json!({})).await;
    world.repository_says("before", "True", "Ready").await;
    wire.silence_watches();
    wire.begin();
    // And somebody who waits for an answer.
    wire.rule(Rule::next(Side::Kubernetes, "PATCH ecrrepositories/after/status", Fault::Silence));
    world.repository("after", json!({})).await;
    world.repository_says("after", "True", "Ready").await;
    assert!(wire.seen().iter().any(|seen| seen.name == "WATCH ecrrepositories"), "a new watch showed it");
    let created = world.ecr.calls_of("CreateRepository");
    assert_eq!(created.iter().filter(|call| call.is_ok()).count(), 2, "each once: {created:?}");
    assert!(!operator.restart_if_ended(), "it went on; it logged:\n{}", wire.logged());
}

#[tokio::test]
async fn an_answer_of_aws_that_never_comes_or_breaks_off_is_given_up_and_asked_for_again() {
    let (world, wire) = stage("silence").await;
    wire.rule(Rule::next(Side::Aws, "CreateRepository one", Fault::Silence));
    wire.rule(Rule::next(Side::Aws, "CreateRepository two", Fault::Cut).times(2));
    wire.rule(Rule::next(Side::Aws, "CreateRepository three", Fault::Lost));
    let page = "<html>502 Bad Gateway</html>".to_owned();
    wire.rule(
        Rule::next(Side::Aws, "CreateRepository four", Fault::Answer { status: 502, headers: vec![], body: page })
            .times(2),
    );
    wire.rule(Rule::next(Side::Aws, "CreateRepository five", Fault::Delay(Duration::from_secs(2))));
    let _operator = wire.operator();
    let names = ["one", "two", "three", "four", "five"];
    for name in names {
        world.repository(name, json!({"deletionPolicy": "Delete"})).await;
    }
    for name in names {
        world.repository_says(name, "True", "Ready").await;
    }
    let created = world.ecr.calls_of("CreateRepository");
    let done = created.iter().filter(|call| call.is_ok()).count();
    assert_eq!(done, names.len(), "each once: {created:?}");
}
