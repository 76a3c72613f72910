//! The API server lacks our kinds, loses them, or goes away: the operator waits, says so, and goes on.

use std::time::Duration;

use ecr_operator::api::{EcrRepository, all_crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::leader::until_leads;
use crate::support::admission::{Refusal, refuse};
use crate::support::cluster::Cluster;
use crate::support::operator::{Operator, get};
use crate::support::world::World;

/// Takes our kinds away, with all objects of theirs.
async fn remove_crds(cluster: &Cluster) {
    let mut names = vec!["delete".to_owned(), "crd".to_owned(), "--ignore-not-found".to_owned()];
    names.extend(all_crds().unwrap().iter().map(|crd: &CustomResourceDefinition| crd.name_any()));
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let removed = cluster.kubectl(&names, "").await;
    assert!(removed.ok, "{}", removed.text);
}

async fn is_alive(operator: &Operator) -> bool {
    get(&operator.address, "/healthz").await.is_some_and(|answer| answer.contains("200 OK"))
}

#[tokio::test]
async fn kinds_that_are_missing_or_taken_away_are_waited_for_and_named() {
    let cluster = &Cluster::start("control-plane").await;
    remove_crds(cluster).await;
    let operator = Operator::launch(cluster, "no-kinds", &[]).await;
    for kind in ["EcrRegistry", "EcrRepository", "EcrPullSecret", "ClusterEcrPullSecret"] {
        operator.until_readyz(&format!("\n{kind}: the API server doesn't know this kind")).await;
    }
    assert!(is_alive(&operator).await);
    cluster.install_crds().await;
    operator.until_ready().await;
    let world = World::at(cluster, "kinds-came").await;
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;

    remove_crds(cluster).await;
    operator.until_readyz("EcrRepository: the API server doesn't know this kind: install the chart").await;
    assert!(is_alive(&operator).await);
    cluster.install_crds().await;
    operator.until_ready().await;
    let world = World::at(cluster, "kinds-came-back").await;
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(world.writes(), ["CreateRepository"]);
    // It is the same process that was there from the start.
    operator.stop();
}

#[tokio::test]
async fn an_api_server_that_is_started_anew_is_waited_for_and_one_of_two_works_on() {
    let cluster = &Cluster::start("control-plane").await;
    let first = Operator::start(cluster, "anew-first").await;
    until_leads(&first).await;
    let second = Operator::start(cluster, "anew-second").await;
    let world = World::at(cluster, "anew").await;
    world.repository("before", json!({})).await;
    world.repository_says("before", "True", "Ready").await;

    let stay_alive = async {
        while is_alive(&first).await && is_alive(&second).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = cluster.restart_api_server() => {}
        () = stay_alive => panic!("one of them calls itself broken"),
    }
    world.repository("after", json!({})).await;
    world.repository_says("after", "True", "Ready").await;
    assert!(first.leads().await && !second.leads().await, "it was away for less than the lease lasts");
    assert_eq!(world.writes(), ["CreateRepository", "CreateRepository"]);
    let api: Api<EcrRepository> = world.api();
    world.delete(&api, "after").await;
    first.stop();
    until_leads(&second).await;
    second.stop();
}

/// An admission policy of the cluster that lets nobody write the status of repositories in this namespace. It is in force
/// a moment after it was made.
async fn refuse_statuses(world: &World) {
    let refusal = Refusal {
        group: "ecr-operator.dev",
        resource: "ecrrepositories/status",
        operations: &["UPDATE"],
        unless: "false",
        message: "no status here",
    };
    refuse(world, &world.namespace, refusal).await;
    let (api, trial) = (world.api::<EcrRepository>(), Patch::Merge(json!({"status": {"region": "nowhere"}})));
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let refused = || async { api.patch_status("before", &params, &trial).await.is_err().then_some(()) };
    world.eventually("statuses are refused", refused).await;
}

#[tokio::test]
async fn a_status_that_the_api_server_refuses_costs_ever_fewer_calls() {
    let world = World::new("refused").await;
    world.repository("before", json!({})).await;
    world.repository_says("before", "True", "Ready").await;
    refuse_statuses(&world).await;
    world.ecr.clear_calls();
    world.repository("app", json!({})).await;
    let created = |call: &local_ecr::Call| call.operation == "CreateRepository" && call.resource == "app";
    let passes = world.ecr.wait_for_calls(5, Duration::from_mins(1), created).await;
    let gaps: Vec<_> = passes.windows(2).map(|two| two[1].at.duration_since(two[0].at)).collect();
    assert!(gaps.len() >= 4 && gaps[3] > gaps[0] * 2, "{gaps:?}");
}
