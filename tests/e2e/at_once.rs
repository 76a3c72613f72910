//! With hundreds of namespaces whatever goes wrong is repaired at once, from the token at hand.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Resource, ResourceExt as _};
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::operator::Operator;
use crate::support::world::World;

const NAMESPACES: usize = 500;
/// For all of them to be made and served, on a busy machine.
const FOR_ALL: Duration = Duration::from_mins(3);

fn label(world: &World, wanted: bool) -> Patch<serde_json::Value> {
    let value = if wanted { json!(world.namespace) } else { json!(null) };
    Patch::Merge(json!({"metadata": {"labels": {"world": value}}}))
}

fn names_ours(account: &ServiceAccount) -> bool {
    account.image_pull_secrets.iter().flatten().any(|entry| entry.name == "pull")
}

fn is_ours(secret: &Secret) -> bool {
    secret.labels().contains_key("ecr-operator.dev/owner-uid")
}

/// Tells how long it took; nothing is asserted of that.
#[expect(clippy::print_stderr, reason = "for whoever runs the tests")]
async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = work.await;
    eprintln!("{what}: {} ms", started.elapsed().as_millis());
    done
}

#[tokio::test]
async fn with_five_hundred_namespaces_every_mishap_is_repaired_at_once_without_a_call() {
    let cluster = Cluster::start("control-plane").await;
    let _operator = Operator::start(&cluster, "operator").await;
    let world = World::at(&cluster, "many").await;
    world.cluster_pull_secret("many", json!({"secretName": "pull", "serviceAccounts": ["default", "builder"]})).await;
    let made = async {
        let names: Vec<_> = (0..NAMESPACES).map(|number| format!("n{number}")).collect();
        let make = names.iter().map(|name| world.selected_namespace(name));
        futures::stream::iter(make).buffer_unordered(16).collect::<Vec<_>>().await;
        world.secrets_are("many", &format!("{NAMESPACES}/{NAMESPACES}"), FOR_ALL).await;
    };
    timed("500 namespaces made and served", made).await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1, "one token for all");
    world.ecr.clear_calls();

    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let params = PatchParams::default();
    let created = async {
        let name = world.selected_namespace("new").await;
        world.until(&Api::namespaced(world.client.clone(), &name), "pull", "there", is_ours).await;
        name
    };
    let name = timed("namespace created", created).await;
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &name);
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), &name);
    world.until(&accounts, "default", "with our Secret", names_ours).await;
    let deselected = async {
        namespaces.patch(&name, &params, &label(&world, false)).await.unwrap();
        world.until_gone(&secrets, "pull").await;
        world.until(&accounts, "default", "without our Secret", |account| !names_ours(account)).await;
    };
    timed("namespace deselected", deselected).await;
    let selected = async {
        namespaces.patch(&name, &params, &label(&world, true)).await.unwrap();
        world.until(&secrets, "pull", "there again", is_ours).await
    };
    let secret = timed("namespace relabelled", selected).await;
    let deleted = async {
        secrets.delete("pull", &DeleteParams::default()).await.unwrap();
        world.until(&secrets, "pull", "back", |now: &Secret| now.meta().uid != secret.meta().uid && is_ours(now)).await
    };
    let secret = timed("Secret deleted", deleted).await;
    let mut spoilt = secret.data.clone().unwrap();
    spoilt.get_mut(".dockerconfigjson").unwrap().0.push(b' ');
    let edited = async {
        secrets.patch("pull", &params, &Patch::Merge(json!({"data": spoilt}))).await.unwrap();
        world.until(&secrets, "pull", "repaired", |now: &Secret| now.data == secret.data).await;
    };
    timed("Secret edited by one byte", edited).await;
    let stripped = async {
        let strip = Patch::Merge(json!({"metadata": {"labels": {"ecr-operator.dev/owner-uid": null}}}));
        secrets.patch("pull", &params, &strip).await.unwrap();
        world.until(&secrets, "pull", "labelled again", is_ours).await
    };
    let now = timed("Secret's label stripped", stripped).await;
    assert_eq!(now.meta().uid, secret.meta().uid, "edits are repaired in place");
    let builder = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": name}, "imagePullSecrets": [{"name": "theirs"}]});
    for what in ["ServiceAccount created", "ServiceAccount reverted"] {
        let made = async {
            world.apply(&builder).await;
            world.until(&accounts, "builder", "with our Secret", names_ours).await
        };
        let account = timed(what, made).await;
        assert_eq!(account.image_pull_secrets.unwrap().len(), 2, "theirs is kept");
    }
    let all = NAMESPACES + 1;
    world.secrets_are("many", &format!("{all}/{all}"), FOR_ALL).await;
    assert!(world.ecr.calls().is_empty(), "no call for any of that: {:?}", world.operations());
}

#[tokio::test]
async fn the_secret_stays_the_same_object_through_a_hundred_renewals() {
    let world = World::new("hundred").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let secrets: Api<Secret> = world.api();
    let first = secrets.get("pull").await.unwrap();
    let mut last = first.clone();
    for _ in 0..100 {
        world.again(&world.api::<ecr_operator::api::EcrPullSecret>(), "pull").await;
        last = world.until(&secrets, "pull", "renewed", |now: &Secret| now.data != last.data).await;
        assert_eq!(last.meta().uid, first.meta().uid);
        assert!(last.data.as_ref().is_some_and(|data| data[".dockerconfigjson"].0.len() > 100));
    }
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 101);
}
