//! What keeps a namespace from its Secret: told by name, and nobody else's trouble.

use std::fmt::Debug;
use std::time::Duration;

use ecr_operator::api::{ClusterEcrPullSecret, EcrPullSecret};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ResourceQuota, Secret, ServiceAccount};
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use local_ecr::{Action, Call, Fault, Matcher};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::admission::{Refusal, refuse};
use crate::support::world::{ACCOUNT, PATIENCE, REGION, World};

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
    guard(&world, &guarded, "secrets").await;
    world.eventually("guarded", || refuses::<Secret>(&world, &guarded)).await;

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

#[tokio::test]
async fn a_namespace_that_cannot_be_set_back_is_named_and_holds_back_no_other() {
    let world = World::new("undo").await;
    let name = world.namespace.clone();
    let (guarded, fine) = (world.selected_namespace("a-guarded").await, world.selected_namespace("b-fine").await);
    for namespace in [&guarded, &fine] {
        world.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": namespace}})).await;
    }
    world.cluster_pull_secret(&name, json!({"secretName": "pull", "serviceAccounts": ["builder"]})).await;
    let accounts = |namespace: &str| Api::<ServiceAccount>::namespaced(world.client.clone(), namespace);
    let has_it =
        |account: &ServiceAccount| account.image_pull_secrets.iter().flatten().any(|entry| entry.name == "pull");
    for namespace in [&guarded, &fine] {
        world.until(&accounts(namespace), "builder", "with our name", has_it).await;
    }
    guard(&world, &guarded, "serviceaccounts").await;
    world.eventually("guarded", || refuses::<ServiceAccount>(&world, &guarded)).await;

    let api: Api<ClusterEcrPullSecret> = Api::all(world.client.clone());
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    world.until(&accounts(&fine), "builder", "set back", |account| !has_it(account)).await;
    let told = |object: &ClusterEcrPullSecret| {
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap();
        ready.message.contains("1 of the ServiceAccounts and Secrets of others couldn't be set back; let the operator write them, or take the finalizer")
            && ready.message.contains(&format!("ServiceAccount {guarded}/builder: "))
            && ready.message.contains("no serviceaccounts here")
    };
    world.until(&api, &name, "told", told).await;

    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(world.client.clone());
    world.delete(&bindings, &guarded).await;
    world.until_gone(&api, &name).await;
    let left = accounts(&guarded).get("builder").await.unwrap();
    assert!(!has_it(&left));
}

/// An admission policy of the cluster that lets nobody write such objects in this namespace.
async fn guard(world: &World, namespace: &str, resource: &str) {
    let message = &format!("no {resource} here");
    let operations = &["CREATE", "UPDATE"];
    refuse(world, namespace, Refusal { group: "", resource, operations, unless: "false", message }).await;
}

/// A policy is in force a moment after it was made.
async fn refuses<K>(world: &World, namespace: &str) -> Option<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Clone
        + Debug
        + Default
        + Serialize,
{
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let mut tried = K::default();
    tried.meta_mut().name = Some("tried".into());
    Api::<K>::namespaced(world.client.clone(), namespace).create(&dry, &tried).await.is_err().then_some(())
}

#[tokio::test]
async fn a_secret_that_somebody_made_immutable_is_told_and_written_anew_once_it_is_deleted() {
    let world = World::new("frozen").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let secrets: Api<Secret> = world.api();
    let freeze = Patch::Merge(json!({"immutable": true}));
    let frozen = secrets.patch("pull", &PatchParams::default(), &freeze).await.unwrap();
    world.again(&world.api::<EcrPullSecret>(), "pull").await;
    let told = world.pull_secret_says("pull", "False", "SecretConflict").await.status.unwrap();
    let message = &told.conditions[0].message;
    assert!(message.contains("immutable: true") && message.contains("delete it"), "{message}");
    assert_eq!(secrets.get("pull").await.unwrap().data, frozen.data, "it is good until its token ends");
    secrets.delete("pull", &DeleteParams::default()).await.unwrap();
    world.pull_secret_says("pull", "True", "Ready").await;
    let now = secrets.get("pull").await.unwrap();
    assert!(now.immutable.is_none() && now.data != frozen.data);
}

