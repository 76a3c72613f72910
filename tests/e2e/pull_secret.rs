//! Pull secrets on a real API server: written, renewed in place, repaired, spread, and taken back.

use std::time::Duration;

use base64::Engine as _;
use ecr_operator::api::{ClusterEcrPullSecret, EcrPullSecret};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::world::World;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn auth(secret: &Secret) -> Option<String> {
    let data = &secret.data.as_ref()?.get(".dockerconfigjson")?.0;
    let document: Value = serde_json::from_slice(data).ok()?;
    Some(document["auths"][HOST]["auth"].as_str()?.to_owned())
}

fn secrets(world: &World, namespace: &str) -> Api<Secret> {
    Api::namespaced(world.client.clone(), namespace)
}

fn token_calls(world: &World) -> usize {
    world.ecr.calls_of("GetAuthorizationToken").len()
}

#[tokio::test]
async fn a_secret_is_what_the_kubelet_reads() {
    let world = World::new("secret").await;
    world.pull_secret("pull", json!({})).await;
    let object = world.pull_secret_says("pull", "True", "Ready").await;
    let secret = secrets(&world, &world.namespace).get("pull").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/dockerconfigjson"));
    let auth = auth(&secret).unwrap();
    let decoded = base64::prelude::BASE64_STANDARD.decode(&auth).unwrap();
    assert!(decoded.starts_with(b"AWS:"));
    let status = object.status.unwrap();
    assert_eq!(status.secrets.as_deref(), Some("1/1"));
    assert_eq!(status.registries[0].host, HOST);
    assert!(status.refresh_at.unwrap().0 < status.expires_at.unwrap().0);
    assert_eq!(token_calls(&world), 1);
}

#[tokio::test]
async fn a_secret_is_renewed_in_place_before_its_token_dies() {
    let world = World::new("renew").await;
    world.ecr.set_token_lifetime(Duration::from_secs(6));
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let api = secrets(&world, &world.namespace);
    let first = api.get("pull").await.unwrap();
    let mut last = auth(&first).unwrap();
    for _ in 0..3 {
        let renewed =
            world.until(&api, "pull", "renewed", |secret: &Secret| auth(secret).is_some_and(|auth| auth != last)).await;
        assert_eq!(renewed.metadata.uid, first.metadata.uid, "renewed in place");
        last = auth(&renewed).unwrap();
        world.pull_secret_says("pull", "True", "Ready").await;
    }
}

#[tokio::test]
async fn a_secret_that_is_deleted_or_edited_is_repaired_without_asking_aws() {
    let world = World::new("repair").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let api = secrets(&world, &world.namespace);
    let first = api.get("pull").await.unwrap();

    api.delete("pull", &DeleteParams::default()).await.unwrap();
    let again = world
        .until(&api, "pull", "back", |secret: &Secret| {
            secret.metadata.uid != first.metadata.uid && auth(secret).is_some()
        })
        .await;
    assert_eq!(auth(&again), auth(&first));

    let broken = base64::prelude::BASE64_STANDARD.encode(r#"{"auths":{}}"#);
    let edit = Patch::Merge(json!({"data": {".dockerconfigjson": broken}}));
    api.patch("pull", &PatchParams::default(), &edit).await.unwrap();
    let repaired = world.until(&api, "pull", "repaired", |secret: &Secret| auth(secret).is_some()).await;
    assert_eq!(repaired.metadata.uid, again.metadata.uid);

    let strip = Patch::Merge(json!({"metadata": {"labels": {"ecr-operator.dev/owner-uid": null}}}));
    api.patch("pull", &PatchParams::default(), &strip).await.unwrap();
    world
        .until(&api, "pull", "labelled", |secret: &Secret| {
            secret.metadata.labels.as_ref().is_some_and(|labels| !labels.is_empty())
        })
        .await;
    assert_eq!(token_calls(&world), 1, "all from the token at hand");
}

#[tokio::test]
async fn a_foreign_secret_is_left_as_it_is() {
    let world = World::new("foreign").await;
    let foreign = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "pull", "namespace": world.namespace},
        "data": {".dockerconfigjson": base64::prelude::BASE64_STANDARD.encode(r#"{"auths":{"example.com":{}}}"#)},
    });
    world.apply(&foreign).await;
    let before = secrets(&world, &world.namespace).get("pull").await.unwrap();
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "False", "SecretConflict").await;
    let after = secrets(&world, &world.namespace).get("pull").await.unwrap();
    assert_eq!(before, after);
    // Once it is out of the way, ours is written.
    secrets(&world, &world.namespace).delete("pull", &DeleteParams::default()).await.unwrap();
    let api: Api<EcrPullSecret> = world.api();
    api.patch(
        "pull",
        &PatchParams::default(),
        &Patch::Merge(json!({"spec": {"secretTemplate": {"labels": {"a": "b"}}}})),
    )
    .await
    .unwrap();
    world.pull_secret_says("pull", "True", "Ready").await;
}

