//! What one namespace waits for, no other waits for.

use std::time::Duration;

use ecr_operator::api::ClusterEcrPullSecret;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::operator::{Operator, install};
use crate::support::proxy::{Hurdle, Proxy};
use crate::support::world::{PATIENCE, World};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn auth(secret: &Secret) -> Option<String> {
    let data = &secret.data.as_ref()?.get(".dockerconfigjson")?.0;
    let document: Value = serde_json::from_slice(data).ok()?;
    Some(document["auths"][HOST]["auth"].as_str()?.to_owned())
}

#[tokio::test]
async fn one_namespace_that_cannot_be_read_or_written_in_time_holds_up_no_other() {
    let cluster = Cluster::start("control-plane").await;
    install(&cluster).await;
    let proxy = Proxy::start(&cluster).await;
    let kubeconfig = proxy.kubeconfig.to_str().unwrap();
    let _operator = Operator::start_with(&cluster, "proxied", &[("KUBECONFIG", kubeconfig)]).await;
    a_shared_secret_that_cannot_be_read(&cluster, &proxy).await;
    proxy.let_pass();
    service_accounts_that_are_slow_to_write(&cluster, &proxy).await;
}

async fn a_shared_secret_that_cannot_be_read(cluster: &Cluster, proxy: &Proxy) {
    let world = World::at(cluster, "unreadable").await;
    world.ecr.set_token_lifetime(Duration::from_secs(6));
    let name = world.namespace.clone();
    let (one, two) = (world.selected_namespace("one").await, world.selected_namespace("two").await);
    world.cluster_pull_secret(&name, json!({"secretName": "shared", "mergePolicy": "Merge"})).await;
    world.secrets_are(&name, "2/2", PATIENCE).await;
    proxy.hinder("GET", &format!("/namespaces/{two}/secrets/shared"), Hurdle::Lost);
    // An edit is a reason to look at it.
    let secrets = |namespace: &str| Api::<Secret>::namespaced(world.client.clone(), namespace);
    let edit = Patch::Merge(json!({"metadata": {"labels": {"theirs": "yes"}}}));
    secrets(&two).patch("shared", &PatchParams::default(), &edit).await.unwrap();
    world.secrets_are(&name, "1/2", PATIENCE).await;
    let mut last = auth(&secrets(&one).get("shared").await.unwrap());
    for _ in 0..2 {
        let renewed = world.until(&secrets(&one), "shared", "renewed", |secret: &Secret| auth(secret) != last).await;
        last = auth(&renewed);
    }
    let told = Api::<ClusterEcrPullSecret>::all(world.client.clone()).get(&name).await.unwrap().status.unwrap();
    let failed: Vec<_> = told.namespaces.unwrap().failed.into_iter().map(|failed| failed.name).collect();
    assert_eq!(failed, [two]);
    proxy.let_pass();
    world.secrets_are(&name, "2/2", PATIENCE).await;
    world.delete(&Api::<ClusterEcrPullSecret>::all(world.client.clone()), &name).await;
}

async fn service_accounts_that_are_slow_to_write(cluster: &Cluster, proxy: &Proxy) {
    let world = World::at(cluster, "slow").await;
    let name = world.namespace.clone();
    let account = |namespace: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": namespace}});
    for number in 0..12 {
        let namespace = world.selected_namespace(&format!("n{number}")).await;
        world.apply(&account(&namespace)).await;
    }
    proxy.hinder("PATCH", "/serviceaccounts/", Hurdle::Slow(Duration::from_secs(5)));
    // Longer than anybody should wait for.
    proxy.hinder("PATCH", &format!("/namespaces/{name}-n0/serviceaccounts/"), Hurdle::Slow(Duration::from_mins(10)));
    world.cluster_pull_secret(&name, json!({"secretName": "pull", "serviceAccounts": ["builder"]})).await;
    world
        .eventually("under way", || async {
            proxy
                .exchanges()
                .iter()
                .any(|exchange| exchange.method == "PATCH" && exchange.uri.contains("/serviceaccounts/"))
                .then_some(())
        })
        .await;
    let late = world.selected_namespace("late").await;
    world.until(&Api::<Secret>::namespaced(world.client.clone(), &late), "pull", "there", |_: &Secret| true).await;
    let has_it =
        |account: &ServiceAccount| account.image_pull_secrets.iter().flatten().any(|entry| entry.name == "pull");
    for number in 1..12 {
        let accounts = Api::namespaced(world.client.clone(), &format!("{name}-n{number}"));
        world.until(&accounts, "builder", "served", has_it).await;
    }
    proxy.let_pass();
    world
        .until(&Api::namespaced(world.client.clone(), &format!("{name}-n0")), "builder", "served in the end", has_it)
        .await;
}
