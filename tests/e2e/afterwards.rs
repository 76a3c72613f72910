//! What is deleted leaves nothing behind, and what is made anew begins anew.

use std::time::Duration;

use ecr_operator::api::EcrPullSecret;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use local_ecr::{Action, Fault, Matcher};
use serde_json::json;

use crate::support::operator::{Operator, get};
use crate::support::world::{PATIENCE, World};

#[tokio::test]
async fn a_secret_that_goes_with_its_object_is_waited_for_by_the_next_one() {
    let world = World::new("anew").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let (objects, secrets): (Api<EcrPullSecret>, Api<Secret>) = (world.api(), world.api());
    let first = secrets.get("pull").await.unwrap();
    let finalizers = |value: serde_json::Value| Patch::Merge(json!({"metadata": {"finalizers": value}}));
    // Garbage is collected when it suits the collector.
    secrets.patch("pull", &PatchParams::default(), &finalizers(json!(["example.com/stay"]))).await.unwrap();
    world.delete(&objects, "pull").await;
    world.pull_secret("pull", json!({})).await;
    let told = world.pull_secret_says("pull", "False", "Transient").await.status.unwrap();
    assert!(told.conditions.iter().all(|condition| condition.type_ != "Stalled"), "{:?}", told.conditions);
    // A new cluster's collector knows our kinds only after half a minute.
    let _ = secrets.delete("pull", &DeleteParams::default()).await;
    secrets.patch("pull", &PatchParams::default(), &finalizers(json!(null))).await.unwrap();
    world.pull_secret_says("pull", "True", "Ready").await;
    assert_ne!(secrets.get("pull").await.unwrap().metadata.uid, first.metadata.uid);
    assert!(!world.events("pull").await.contains(&"Invalid".to_owned()));
}

#[tokio::test]
async fn an_object_that_is_deleted_while_aws_is_asked_leaves_no_series_behind() {
    let world = World::new("deleted").await;
    let slow = Action::Delay { millis: 1500 };
    world.ecr.fault(Fault::once(Matcher::operation("GetAuthorizationToken"), slow));
    world.pull_secret("gone", json!({})).await;
    world.ecr.wait_for_call(PATIENCE, |call| call.operation == "GetAuthorizationToken").await;
    world.api::<EcrPullSecret>().delete("gone", &DeleteParams::default()).await.unwrap();
    let address = &Operator::shared().await.address;
    let series = |name: &'static str| {
        let namespace = world.namespace.clone();
        move |metrics: &str| {
            let of_it =
                |line: &&str| line.contains(&format!("\"{namespace}\"")) && line.contains(&format!("\"{name}\""));
            metrics.lines().filter(|line| line.contains("expiry")).any(|line| of_it(&line))
        }
    };
    // Its pass goes on, to no end but this.
    world.until(&world.api::<Secret>(), "gone", "written", |_: &Secret| true).await;
    world.pull_secret("stays", json!({})).await;
    world.pull_secret_says("stays", "True", "Ready").await;
    tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let metrics = get(address, "/metrics").await.unwrap_or_default();
            if series("stays")(&metrics) && !series("gone")(&metrics) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("only what is there is told");
}
