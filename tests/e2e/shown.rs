//! What people and their monitoring see of a pull secret.

use std::time::Duration;

use ecr_operator::api::EcrPullSecret;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::operator::{Operator, get};
use crate::support::world::World;

/// What the operator measures of this pull secret, as Prometheus would read it.
async fn expiry(world: &World, name: &str) -> Option<i64> {
    let metrics = get(&Operator::shared().await.address, "/metrics").await?;
    let labels = format!(r#"namespace="{}",name="{name}""#, world.namespace);
    let is_it =
        |line: &&str| line.starts_with("ecr_operator_pull_secret_expiry_timestamp_seconds{") && line.contains(&labels);
    metrics.lines().find(is_it)?.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test]
async fn kubectl_shows_whether_it_is_ready_how_many_secrets_there_are_and_when_they_are_renewed_and_expire() {
    let world = World::new("columns").await;
    world.pull_secret("pull", json!({})).await;
    let object = world.pull_secret_says("pull", "True", "Ready").await;
    let status = object.status.unwrap();
    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.as_ref().unwrap().0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    let cluster = Cluster::shared().await;
    let shown = cluster.kubectl(&["get", "ecrps", "pull", "-n", &world.namespace], "").await;
    let mut lines = shown.text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["NAME", "READY", "SECRETS", "EXPIRES", "REFRESH", "AGE"]);
    let (expires, refresh) = (time(&status.expires_at), time(&status.refresh_at));
    assert_eq!(lines.next().unwrap()[..5], ["pull", "True", "1/1", &expires, &refresh]);
    let described = cluster.kubectl(&["describe", "ecrps", "pull", "-n", &world.namespace], "").await.text;
    for told in
        ["1 of 1 Secrets hold a valid token", "dkr.ecr.eu-west-1.amazonaws.com", "Caller Arn", "Events:", "Ready"]
    {
        assert!(described.contains(told), "{told} isn't in:\n{described}");
    }
}

#[tokio::test]
async fn the_expiry_is_measured_while_there_is_a_secret() {
    let world = World::new("measured").await;
    world.pull_secret("pull", json!({})).await;
    let object = world.pull_secret_says("pull", "True", "Ready").await;
    let expires = object.status.unwrap().expires_at.unwrap().0.as_second();
    let measured = |wanted: Option<i64>| {
        let world = &world;
        async move { (expiry(world, "pull").await == wanted).then_some(()) }
    };
    world.eventually("measured", || measured(Some(expires))).await;
    // Nothing is left that could expire, and nobody is to be woken for it.
    world.register(json!({"allow": [], "pull": {"whenNotAllowed": "Remove"}})).await;
    world.until_gone(&world.api::<Secret>(), "pull").await;
    world.eventually("no longer measured", || measured(None)).await;
    world.register(json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    world.eventually("measured again", || async { expiry(&world, "pull").await.map(|_| ()) }).await;
    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
    world.eventually("no longer measured", || measured(None)).await;
}

#[tokio::test]
async fn events_tell_transitions_and_nothing_of_what_goes_on_as_it_was() {
    let world = World::new("transitions").await;
    world.ecr.set_token_lifetime(Duration::from_secs(6));
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let secrets: Api<Secret> = world.api();
    let mut last = secrets.get("pull").await.unwrap();
    for _ in 0..3 {
        last = world.until(&secrets, "pull", "renewed", |now: &Secret| now.data != last.data).await;
    }
    assert_eq!(world.events("pull").await, ["Ready"], "renewals are nothing to tell");
    world.ecr.down(true);
    world.pull_secret_says("pull", "False", "Expired").await;
    world.ecr.down(false);
    world.pull_secret_says("pull", "True", "Ready").await;
    // A failure before the token is stale is one as well; a pass that waits for AWS may see it dead at once.
    let told = || async {
        let told = world.events("pull").await;
        let is_told = |reason: &str| told.iter().filter(|told| *told == reason).count();
        let ends_well = told.last().is_some_and(|reason| reason == "Ready");
        assert!(is_told("Stale") <= 1 && is_told("Expired") <= 1 && is_told("Ready") <= 2, "{told:?}");
        (is_told("Expired") == 1 && is_told("Ready") == 2 && ends_well).then_some(())
    };
    world.eventually("an event of each, once", told).await;
}
