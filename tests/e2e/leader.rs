//! Of several operators one works, whatever happens to it: real processes, stopped, killed, and their Lease taken away.

use std::collections::BTreeMap;
use std::time::Duration;

use ecr_operator::api::EcrRepository;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt as _};
use local_ecr::{Action, Fault, Matcher, RateLimit};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::support::cluster::Cluster;
use crate::support::operator::{NAMESPACE, Operator};
use crate::support::world::World;

pub type Terms = [(&'static str, &'static str); 3];
/// Short, so that a takeover takes seconds.
pub const SHORT: Terms = terms("5s", "3s");
/// So long that nobody takes over who waits for its end.
const LONG: Terms = terms("300s", "200s");

const fn terms(duration: &'static str, renew_deadline: &'static str) -> Terms {
    [
        ("ECR_OPERATOR_LEASE_DURATION", duration),
        ("ECR_OPERATOR_LEASE_RENEW_DEADLINE", renew_deadline),
        ("ECR_OPERATOR_LEASE_RETRY_PERIOD", "500ms"),
    ]
}

/// One cluster for these tests, which take turns: all operators in it work on the same objects.
pub async fn cluster() -> (&'static Cluster, MutexGuard<'static, ()>) {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    (CLUSTER.get_or_init(|| Cluster::start("control-plane")).await, turn)
}

/// Two that are ready, of which the first leads.
async fn two(cluster: &Cluster, test: &str, terms: &Terms) -> (Operator, Operator) {
    let first = Operator::start_with(cluster, &format!("{test}-first"), terms).await;
    until_leads(&first).await;
    let second = Operator::start_with(cluster, &format!("{test}-second"), terms).await;
    (first, second)
}

/// Waits until it does.
pub async fn until_leads(operator: &Operator) {
    let leads = async {
        while !operator.leads().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), leads).await;
    assert!(in_time.is_ok(), "it never leads; it logged:\n{}", operator.logged());
}

async fn lease(client: &Client) -> (Option<String>, i32) {
    let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let spec = api.get("ecr-operator").await.unwrap().spec.unwrap();
    (spec.holder_identity, spec.lease_transitions.unwrap_or_default())
}

async fn versions(world: &World) -> BTreeMap<String, Option<String>> {
    let all = world.api::<EcrRepository>().list(&ListParams::default()).await.unwrap();
    all.items.into_iter().map(|object| (object.name_any(), object.resource_version())).collect()
}

/// Of each call to AWS, in milliseconds, where many are to be under way.
const LATENCY: u64 = 500;

/// Until nothing was answered for a while, and so nothing sent.
async fn until_all_wait(world: &World) {
    let mut answered = 0;
    while answered != world.ecr.calls().len() {
        answered = world.ecr.calls().len();
        tokio::time::sleep(Duration::from_millis(LATENCY / 3)).await;
    }
}

#[tokio::test]
async fn one_of_two_works_and_the_other_takes_over_when_it_is_killed() {
    let (cluster, _turn) = cluster().await;
    let (first, second) = two(cluster, "killed", &SHORT).await;
    let world = World::at(cluster, "killed").await;
    world.repository("before", json!({})).await;
    world.repository_says("before", "True", "Ready").await;
    assert!(!second.leads().await, "it is ready, and waits");

    first.signal("KILL");
    world.repository("after", json!({})).await;
    world.repository_says("after", "True", "Ready").await;
    assert!(second.leads().await);
    assert_eq!(world.writes(), ["CreateRepository", "CreateRepository"]);
    second.stop();
}

#[tokio::test]
async fn a_leader_that_ends_hands_over_at_once() {
    let (cluster, _turn) = cluster().await;
    let (first, second) = two(cluster, "term", &LONG).await;
    let client = cluster.client().await;
    let (holder, transitions) = lease(&client).await;
    assert!(holder.unwrap().starts_with("term-first_"));
    let log = first.log.clone();
    first.stop();
    assert!(std::fs::read_to_string(log).unwrap().contains("lease released"));
    until_leads(&second).await;
    let (holder, after) = lease(&client).await;
    assert!(holder.unwrap().starts_with("term-second_"));
    assert_eq!(after, transitions + 1);
    second.stop();
    assert_eq!(lease(&client).await.0, None, "nobody's");
}

#[tokio::test]
async fn what_is_under_way_at_the_end_is_finished_before_another_begins() {
    let (cluster, _turn) = cluster().await;
    let (first, second) = two(cluster, "drain", &LONG).await;
    let world = World::at(cluster, "drain").await;
    world.ecr.fault(Fault::once(Matcher::operation("CreateRepository"), Action::Delay { millis: 2000 }));
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    // Just before it is created.
    let has_finalizer = |object: &EcrRepository| !object.finalizers().is_empty();
    world.until(&world.api(), "app", "with a finalizer", has_finalizer).await;
    first.signal("TERM");
    first.until_gone().await;
    let created = world.ecr.calls_of("CreateRepository");
    assert!(created.len() == 1 && created[0].is_ok(), "{created:?}; it logged:\n{}", first.logged());
    world.repository_says("app", "True", "Ready").await;
    until_leads(&second).await;
    assert_eq!(world.writes(), ["CreateRepository"], "and not made a second time");
    second.stop();
}

