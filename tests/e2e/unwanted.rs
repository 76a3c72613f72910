//! What is no longer wanted goes whether or not AWS can be asked; what is still wanted stays where that isn't known.

use ecr_operator::api::{ClusterEcrPullSecret, EcrRegistry};
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::support::world::{PATIENCE, World};

fn secrets(world: &World, namespace: &str) -> Api<Secret> {
    Api::namespaced(world.client.clone(), namespace)
}

fn accounts(world: &World, namespace: &str) -> Api<ServiceAccount> {
    Api::namespaced(world.client.clone(), namespace)
}

fn names_ours(account: &ServiceAccount) -> bool {
    account.image_pull_secrets.iter().flatten().any(|entry| entry.name == "pull")
}

async fn deselect(world: &World, namespace: &str) {
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {"world": null}}}));
    namespaces.patch(namespace, &PatchParams::default(), &label).await.unwrap();
}

async fn says(world: &World, name: &str, reason: &str) -> ClusterEcrPullSecret {
    let api: Api<ClusterEcrPullSecret> = Api::all(world.client.clone());
    let says = |object: &ClusterEcrPullSecret| {
        let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
        conditions.any(|condition| condition.type_ == "Ready" && condition.reason == reason)
    };
    world.until(&api, name, reason, says).await
}

#[tokio::test]
async fn what_is_no_longer_wanted_goes_while_the_registry_cannot_be_used() {
    let world = World::new("unwanted").await;
    let name = world.namespace.clone();
    let mut served = Vec::new();
    for suffix in ["deselected", "denied", "account", "stays"] {
        served.push(world.selected_namespace(suffix).await);
    }
    let [deselected, denied, account, stays] = &served[..] else { unreachable!() };
    let asked = |accounts: &[&str]| json!({"secretName": "pull", "serviceAccounts": accounts});
    world.cluster_pull_secret(&name, asked(&["default"])).await;
    for namespace in &served {
        world.until(&accounts(&world, namespace), "default", "with our Secret", names_ours).await;
    }
    world.secrets_are(&name, "4/4", PATIENCE).await;
    let no_identity = json!({"accessKey": {"secretName": "no-such-key"}});
    world.register(json!({"identity": no_identity})).await;
    world.registry_says("False", "Denied").await;
    says(&world, &name, "Denied").await;
    world.ecr.clear_calls();

    deselect(&world, deselected).await;
    world.until_gone(&secrets(&world, deselected), "pull").await;
    world.until(&accounts(&world, deselected), "default", "without our Secret", |account| !names_ours(account)).await;
    let told = world.secrets_are(&name, "3/3", PATIENCE).await;
    assert_eq!(told.status.unwrap().conditions[0].reason, "Denied", "what is in the way is told still");

    // Whoever was reverted meanwhile gets our name again: its Secret is there.
    let reverted = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": account}, "imagePullSecrets": []});
    world.apply(&reverted).await;
    world.until(&accounts(&world, account), "default", "with our Secret again", names_ours).await;

    let all_but = json!([{"namespaces": {"matchNames": [account, stays]}, "pull": ["*"]}]);
    world.register(json!({"identity": no_identity, "allow": all_but, "pull": {"whenNotAllowed": "Remove"}})).await;
    world.until_gone(&secrets(&world, denied), "pull").await;
    world.until(&accounts(&world, denied), "default", "without our Secret", |account| !names_ours(account)).await;

    world.cluster_pull_secret(&name, asked(&[])).await;
    for namespace in [account, stays] {
        world.until(&accounts(&world, namespace), "default", "set back", |account| !names_ours(account)).await;
    }
    world.secrets_are(&name, "2/2", PATIENCE).await;
    for namespace in [account, stays] {
        assert!(secrets(&world, namespace).get_opt("pull").await.unwrap().is_some());
    }
    assert!(world.ecr.calls().is_empty(), "{:?}", world.operations());
}

#[tokio::test]
async fn a_registry_that_is_gone_takes_nothing_from_those_who_are_still_selected() {
    let world = World::new("unknown").await;
    let name = world.namespace.clone();
    let (goes, stays) = (world.selected_namespace("goes").await, world.selected_namespace("stays").await);
    world.register(json!({"pull": {"whenNotAllowed": "Remove"}})).await;
    world.cluster_pull_secret(&name, json!({"secretName": "pull", "serviceAccounts": ["default"]})).await;
    world.secrets_are(&name, "2/2", PATIENCE).await;
    let registries: Api<EcrRegistry> = Api::all(world.client.clone());
    world.delete(&registries, &world.registry).await;
    says(&world, &name, "RegistryNotFound").await;
    deselect(&world, &goes).await;
    world.until_gone(&secrets(&world, &goes), "pull").await;
    world.secrets_are(&name, "1/1", PATIENCE).await;
    assert!(secrets(&world, &stays).get_opt("pull").await.unwrap().is_some());
    assert!(names_ours(&accounts(&world, &stays).get("default").await.unwrap()));
    let uid = secrets(&world, &stays).get("pull").await.unwrap().metadata.uid;
    world.register(json!({})).await;
    says(&world, &name, "Ready").await;
    assert_eq!(secrets(&world, &stays).get("pull").await.unwrap().metadata.uid, uid, "the same all along");
}