#[tokio::test]
async fn a_secret_that_can_be_renewed_no_more_is_told_of_until_its_token_has_died() {
    let world = World::new("agesout").await;
    let (frozen, refused) = (world.selected_namespace("frozen").await, world.selected_namespace("refused").await);
    world.ecr.set_token_lifetime(Duration::from_secs(8));
    let owns = |namespace: &str| Api::<EcrPullSecret>::namespaced(world.client.clone(), namespace);
    for namespace in [&frozen, &refused] {
        let registries = json!([{"registryRef": {"name": world.registry}}]);
        world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrPullSecret", "metadata": {"name": "pull", "namespace": namespace}, "spec": {"registries": registries}})).await;
        world.until(&owns(namespace), "pull", "Ready", |object| says(object, "Ready")).await;
    }
    let secrets = Api::<Secret>::namespaced(world.client.clone(), &frozen);
    secrets.patch("pull", &PatchParams::default(), &Patch::Merge(json!({"immutable": true}))).await.unwrap();
    // What is too long for a session policy holds up the other namespace.
    let globs: Vec<_> = (0..60).map(|number| format!("team-{number}/*")).collect();
    let few = json!({"namespaces": {"matchNames": [frozen]}, "pull": ["*"]});
    let many = json!({"namespaces": {"matchNames": [refused]}, "pull": globs});
    world.register(json!({"pull": {"scopeTokens": "Required"}, "allow": [few, many]})).await;
    let mut ends = Vec::new();
    for (namespace, why) in [(&refused, "Invalid"), (&frozen, "SecretConflict")] {
        let told = world.until(&owns(namespace), "pull", why, |object| says(object, why)).await.status.unwrap();
        ends.push((namespace, told.expires_at.unwrap_or_else(|| panic!("{namespace} never ends"))));
    }
    for (namespace, end) in ends {
        let dead = world.until(&owns(namespace), "pull", "dead", |object| says(object, "Expired")).await;
        assert_eq!(dead.status.unwrap().expires_at, Some(end));
    }
}

fn says(object: &EcrPullSecret, reason: &str) -> bool {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.reason == reason)
}

#[tokio::test]
async fn a_host_for_which_aws_has_no_token_is_told_and_asked_for_until_it_has() {
    let world = World::new("lacking").await;
    let calls = Matcher { region: Some("us-east-1".into()), ..Matcher::operation("GetAuthorizationToken") };
    let down = Action::Before { code: "InternalFailure".into(), status: 500 };
    world.ecr.fault(Fault::always(calls, down));
    world.register(json!({"pull": {"regions": ["us-east-1"]}})).await;
    world.pull_secret("pull", json!({})).await;
    let hosts = [REGION, "us-east-1"].map(|region| format!("{ACCOUNT}.dkr.ecr.{region}.amazonaws.com"));
    let elsewhere = |call: &Call| call.operation == "GetAuthorizationToken" && call.region == "us-east-1";
    world.ecr.wait_for_calls(3, PATIENCE, elsewhere).await;
    let told = world.pull_secret_says("pull", "False", "Transient").await.status.unwrap();
    let message = &told.conditions[0].message;
    assert!(message.contains(&format!("lack a token for {}", hosts[1])) && !message.contains(&hosts[0]), "{message}");
    assert_eq!(told.registries.iter().map(|one| one.error.is_some()).collect::<Vec<_>>(), [false, true]);
    let entries = |secret: &Secret| {
        let document: Value = serde_json::from_slice(&secret.data.as_ref().unwrap()[".dockerconfigjson"].0).unwrap();
        document["auths"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(entries(&world.api::<Secret>().get("pull").await.unwrap()), hosts[..1], "what there is, is served");
    assert!(!world.events("pull").await.contains(&"Ready".to_owned()));

    world.ecr.clear_faults();
    world.pull_secret_says("pull", "True", "Ready").await;
    assert_eq!(entries(&world.api::<Secret>().get("pull").await.unwrap()), hosts);
    let calls = world.ecr.calls_of("GetAuthorizationToken");
    assert_eq!(calls.iter().filter(|call| call.region == REGION).count(), 1, "for the other host there is one");
}

#[tokio::test]
async fn a_dead_token_is_given_to_nobody_who_had_none() {
    let world = World::new("dead").await;
    let name = world.namespace.clone();
    let old = world.selected_namespace("old").await;
    world.ecr.set_token_lifetime(Duration::from_secs(6));
    world.cluster_pull_secret(&name, json!({"secretName": "pull"})).await;
    world.secrets_are(&name, "1/1", PATIENCE).await;
    world.ecr.down(true);
    let api: Api<ClusterEcrPullSecret> = Api::all(world.client.clone());
    let expired = |object: &ClusterEcrPullSecret| {
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.reason == "Expired")
    };
    world.until(&api, &name, "expired", expired).await;
    let new = world.selected_namespace("new").await;
    let told = |object: &ClusterEcrPullSecret| {
        let counts = object.status.as_ref().and_then(|status| status.namespaces.as_ref());
        counts.is_some_and(|counts| {
            counts.failed.iter().any(|failed| failed.name == new && failed.reason.contains("GetAuthorizationToken"))
        })
    };
    let status = world.until(&api, &name, "told", told).await.status.unwrap();
    assert_eq!((status.secrets.as_deref(), status.conditions[0].reason.as_str()), (Some("1/2"), "Expired"));
    let secrets = |namespace: &str| Api::<Secret>::namespaced(world.client.clone(), namespace);
    assert!(secrets(&new).get_opt("pull").await.unwrap().is_none());
    assert!(secrets(&old).get_opt("pull").await.unwrap().is_some(), "what is there stays");
    world.ecr.down(false);
    world.secrets_are(&name, "2/2", PATIENCE).await;
}

#[tokio::test]
async fn a_namespace_that_goes_away_is_nobodys_failure_and_is_held_back_by_nothing_of_ours() {
    let world = World::new("going").await;
    let name = world.namespace.clone();
    let (goes, stays) = (world.selected_namespace("goes").await, world.selected_namespace("stays").await);
    world.cluster_pull_secret(&name, json!({"secretName": "pull", "serviceAccounts": ["default"]})).await;
    world.secrets_are(&name, "2/2", PATIENCE).await;
    let own = json!({
        "apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrPullSecret", "metadata": {"name": "own", "namespace": goes},
        "spec": {"registries": [{"registryRef": {"name": world.registry}}], "mergePolicy": "Merge", "serviceAccounts": ["default"]},
    });
    world.apply(&own).await;
    let owns: Api<EcrPullSecret> = Api::namespaced(world.client.clone(), &goes);
    let served =
        |object: &EcrPullSecret| object.status.as_ref().is_some_and(|status| status.secrets.as_deref() == Some("1/1"));
    world.until(&owns, "own", "served", served).await;
    // Somebody's finalizer keeps it in between for a while.
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "namespace": goes, "finalizers": ["example.com/stay"]}});
    world.apply(&held).await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(&goes, &DeleteParams::default()).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &goes);
    for secret in ["pull", "own"] {
        world.until_gone(&secrets, secret).await;
    }
    world.until_gone(&owns, "own").await;
    let told = world.secrets_are(&name, "1/1", PATIENCE).await.status.unwrap();
    assert_eq!((told.conditions[0].reason.as_str(), told.namespaces.unwrap().failed.len()), ("Ready", 0));
    let configs: Api<ConfigMap> = Api::namespaced(world.client.clone(), &goes);
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    configs.patch("held", &PatchParams::default(), &free).await.unwrap();
    world.until_gone(&namespaces, &goes).await;
    assert!(Api::<Secret>::namespaced(world.client.clone(), &stays).get_opt("pull").await.unwrap().is_some());
}