#[tokio::test]
async fn a_leader_that_was_stopped_for_a_while_writes_nothing_when_it_goes_on() {
    let (cluster, _turn) = cluster().await;
    let (first, second) = two(cluster, "stopped", &SHORT).await;
    let world = World::at(cluster, "stopped").await;
    world.ecr.fault(Fault::always(Matcher::default(), Action::Delay { millis: LATENCY }));
    let names: Vec<_> = (0..40).map(|n| format!("app-{n}")).collect();
    let spec = json!({
        "deletionPolicy": "Delete",
        "repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]},
        "lifecyclePolicy": {"rules": [{"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 9}, "action": {"type": "expire"}}]},
    });
    for name in &names {
        world.repository(name, spec.clone()).await;
    }
    // Amid its work: many passes have more to write. But not just between the last check and the network, which nothing
    // could help: all that was sent waits for its answer.
    world.ecr.wait_for_calls(10, Duration::from_secs(30), |call| call.operation == "CreateRepository").await;
    until_all_wait(&world).await;
    first.signal("STOP");
    for name in &names {
        world.repository_says(name, "True", "Ready").await;
    }
    assert!(second.leads().await);
    world.ecr.clear_calls();
    let before = versions(&world).await;

    first.signal("CONT");
    first.until_gone().await;
    let told = first.logged();
    assert!(told.contains("is now held by stopped-second_"), "it says why it ends:\n{told}");
    assert_eq!(world.operations(), Vec::<String>::new(), "nothing was asked of ECR");
    assert_eq!(versions(&world).await, before, "nothing was written to the API server");
    // And the one that leads still works.
    world.repository("after", json!({})).await;
    world.repository_says("after", "True", "Ready").await;
    second.stop();
}

#[tokio::test]
async fn there_is_one_writer_even_when_the_lease_is_deleted() {
    let (cluster, _turn) = cluster().await;
    let (first, second) = two(cluster, "deleted", &SHORT).await;
    let world = World::at(cluster, "deleted").await;
    let api: Api<Lease> = Api::namespaced(cluster.client().await, NAMESPACE);
    let names: Vec<_> = (0..12).map(|n| format!("app-{n}")).collect();
    for name in &names {
        api.delete("ecr-operator", &DeleteParams::default()).await.ok();
        world.repository(name, json!({})).await;
        assert!(!(first.leads().await && second.leads().await), "both");
    }
    for name in &names {
        world.repository_says(name, "True", "Ready").await;
    }
    assert_eq!(world.writes(), vec!["CreateRepository"; names.len()], "each was created once, by whoever led");
    let one_leads = || async { (first.leads().await != second.leads().await).then_some(()) };
    world.eventually("one of them leads again", one_leads).await;
    drop(first);
    second.stop();
}

#[tokio::test]
async fn what_waits_at_the_end_is_left_to_the_next() {
    let cluster = &Cluster::start("control-plane").await;
    let first = Operator::start_with(cluster, "queue-first", &LONG).await;
    let world = World::at(cluster, "queue").await;
    world.ecr.rate_limit(RateLimit::new(Matcher::operation("CreateRepository"), 1.0, 1.0));
    let names: Vec<_> = (0..40).map(|n| format!("app-{n}")).collect();
    for name in &names {
        world.repository(name, json!({})).await;
    }
    let created = |call: &local_ecr::Call| call.operation == "CreateRepository" && call.is_ok();
    world.ecr.wait_for_calls(3, Duration::from_secs(30), created).await;
    first.signal("TERM");
    let before = world.ecr.calls_of("CreateRepository").len();
    first.until_gone().await;
    let after = world.ecr.calls_of("CreateRepository").len();
    assert!(after <= before + 2, "{} were begun after the end was told", after - before);
    assert!(first.logged().contains("lease released"), "{}", first.logged());
    for name in &names {
        let told = world.events(name).await;
        assert!(!told.contains(&"Transient".to_owned()), "what is left to the next is no trouble: {told:?}");
    }

    world.ecr.clear_faults();
    let second = Operator::start_with(cluster, "queue-second", &LONG).await;
    for name in &names {
        world.repository_says(name, "True", "Ready").await;
    }
    second.stop();
}

#[tokio::test]
async fn the_lease_is_not_let_go_over_a_call_that_goes_on() {
    let cluster = &Cluster::start("control-plane").await;
    let first = Operator::start_with(cluster, "hangs-first", &SHORT).await;
    let world = World::at(cluster, "hangs").await;
    world.ecr.fault(Fault::once(Matcher::operation("CreateRepository"), Action::Hang));
    world.repository("app", json!({})).await;
    world.ecr.wait_for_call(Duration::from_secs(30), |call| call.operation == "CreateRepository").await;
    first.signal("TERM");
    first.until_gone().await;
    let told = first.logged();
    assert!(told.contains("waits for the lease to run out") && !told.contains("lease released"), "{told}");
    assert!(lease(&cluster.client().await).await.0.unwrap().starts_with("hangs-first_"));
    let second = Operator::start_with(cluster, "hangs-second", &SHORT).await;
    world.repository_says("app", "True", "Ready").await;
    second.stop();
}
