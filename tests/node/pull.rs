//! Who may pull: nobody without a secret, nobody with an old token, everybody in a namespace that the operator serves.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::Api;
use serde_json::json;

use crate::node::Place;

/// Half of it must be enough for a pod to be scheduled and its image pulled on a busy machine.
const LIFE: Duration = Duration::from_secs(20);
/// What a token lives at AWS, and a little more.
const HALF_A_DAY: Duration = Duration::from_hours(13);

/// Makes a `ClusterEcrPullSecret`, and then a namespace that it selects; waits until the operator has served it.
async fn served_namespace(place: &Place) -> String {
    let world = &place.world;
    world.cluster_pull_secret(&world.namespace, json!({"secretName": "pull", "serviceAccounts": ["default"]})).await;
    let namespace = world.selected_namespace("new").await;
    let accounts = Api::<ServiceAccount>::namespaced(world.client.clone(), &namespace);
    let named =
        |account: &ServiceAccount| account.image_pull_secrets.iter().flatten().any(|entry| entry.name == "pull");
    world.until(&accounts, "default", "with the pull secret's name", named).await;
    world.until(&secrets(place, &namespace), "pull", "there", |_: &Secret| true).await;
    namespace
}

fn secrets(place: &Place, namespace: &str) -> Api<Secret> {
    Api::namespaced(place.world.client.clone(), namespace)
}

fn document(secret: &Secret) -> &[u8] {
    &secret.data.as_ref().unwrap()[".dockerconfigjson"].0
}

#[tokio::test]
async fn a_pod_without_a_secret_is_refused_with_401() {
    let place = Place::new("without").await;
    let image = place.push("1").await;
    let namespace = place.world.namespace.clone();
    place.pod(&namespace, "hello", &image, &[]).await;
    place.is_refused(&namespace, "hello", "401 Unauthorized").await;
}

#[tokio::test]
async fn a_pod_with_an_expired_token_is_refused_with_403() {
    let place = Place::new("expired").await;
    let image = place.push("1").await;
    let namespace = place.world.namespace.clone();
    place.secret(&namespace, "by-hand", place.token().await.expose()).await;
    place.pod(&namespace, "early", &image, &["by-hand"]).await;
    place.runs(&namespace, "early").await;
    place.world.ecr.advance(HALF_A_DAY);
    place.pod(&namespace, "late", &image, &["by-hand"]).await;
    place.is_refused(&namespace, "late", "403 Forbidden").await;
}

#[tokio::test]
async fn a_pod_with_the_operators_secret_runs() {
    let place = Place::new("served").await;
    let image = place.push("1").await;
    let namespace = served_namespace(&place).await;
    place.pod(&namespace, "hello", &image, &[]).await;
    let pod = place.runs(&namespace, "hello").await;
    let named = pod.spec.unwrap().image_pull_secrets.unwrap();
    assert_eq!(named.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["pull"]);
}

#[tokio::test]
async fn a_new_pod_still_runs_after_the_first_token_has_expired() {
    let place = Place::new("renewed").await;
    let (first_image, second_image) = (place.push("1").await, place.push("2").await);
    place.world.ecr.set_token_lifetime(LIFE);
    let namespace = served_namespace(&place).await;
    let secrets = secrets(&place, &namespace);
    let first = secrets.get("pull").await.unwrap();
    let dead = place.world.ecr.now() + LIFE;
    place.pod(&namespace, "first", &first_image, &[]).await;
    place.runs(&namespace, "first").await;

    place
        .world
        .eventually("the end of the first token", || async { (place.world.ecr.now() > dead).then_some(()) })
        .await;
    place.pod(&namespace, "second", &second_image, &[]).await;
    place.runs(&namespace, "second").await;
    let now = secrets.get("pull").await.unwrap();
    assert_eq!(now.metadata.uid, first.metadata.uid, "renewed in place");
    assert_ne!(document(&now), document(&first));
    // The first token would have been refused.
    let elsewhere = &place.world.namespace;
    let auth: serde_json::Value = serde_json::from_slice(document(&first)).unwrap();
    let (_, entry) = auth["auths"].as_object().unwrap().iter().next().unwrap();
    place.secret(elsewhere, "by-hand", entry["auth"].as_str().unwrap()).await;
    place.pod(elsewhere, "third", &second_image, &["by-hand"]).await;
    place.is_refused(elsewhere, "third", "403 Forbidden").await;
}
