//! Tokens that live twenty seconds: pulls go on while they are renewed, and what happens when AWS is away for a life.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::node::Place;

const LIFE: Duration = Duration::from_secs(20);
/// How long the Deployment is scaled: six lives.
const FOR: Duration = Duration::from_mins(2);

#[tokio::test]
async fn a_deployment_that_is_scaled_all_the_time_never_fails_to_pull() {
    let place = Place::new("grows").await;
    let world = &place.world;
    let image = place.push("1").await;
    world.ecr.set_token_lifetime(LIFE);
    world.pull_secret("pull", json!({"serviceAccounts": ["default"]})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    world
        .apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hello", "namespace": world.namespace},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "hello"}},
                "template": {
                    "metadata": {"labels": {"app": "hello"}},
                    "spec": {
                        "automountServiceAccountToken": false,
                        "dnsPolicy": "Default",
                        "terminationGracePeriodSeconds": 0,
                        "containers": [{"name": "hello", "image": image, "imagePullPolicy": "Always"}],
                    },
                },
            },
        }))
        .await;
    let deployments: Api<Deployment> = world.api();
    let until = world.ecr.now() + FOR;
    let mut pods = 0;
    while world.ecr.now() < until {
        for replicas in [2, 3, 1] {
            let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
            deployments.patch("hello", &PatchParams::default(), &scale).await.unwrap();
            let scaled = |object: &Deployment| {
                let status = object.status.as_ref();
                status.is_some_and(|status| {
                    status.available_replicas == Some(replicas) && status.replicas == Some(replicas)
                })
            };
            world.until(&deployments, "hello", &format!("scaled to {replicas}"), scaled).await;
            pods += usize::from(replicas > 1);
        }
    }
    let events = world.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    let failures = events.iter().filter(|event| matches!(event.reason.as_deref(), Some("Failed" | "BackOff")));
    assert_eq!(failures.map(|event| &event.note).collect::<Vec<_>>(), Vec::<&Option<String>>::new());
    // Not "already present on machine".
    let pulled = |event: &&Event| event.note.as_ref().is_some_and(|note| note.starts_with("Successfully pulled"));
    let pulls = events.iter().filter(pulled).count();
    assert!(pods >= 6 && pulls >= pods, "{pulls} pulls for {pods} pods");
    let renewals = world.ecr.calls_of("GetAuthorizationToken").len();
    assert!(renewals >= 6, "{renewals} renewals in six lives");
}

#[tokio::test]
async fn when_aws_is_away_for_a_life_the_last_token_is_kept_and_its_end_is_told() {
    let place = Place::new("away").await;
    let world = &place.world;
    let image = place.push("1").await;
    world.ecr.set_token_lifetime(LIFE);
    world.pull_secret("pull", json!({"serviceAccounts": ["default"]})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let secrets: Api<Secret> = world.api();
    let held = secrets.get("pull").await.unwrap();
    world.ecr.down(true);
    world.pull_secret_says("pull", "True", "Stale").await;
    world.pull_secret_says("pull", "False", "Expired").await;
    assert_eq!(secrets.get("pull").await.unwrap().data, held.data, "kept");
    world.ecr.down(false);
    world.pull_secret_says("pull", "True", "Ready").await;
    assert_ne!(secrets.get("pull").await.unwrap().data, held.data, "renewed");
    place.pod(&world.namespace, "late", &image, &[]).await;
    place.runs(&world.namespace, "late").await;
}
