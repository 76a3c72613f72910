//! Somebody keeps undoing what the operator does to a ServiceAccount: no fight, nothing lost, and it is told who.

use ecr_operator::api::EcrPullSecret;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};

use crate::support::world::{PATIENCE, World};

fn names(account: &ServiceAccount) -> Vec<String> {
    account.image_pull_secrets.iter().flatten().map(|entry| entry.name.clone()).collect()
}

fn theirs(world: &World) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": world.namespace},
        "imagePullSecrets": [{"name": "theirs"}],
    })
}

#[tokio::test]
async fn after_three_reverts_in_a_minute_it_is_left_alone_and_the_message_names_who() {
    let world = World::new("contested").await;
    world.apply(&theirs(&world)).await;
    let accounts: Api<ServiceAccount> = world.api();
    let seen = watcher(accounts.clone(), watcher::Config::default()).applied_objects();
    let mut seen =
        Box::pin(seen.try_filter(|account| std::future::ready(account.metadata.name.as_deref() == Some("builder"))));
    world.pull_secret("pull", json!({"serviceAccounts": ["builder"]})).await;
    let mut added = 0;
    let fight = async {
        while let Some(account) = seen.next().await {
            if names(&account.unwrap()).contains(&"pull".to_owned()) {
                added += 1;
                let patch = PatchParams::apply("stubborn").force();
                accounts.patch("builder", &patch, &Patch::Apply(theirs(&world))).await.unwrap();
            }
        }
    };
    let told = world.pull_secret_says("pull", "False", "Contested");
    let told = tokio::select! {
        () = fight => unreachable!("a watch has no end"),
        told = told => told,
    };
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("ServiceAccount builder") && message.contains("stubborn"), "{message}");
    assert_eq!(added, 3, "then it was left alone");
    assert_eq!(names(&accounts.get("builder").await.unwrap()), ["theirs"]);
    world.event("pull", "Contested").await;
    // Whoever gives in ends it at once.
    let mut both = theirs(&world);
    both["imagePullSecrets"] = json!([{"name": "theirs"}, {"name": "pull"}]);
    accounts.patch("builder", &PatchParams::apply("stubborn").force(), &Patch::Apply(both)).await.unwrap();
    world.pull_secret_says("pull", "True", "Ready").await;
    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
}

#[tokio::test]
async fn what_others_add_at_the_same_time_is_not_lost() {
    let world = World::new("race").await;
    world.apply(&theirs(&world)).await;
    let accounts: Api<ServiceAccount> = world.api();
    let writers = (0..4).map(|writer| {
        let accounts = accounts.clone();
        async move {
            for number in 0..5 {
                loop {
                    let mut account = accounts.get("builder").await.unwrap();
                    let name = format!("of-{writer}-{number}");
                    account
                        .image_pull_secrets
                        .get_or_insert_default()
                        .push(k8s_openapi::api::core::v1::LocalObjectReference { name });
                    if accounts.replace("builder", &kube::api::PostParams::default(), &account).await.is_ok() {
                        break;
                    }
                }
            }
        }
    });
    let writing = futures::future::join_all(writers);
    let (_, ()) = tokio::join!(writing, world.pull_secret("pull", json!({"serviceAccounts": ["builder"]})));
    world.pull_secret_says("pull", "True", "Ready").await;
    let all = |account: &ServiceAccount| names(account).contains(&"pull".to_owned()) && names(account).len() == 22;
    tokio::time::timeout(PATIENCE, world.until(&accounts, "builder", "with all names", all)).await.unwrap();
}

#[tokio::test]
async fn an_admission_policy_that_strips_what_is_written_is_met_three_times_and_told() {
    let world = World::new("stripped").await;
    let accounts: Api<ServiceAccount> = world.api();
    strip(&world).await;
    let stripped = |account: &ServiceAccount| names(account).is_empty();
    let tried = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tried", "namespace": world.namespace}, "imagePullSecrets": [{"name": "theirs"}]});
    // A policy is in force a moment after it was made.
    world
        .eventually("in force", || async {
            world.apply(&tried).await;
            stripped(&accounts.get("tried").await.unwrap()).then_some(())
        })
        .await;
    world.pull_secret("pull", json!({"serviceAccounts": ["tried"]})).await;
    let told = world.pull_secret_says("pull", "False", "Contested").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("ServiceAccount tried") && message.contains("admission"), "{message}");
    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
}

/// An admission policy of the cluster that lets no ServiceAccount of this namespace have imagePullSecrets.
async fn strip(world: &World) {
    world.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": world.namespace},
        "spec": {
            "policyName": world.namespace,
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}},
        },
    })).await;
    world.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": world.namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["serviceaccounts"]}]},
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "has(object.imagePullSecrets) ? [JSONPatch{op: 'remove', path: '/imagePullSecrets'}] : []"}}],
        },
    })).await;
}
