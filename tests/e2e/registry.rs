//! `EcrRegistry` on a real API server: who we are, and what keeps it from being used.

use std::time::Duration;

use ecr_operator::api::{EcrRegistry, EcrRepository};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use local_ecr::{Action, Fault, Matcher};
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

#[tokio::test]
async fn mode_plan_of_a_registry_holds_everything_back_and_counts_it() {
    let world = World::new("modeplan").await;
    let (api, registries) = (world.api::<EcrRepository>(), Api::<EcrRegistry>::all(world.client.clone()));
    for name in ["app", "goes"] {
        world.repository(name, json!({"imageTagMutability": "IMMUTABLE", "deletionPolicy": "Delete"})).await;
        world.repository_says(name, "True", "Ready").await;
    }
    world.register(json!({"mode": "Plan"})).await;
    let free = |object: &EcrRepository| object.metadata.finalizers.is_none();
    world.until(&api, "app", "without a finalizer", free).await;
    let mutable = json!({"repositoryName": "app", "imageTagMutability": "MUTABLE"});
    world.behind_the_back("PutImageTagMutability", mutable);
    world.clear_calls();
    world.again(&api, "app").await;
    world.repository_says("app", "False", "PlanPending").await;
    world.repository("new", json!({})).await;
    world.repository_says("new", "False", "PlanPending").await;
    // One that mode Apply would hold back all the same isn't counted.
    world.behind_the_back("CreateRepository", json!({"repositoryName": "foreign"}));
    world.repository("foreign", json!({})).await;
    world.repository_says("foreign", "False", "AlreadyExists").await;
    let counted = |object: &EcrRegistry| object.status.as_ref().is_some_and(|status| status.planned == Some(2));
    world.until(&registries, &world.registry, "two planned", counted).await;
    world.delete(&api, "goes").await;
    assert!(world.there("goes").is_some());
    assert_eq!(world.writes(), [""; 0]);

    world.register(json!({"mode": "Apply"})).await;
    world.repository_says("new", "True", "Ready").await;
    let applied = world.repository_says("app", "True", "Ready").await;
    let drift = applied.status.unwrap().drift.unwrap();
    assert_eq!(drift.actions[0].action, "PutImageTagMutability", "somebody else's change, put right once it may be");
    assert_eq!(world.there("app").unwrap().description["imageTagMutability"], "IMMUTABLE");
}

#[tokio::test]
async fn a_suspended_registry_stops_repositories_and_not_tokens_and_nothing_is_told_as_seen() {
    let world = World::new("suspendreg").await;
    let registries = Api::<EcrRegistry>::all(world.client.clone());
    let before = world.registry_says("True", "Ready").await.status.unwrap().observed_generation;
    let annotate = |value: serde_json::Value| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": value}}));
        let (registries, name) = (registries.clone(), world.registry.clone());
        async move { registries.patch(&name, &PatchParams::default(), &patch).await.unwrap() }
    };
    annotate(json!({"ecr-operator.dev/suspend": "true", "ecr-operator.dev/reconcile-at": "while-suspended"})).await;
    world.registry_says("Unknown", "Suspended").await;
    world.clear_calls();
    world.register(json!({"driftInterval": "2h"})).await;
    world.repository("app", json!({})).await;
    world.repository_says("app", "Unknown", "Suspended").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let status = registries.get(&world.registry).await.unwrap().status.unwrap();
    assert_eq!(status.observed_generation, before, "nobody looked at the new one");
    assert_eq!(status.last_handled_reconcile_at, None);
    assert_eq!(world.writes(), [""; 0]);
    annotate(json!({"ecr-operator.dev/suspend": null})).await;
    world.repository_says("app", "True", "Ready").await;
    let handled = |object: &EcrRegistry| {
        object.status.as_ref().is_some_and(|status| {
            status.last_handled_reconcile_at.as_deref() == Some("while-suspended")
                && status.observed_generation > before
        })
    };
    world.until(&registries, &world.registry, "seen", handled).await;
}

#[tokio::test]
async fn a_registry_whose_repositories_cannot_be_listed_says_so() {
    let world = World::new("blind").await;
    world.repository("app", json!({"imageTagMutability": "IMMUTABLE"})).await;
    world.repository_says("app", "True", "Ready").await;
    let denied = Action::Before { code: "AccessDeniedException".to_owned(), status: 400 };
    world.ecr.fault(Fault::always(Matcher::operation("DescribeRepositories"), denied));
    let registries = Api::<EcrRegistry>::all(world.client.clone());
    world.again(&registries, &world.registry).await;
    let told = world.registry_says("False", "Denied").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("ecr:DescribeRepositories") && message.contains("mutability"), "{message}");
    world.ecr.clear_faults();
    world.again(&registries, &world.registry).await;
    world.registry_says("True", "Ready").await;
}

#[tokio::test]
async fn whoever_loses_a_right_loses_it_before_a_snapshot_that_takes_its_time() {
    let world = World::new("withdrawn").await;
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    // Each for a quarter of a minute.
    for call in ["GetRegistryScanningConfiguration", "DescribeRepositories"] {
        world.ecr.fault(Fault::always(Matcher::operation(call), Action::Hang));
    }
    let nobody = json!([{"namespaces": {"matchNames": ["nobody"]}, "pull": ["*"]}]);
    // A shorter interval: the next snapshot is due.
    let change = json!({"driftInterval": "30m", "pull": {"whenNotAllowed": "Remove"}, "allow": nobody});
    world.register(change).await;
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &world.namespace);
    world.until_gone_within(Duration::from_secs(20), &secrets, "pull").await;
    let due = || async { (world.ecr.calls_of("GetRegistryScanningConfiguration").len() == 1).then_some(()) };
    world.eventually("the one that is due", due).await;
    world.ecr.clear_faults();
}
