//! Tokens of an identity whose sessions end, as EKS Pod Identity's do: whether they outlive them is found out, and acted on.

use std::time::Duration;

use ecr_operator::api::EcrPullSecret;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams};
use local_ecr::Config;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::operator::Operator;
use crate::support::pod_identity::PodIdentity;
use crate::support::world::{PATIENCE, REGION, World};

/// Of a session: an hour where roles are chained at AWS.
const SESSION: Duration = Duration::from_secs(8);

fn life_seconds(secret: &Secret) -> i64 {
    let at = |key: &str| secret.annotations()[key].parse::<jiff::Timestamp>().unwrap();
    let life = at("ecr-operator.dev/expires-at").duration_since(at("ecr-operator.dev/issued-at"));
    life.as_secs()
}

#[tokio::test]
async fn tokens_are_tried_after_their_session_and_then_trusted_or_renewed_in_time() {
    let cluster = Cluster::start("control-plane").await;
    // Its namespace and ServiceAccount are there once an operator was.
    Operator::start(&cluster, "installer").await.stop();
    let world = World::bare(&cluster, "session", Config::default()).await;
    let pod = PodIdentity::associate(&cluster, &world).await;
    world.ecr.set_session_lifetime(Some(SESSION));

    world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": world.registry}, "spec": {
        "region": REGION, "endpoint": {"url": world.ecr.url()}, "identity": {"ambient": {}}, "pull": {"scopeTokens": "Never", "regions": ["us-east-1"]},
        "allow": [{"namespaces": {}, "pull": ["*"]}],
    }})).await;
    let secrets: Api<Secret> = world.api();

    let first = Operator::start_with(&cluster, "trusting", &pod.environment()).await;
    let of = |region: &str| json!({"registries": [{"registryRef": {"name": world.registry}, "regions": [region]}]});
    world.pull_secret("pull", of(REGION)).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let tried = world.ecr.wait_for_call(PATIENCE, |call| call.operation == "Ping").await;
    assert!(tried.is_some_and(|call| call.is_ok()));
    let hours_away = |object: &EcrPullSecret| {
        let refresh_at = object.status.as_ref().and_then(|status| status.refresh_at.as_ref());
        refresh_at.is_some_and(|at| at.0 > jiff::Timestamp::now() + jiff::SignedDuration::from_hours(3))
    };
    world.until(&world.api::<EcrPullSecret>(), "pull", "trusted", hours_away).await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1);
    assert_eq!(world.ecr.calls_of("Ping").len(), 1, "once for this identity");
    first.stop();

    world.ecr.tokens_end_with_session(true);
    secrets.delete("pull", &DeleteParams::default()).await.unwrap();
    world.ecr.clear_calls();
    let _second = Operator::start_with(&cluster, "learning", &pod.environment()).await;
    // Another token of the identity, whose session ends later.
    let issued =
        |secret: &Secret| secret.annotations()["ecr-operator.dev/issued-at"].parse::<jiff::Timestamp>().unwrap();
    let begun = issued(&world.until(&secrets, "pull", "there", |_: &Secret| true).await);
    world.eventually("half a session", || async { (jiff::Timestamp::now() > begun + SESSION / 2).then_some(()) }).await;
    world.pull_secret("late", of("us-east-1")).await;
    let late = issued(&world.until(&secrets, "late", "there", |_: &Secret| true).await);
    world.event("pull", "TokenEndedWithSession").await;
    let renewed = world.until(&secrets, "late", "renewed", |secret: &Secret| issued(secret) > late).await;
    assert!(issued(&renewed) < late + SESSION, "before its session ended");
    let short = |secret: &Secret| life_seconds(secret) <= SESSION.as_secs().try_into().unwrap();
    world.until(&secrets, "pull", "ending with its session", short).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let after = world.ecr.calls_of("GetAuthorizationToken").len();
    world.ecr.wait_for_calls(after + 2, PATIENCE, |call| call.operation == "GetAuthorizationToken").await;
    assert_eq!(world.ecr.calls_of("Ping").len(), 1, "once for this identity");
    let told = world.events("pull").await;
    assert_eq!(told.iter().filter(|reason| *reason == "TokenEndedWithSession").count(), 1);
    assert!(!told.iter().any(|reason| reason == "Stale" || reason == "Expired"), "{told:?}");
}