#[tokio::test]
async fn a_namespace_that_fails_while_something_else_leads_is_told_once_that_is_over() {
    let world = World::new("told").await;
    let name = world.namespace.clone();
    world.selected_namespace("fine").await;
    world.cluster_pull_secret(&name, json!({"secretName": "pull"})).await;
    world.secrets_are(&name, "1/1", PATIENCE).await;
    let throttled = Action::Before { code: "ThrottlingException".to_owned(), status: 400 };
    world.ecr.fault(Fault::always(Matcher::operation("GetAuthorizationToken"), throttled));
    let api: Api<ClusterEcrPullSecret> = Api::all(world.client.clone());
    world.again(&api, &name).await;
    let taken = format!("{name}-taken");
    world.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": taken}})).await;
    world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "pull", "namespace": taken}, "stringData": {"a": "b"}})).await;
    world.selected_namespace("taken").await;
    let says = |reason: &'static str| {
        move |object: &ClusterEcrPullSecret| {
            let status = object.status.as_ref().filter(|status| status.secrets.as_deref() == Some("1/2"));
            status.is_some_and(|status| status.conditions[0].reason == reason)
        }
    };
    world.until(&api, &name, "throttled", says("Throttled")).await;
    world.ecr.clear_faults();
    world.until(&api, &name, "told of the namespace", says("PartiallyFailed")).await;
    world
        .eventually("an event for the namespace", || async {
            let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(world.client.clone(), "default");
            let notes =
                events.list(&ListParams::default()).await.unwrap().items.into_iter().filter_map(|event| event.note);
            notes.into_iter().any(|note| note.contains(&format!("namespace {taken}:"))).then_some(())
        })
        .await;
}

#[tokio::test]
async fn secrets_go_with_their_object() {
    let world = World::new("owned").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let object = world.api::<EcrPullSecret>().get("pull").await.unwrap();
    assert!(object.metadata.finalizers.is_none(), "nothing to undo by hand");
    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
    world.until_gone(&world.api::<Secret>(), "pull").await;
}
