//! The same stories against moto, an emulator that others wrote. What it is known to get wrong is left out by name:
//! tokens (they are long dead when it gives them), paging, newer lifecycle rules.

use ecr_operator::api::EcrRepository;
use ecr_operator::core::repository::{Creation, Mutability, Step};
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

/// A world whose registry leads to moto.
async fn on_moto(name: &str) -> Option<(Moto, World)> {
    let moto = Moto::start().await?;
    let world = World::without_registry(name, local_ecr::Config::default()).await;
    world.registry_at(&moto.url, json!({})).await;
    world.registry_says("True", "Ready").await;
    Some((moto, world))
}

fn creation(tags: &[(&str, &str)]) -> Creation {
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Creation { mutability: None, scan_on_push: None, encryption: None, tags }
}

#[tokio::test]
async fn a_repository_that_exists_on_moto_is_taken_only_with_leave() {
    let Some((moto, world)) = on_moto("motoadopt").await else {
        return;
    };
    let ecr = moto.ecr().await;
    ecr.create("app", &creation(&[("theirs", "x")])).await.unwrap();
    ecr.create("marked", &creation(&[("services.k8s.aws/namespace", "x")])).await.unwrap();
    world.repository("app", json!({"imageTagMutability": "IMMUTABLE"})).await;
    world.repository_says("app", "False", "AlreadyExists").await;
    assert_eq!(ecr.describe("app").await.unwrap().unwrap().mutability.mode, "MUTABLE");
    let adopt = json!({"imageTagMutability": "IMMUTABLE", "adoptionPolicy": "Adopt", "inheritDefaults": false});
    world.repository("app", adopt.clone()).await;
    let held = world.repository_says("app", "True", "Ready").await;
    let tags = ecr.tags(&held.status.unwrap().repository_arn.unwrap()).await.unwrap().unwrap();
    assert_eq!((tags["theirs"].as_str(), tags.len()), ("x", 5));
    world.repository("marked", adopt).await;
    world.repository_says("marked", "False", "Conflict").await;
}

#[tokio::test]
async fn what_is_changed_behind_our_back_on_moto_is_put_right() {
    let Some((moto, world)) = on_moto("motodrift").await else {
        return;
    };
    let ecr = moto.ecr().await;
    world.repository("app", json!({"imageTagMutability": "IMMUTABLE", "tags": {"a": "b"}})).await;
    let held = world.repository_says("app", "True", "Ready").await;
    let arn = held.status.unwrap().repository_arn.unwrap();
    for step in [
        Step::PutImageTagMutability(Mutability::new("MUTABLE", vec![])),
        Step::TagResource([("a".to_owned(), "other".to_owned())].into()),
    ] {
        ecr.perform("app", &arn, &step).await.unwrap();
    }
    let api = world.api::<EcrRepository>();
    world.again(&api, "app").await;
    let repaired = |object: &EcrRepository| object.status.as_ref().is_some_and(|status| status.drift.is_some());
    world.until(&api, "app", "repaired", repaired).await;
    assert_eq!(ecr.describe("app").await.unwrap().unwrap().mutability.mode, "IMMUTABLE");
    assert_eq!(ecr.tags(&arn).await.unwrap().unwrap()["a"], "b");
}

#[tokio::test]
async fn a_retained_repository_on_moto_returns_to_its_owner() {
    let Some((moto, world)) = on_moto("motoretain").await else {
        return;
    };
    let ecr = moto.ecr().await;
    let api = world.api::<EcrRepository>();
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    world.delete(&api, "app").await;
    assert!(ecr.describe("app").await.unwrap().is_some());
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.delete(&api, "app").await;
    assert_eq!(ecr.describe("app").await.unwrap(), None);
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
