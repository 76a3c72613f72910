//! Clocks that are off: no operator believes what another's clock says, and AWS believes none that is far off.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use serde_json::json;

use crate::leader::{SHORT, cluster, until_leads};
use crate::support::clocks::off_by;
use crate::support::cluster::Cluster;
use crate::support::operator::{NAMESPACE, Operator};
use crate::support::world::World;

/// Renewals of the Lease in which one that waited would long have taken over, if it counted from what the Lease says.
const RENEWALS: usize = 20;

/// How far the one clock is ahead of the other: many times a life of the Lease, and no more than AWS bears of a signature. (One
/// that is behind takes the API server's new certificate for not yet valid.)
const AHEAD: &str = "240";

async fn start(cluster: &Cluster, name: &str, environment: &[(&str, &str)]) -> Operator {
    Operator::start_with(cluster, name, &[&SHORT[..], environment].concat()).await
}

async fn is_renewed(world: &World, times: usize) {
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), NAMESPACE);
    let mut version = None;
    for _ in 0..times {
        let newer = |lease: &Lease| lease.metadata.resource_version != version;
        version = world.until(&leases, "ecr-operator", "renewed", newer).await.metadata.resource_version;
    }
}

/// So many seconds ahead of this process's clock.
async fn renewed_ahead(world: &World) -> i64 {
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), NAMESPACE);
    let spec = leases.get("ecr-operator").await.unwrap().spec.unwrap();
    spec.renew_time.unwrap().0.as_second() - jiff::Timestamp::now().as_second()
}

#[tokio::test]
async fn of_two_whose_clocks_are_minutes_apart_one_works_and_the_other_takes_over_what_is_there() {
    let (cluster, _turn) = cluster().await;
    let slow = start(cluster, "clock-slow", &[]).await;
    until_leads(&slow).await;
    let quick = start(cluster, "clock-quick", &off_by(AHEAD)).await;
    let world = World::at(cluster, "clocks").await;
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    is_renewed(&world, RENEWALS).await;
    assert!(slow.leads().await && !quick.leads().await, "however old the Lease looks by the other's clock");

    slow.signal("STOP");
    until_leads(&quick).await;
    world.repository("after", json!({})).await;
    world.repository_says("after", "True", "Ready").await;
    assert!(renewed_ahead(&world).await > 200, "its clock is ahead");
    slow.signal("CONT");
    slow.until_gone().await;
    let slow = start(cluster, "clock-slow-again", &[]).await;
    is_renewed(&world, RENEWALS).await;
    assert!(quick.leads().await && !slow.leads().await, "however far its time lies in the future");
    quick.signal("KILL");
    until_leads(&slow).await;
    assert_eq!(world.writes(), ["CreateRepository", "CreateRepository"], "by whoever led, once each");
    slow.stop();
}

#[tokio::test]
async fn a_clock_that_aws_does_not_bear_is_named_and_no_key_is_called_wrong() {
    let (cluster, _turn) = cluster().await;
    let operator = start(cluster, "clock-off", &off_by("7200")).await;
    until_leads(&operator).await;
    let world = World::bare(cluster, "clockoff", local_ecr::Config::default()).await;
    world.registry_at(&world.ecr.url(), json!({})).await;
    let registry = world.registry_says("False", "Transient").await;
    let told = &registry.status.unwrap().conditions[0].message;
    assert!(told.contains("the clock of the operator's machine is off"), "{told}");
    operator.stop();

    let operator = start(cluster, "clock-set", &[]).await;
    until_leads(&operator).await;
    world.registry_says("True", "Ready").await;
    operator.stop();
}
