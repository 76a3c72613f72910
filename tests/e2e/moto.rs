//! The same stories against moto, an emulator that others wrote. What it is known to get wrong is left out by name:
//! tokens (they are long dead when it gives them), paging, newer lifecycle rules.

use ecr_operator::api::EcrRepository;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::moto::Moto;
use crate::support::world::World;

#[tokio::test]
async fn a_repository_lives_its_whole_life_on_moto() {
    let Some(moto) = Moto::start().await else {
        return;
    };
    let world = World::without_registry("moto", local_ecr::Config::default()).await;
    world.registry_at(&moto.url, json!({})).await;
    world.registry_says("True", "Ready").await;
    let ecr = moto.ecr().await;
    let spec = json!({
        "name": "team-a/app",
        "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": {"scanOnPush": true},
        "lifecyclePolicy": {"rules": [{
            "rulePriority": 1,
            "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14},
            "action": {"type": "expire"},
        }]},
        "repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]},
        "tags": {"team": "a"},
        "deletionPolicy": "Delete",
    });
    world.repository("app", spec).await;
    world.repository_says("app", "True", "Ready").await;
    let there = ecr.describe("team-a/app").await.unwrap().unwrap();
    assert_eq!((there.mutability.mode.as_str(), there.scan_on_push), ("IMMUTABLE", true));
    let tags = ecr.tags(&there.arn).await.unwrap().unwrap();
    assert_eq!((tags["team"].as_str(), tags.len()), ("a", 5));
    assert!(ecr.lifecycle_policy("team-a/app").await.unwrap().found().is_some());
    assert!(ecr.repository_policy("team-a/app").await.unwrap().found().is_some());

    let api = world.api::<EcrRepository>();
    let change = json!({"spec": {"imageTagMutability": "MUTABLE", "tags": {"team": null, "new": "x"}, "lifecyclePolicy": {"rules": []}, "repositoryPolicy": null}});
    api.patch("app", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    world.repository_says("app", "True", "Ready").await;
    let there = ecr.describe("team-a/app").await.unwrap().unwrap();
    assert_eq!(there.mutability.mode, "MUTABLE");
    let tags = ecr.tags(&there.arn).await.unwrap().unwrap();
    assert!(tags.contains_key("new") && !tags.contains_key("team"));
    assert!(ecr.lifecycle_policy("team-a/app").await.unwrap().found().is_none());
    assert!(ecr.repository_policy("team-a/app").await.unwrap().found().is_none());

    world.delete(&api, "app").await;
    assert_eq!(ecr.describe("team-a/app").await.unwrap(), None);
}

#[tokio::test]
async fn a_token_that_arrives_dead_is_told_and_never_written() {
    let Some(moto) = Moto::start().await else {
        return;
    };
    let world = World::without_registry("mototoken", local_ecr::Config::default()).await;
    world.registry_at(&moto.url, json!({})).await;
    world.registry_says("True", "Ready").await;
    world.pull_secret("pull", json!({})).await;
    let told = world.pull_secret_says("pull", "False", "Transient").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("expired at 2015-01-01"), "{message}");
    let secret = kube::Api::<k8s_openapi::api::core::v1::Secret>::namespaced(world.client.clone(), &world.namespace);
    assert!(secret.get_opt("pull").await.unwrap().is_none());
}