#[tokio::test]
async fn the_second_of_two_that_want_one_secret_says_so() {
    let world = World::new("both").await;
    world.pull_secret("first", json!({"secretName": "pull"})).await;
    world.pull_secret_says("first", "True", "Ready").await;
    world.pull_secret("second", json!({"secretName": "pull"})).await;
    let refused = world.pull_secret_says("second", "False", "SecretConflict").await;
    let told = refused.status.unwrap().conditions[0].message.clone();
    assert!(told.contains(&format!("EcrPullSecret {}/first", world.namespace)), "{told}");
    world.pull_secret_says("first", "True", "Ready").await;
}

#[tokio::test]
async fn namespaces_are_served_when_they_come_and_cleared_when_they_are_deselected() {
    let world = World::new("fan").await;
    let one = world.selected_namespace("one").await;
    let name = world.namespace.clone();
    world.cluster_pull_secret(&name, json!({"secretName": "pull"})).await;
    let api: Api<ClusterEcrPullSecret> = Api::all(world.client.clone());
    let counts = |wanted: &'static str| {
        move |object: &ClusterEcrPullSecret| {
            object.status.as_ref().is_some_and(|status| status.secrets.as_deref() == Some(wanted))
        }
    };
    world.until(&api, &name, "1/1", counts("1/1")).await;

    let two = world.selected_namespace("two").await;
    let second = world.until(&secrets(&world, &two), "pull", "there", |_: &Secret| true).await;
    assert_eq!(auth(&second), auth(&secrets(&world, &one).get("pull").await.unwrap()), "one token for all");
    world.until(&api, &name, "2/2", counts("2/2")).await;
    assert_eq!(token_calls(&world), 1);

    world.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": two, "labels": {}}})).await;
    world.until_gone(&secrets(&world, &two), "pull").await;
    world.until(&api, &name, "1/1", counts("1/1")).await;
}

#[tokio::test]
async fn service_accounts_get_our_name_and_lose_nothing_and_are_set_back() {
    let world = World::new("account").await;
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": world.namespace},
        "imagePullSecrets": [{"name": "theirs"}],
    });
    world.apply(&account).await;
    world.pull_secret("pull", json!({"serviceAccounts": ["builder"]})).await;
    let accounts: Api<ServiceAccount> = world.api();
    let names = |account: &ServiceAccount| {
        account.image_pull_secrets.iter().flatten().map(|entry| entry.name.clone()).collect::<Vec<_>>()
    };
    let wanted = |account: &ServiceAccount| names(account) == ["theirs", "pull"];
    world.until(&accounts, "builder", "with our name", wanted).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    // Set back by its owner's apply, it gets our name again.
    world.apply(&account).await;
    world.until(&accounts, "builder", "with our name again", wanted).await;

    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
    let left = accounts.get("builder").await.unwrap();
    assert_eq!(names(&left), ["theirs"]);
    assert_eq!(left.metadata.annotations.unwrap_or_default().len(), 0);
}

#[tokio::test]
async fn a_namespace_without_the_right_gets_no_token() {
    let world = World::new("deny").await;
    world.register(json!({"allow": [{"namespaces": {"matchNames": ["elsewhere"]}, "pull": ["*"]}]})).await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "False", "NotAllowed").await;
    assert!(secrets(&world, &world.namespace).get_opt("pull").await.unwrap().is_none());
    assert_eq!(token_calls(&world), 0);
    world.register(json!({"allow": [{"namespaces": {"matchNames": [world.namespace]}, "pull": ["*"]}]})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
}

#[tokio::test]
async fn when_aws_is_away_the_last_token_is_kept_and_its_age_is_told() {
    let world = World::new("away").await;
    world.ecr.set_token_lifetime(Duration::from_secs(8));
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let api = secrets(&world, &world.namespace);
    world.ecr.down(true);
    let held = auth(&api.get("pull").await.unwrap());
    world.pull_secret_says("pull", "True", "Stale").await;
    world.pull_secret_says("pull", "False", "Expired").await;
    assert_eq!(auth(&api.get("pull").await.unwrap()), held, "never blanked");
    world.ecr.down(false);
    world.pull_secret_says("pull", "True", "Ready").await;
    assert_ne!(auth(&api.get("pull").await.unwrap()), held);
}
