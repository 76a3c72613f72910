//! `EcrRegistry` on a real API server: who we are, and what keeps it from being used.

use serde_json::json;

use crate::support::operator::NAMESPACE;
use crate::support::world::{ACCOUNT, World};

#[tokio::test]
async fn a_registry_tells_its_account_and_its_identity() {
    let world = World::new("registry").await;
    let status = world.registry_says("True", "Ready").await.status.unwrap();
    assert_eq!(status.account_id.as_deref(), Some(ACCOUNT));
    assert_eq!(status.caller_arn.as_deref(), Some("arn:aws:iam::123456789012:user/admin"));
    assert_eq!(status.registry_host.as_deref(), Some("123456789012.dkr.ecr.eu-west-1.amazonaws.com"));
}

#[tokio::test]
async fn another_account_behind_the_identity_stops_everything() {
    let world = World::without_registry("mismatch", local_ecr::Config::default()).await;
    world.register(json!({"accountId": "999999999999"})).await;
    world.registry_says("False", "AccountMismatch").await;
    world.repository("app", json!({})).await;
    world.repository_says("app", "False", "AccountMismatch").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "False", "AccountMismatch").await;
    assert_eq!(world.operations(), [""; 0]);
}

#[tokio::test]
async fn a_registry_that_is_missing_is_named_and_its_coming_is_noticed() {
    let world = World::without_registry("missing", local_ecr::Config::default()).await;
    world.repository("app", json!({})).await;
    let told = world.repository_says("app", "False", "RegistryNotFound").await;
    assert!(told.status.unwrap().conditions[0].message.contains(&world.registry));
    world.register(json!({})).await;
    world.repository_says("app", "True", "Ready").await;
}

#[tokio::test]
async fn a_rotated_access_key_is_noticed() {
    let world = World::new("rotate").await;
    world.registry_says("True", "Ready").await;
    let wrong = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": world.registry, "namespace": NAMESPACE}, "stringData": {"accessKeyId": "AKIAWRONG", "secretAccessKey": "x"}});
    world.apply(&wrong).await;
    world.registry_says("False", "Denied").await;
    let config = local_ecr::Config::default();
    let right = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": world.registry, "namespace": NAMESPACE}, "stringData": {"accessKeyId": config.access_key, "secretAccessKey": config.secret_key}});
    world.apply(&right).await;
    world.registry_says("True", "Ready").await;
}

#[tokio::test]
async fn whoever_mints_is_of_the_registrys_account_too() {
    for field in ["pull", "push"] {
        let world = World::new(&format!("mint{field}")).await;
        let other = json!({"accounts": [{"id": "210987654321", "users": [{"name": "x", "accessKey": "AKIAOTHER", "secretKey": "s"}]}]});
        world.ecr.seed(&serde_json::from_value(other).unwrap()).unwrap();
        let name = format!("{}-other", world.registry);
        world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "stringData": {"accessKeyId": "AKIAOTHER", "secretAccessKey": "s"}})).await;
        let identity = json!({"accessKey": {"secretName": name}});
        world
            .register(
                json!({field: {"identity": identity}, "allow": [{"namespaces": {}, "pull": ["*"], "push": ["*"]}]}),
            )
            .await;
        let told = world.registry_says("False", "AccountMismatch").await;
        let message = told.status.unwrap().conditions[0].message.clone();
        assert!(message.contains(&format!("{field}.identity")) && message.contains("210987654321"), "{message}");
        let access = if field == "push" { "Push" } else { "Pull" };
        world.pull_secret("pull", json!({"access": access})).await;
        world.pull_secret_says("pull", "False", "AccountMismatch").await;
        assert!(world.ecr.calls_of("GetAuthorizationToken").is_empty());
    }
}
