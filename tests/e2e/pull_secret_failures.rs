//! What keeps a namespace from its Secret: told by name, and nobody else's trouble.

use ecr_operator::api::ClusterEcrPullSecret;
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kube::api::{Api, ListParams};
use serde_json::json;

use crate::support::world::World;

#[tokio::test]
async fn each_namespace_tells_its_own_reason_and_the_others_are_served() {
    let world = World::new("failures").await;
    let name = world.namespace.clone();
    let [fine, wrong_type, full, guarded] =
        ["fine", "type", "full", "guarded"].map(|suffix| world.selected_namespace(suffix));
    let (fine, wrong_type, full, guarded) = (fine.await, wrong_type.await, full.await, guarded.await);
    world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "pull", "namespace": wrong_type}, "stringData": {"a": "b"}})).await;
    world.apply(&json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": full}, "spec": {"hard": {"secrets": "0"}}})).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(world.client.clone(), &full);
    let known = |quota: &ResourceQuota| quota.status.as_ref().is_some_and(|status| status.hard.is_some());
    world.until(&quotas, "none", "in force", known).await;
    guard(&world, &guarded).await;

    world.cluster_pull_secret(&name, json!({"secretName": "pull"})).await;
    let api: Api<ClusterEcrPullSecret> = Api::all(world.client.clone());
    let counted = |object: &ClusterEcrPullSecret| {
        let status = object.status.as_ref();
        status.and_then(|status| status.namespaces.as_ref()).is_some_and(|counts| counts.failed.len() == 3)
    };
    let object = world.until(&api, &name, "three failing", counted).await;
    let status = object.status.unwrap();
    let counts = status.namespaces.unwrap();
    assert_eq!((counts.desired, counts.ready), (4, 1));
    for (namespace, why) in [(&wrong_type, "SecretConflict: "), (&full, "Quota: "), (&guarded, "Denied: ")] {
        let told = counts.failed.iter().find(|failed| failed.name == *namespace).unwrap();
        assert!(told.reason.starts_with(why), "{told:?}");
    }
    assert!(Api::<Secret>::namespaced(world.client.clone(), &fine).get_opt("pull").await.unwrap().is_some());
    let types: Vec<_> = status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(types, ["Ready", "Reconciling"], "the quota may be raised");
    assert_eq!(status.conditions[0].reason, "PartiallyFailed");
    world
        .eventually("an event for each namespace", || async {
            let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(world.client.clone(), "default");
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let of_it = all
                .into_iter()
                .filter(|event| event.regarding.as_ref().is_some_and(|object| object.name.as_deref() == Some(&name)));
            let notes: Vec<_> = of_it.filter_map(|event| event.note).collect();
            [&wrong_type, &full, &guarded]
                .iter()
                .all(|namespace| notes.iter().any(|note| note.contains(&format!("namespace {namespace}:"))))
                .then_some(())
        })
        .await;

    // With the quota out of the way, what is left needs a person.
    world.delete(&quotas, "none").await;
    world
        .until(&api, &name, "stalled", |object: &ClusterEcrPullSecret| {
            object.status.as_ref().is_some_and(|status| {
                status.conditions.iter().any(|condition| condition.type_ == "Stalled")
                    && status.secrets.as_deref() == Some("2/4")
            })
        })
        .await;
}

/// An admission policy of the cluster that lets nobody write Secrets in this namespace.
async fn guard(world: &World, namespace: &str) {
    world.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": namespace},
        "spec": {
            "policyName": namespace, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
        },
    })).await;
    world.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"]}]},
            "validations": [{"expression": "false", "message": "no Secrets here", "reason": "Forbidden"}],
        },
    })).await;
    // In force a moment after it was made.
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), namespace);
    world
        .eventually("guarded", || async {
            let dry = kube::api::PostParams { dry_run: true, ..kube::api::PostParams::default() };
            let tried = Secret {
                metadata: kube::core::ObjectMeta { name: Some("tried".into()), ..Default::default() },
                ..Secret::default()
            };
            secrets.create(&dry, &tried).await.is_err().then_some(())
        })
        .await;
}
