//! What went wrong once, and must not again.

use std::time::Duration;

use ecr_operator::api::{EcrPullSecret, EcrRegistry, EcrRepository};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use local_ecr::{Action, Fault, Matcher};
use serde_json::{Value, json};

use crate::support::world::{ACCOUNT, REGION, World};

stories! {
    a_registry_that_is_made_anew_wakes_everybody_at_once,
    every_change_is_an_event_of_its_own;
    but not on moto:
    a_policy_that_cannot_be_read_when_its_block_goes_is_taken_back_later = "moto knows no faults",
    a_repair_that_failed_is_not_forgotten = "moto knows no faults",
    an_aspect_that_cannot_be_read_or_makes_no_sense_holds_back_no_other = "moto knows no faults",
    deletion_right_after_creation_waits_until_ecr_shows_what_it_made = "moto shows everything at once",
}

fn refused(code: &str) -> Action {
    Action::Before { code: code.to_owned(), status: 400 }
}

async fn a_policy_that_cannot_be_read_when_its_block_goes_is_taken_back_later(world: World) {
    world
        .repository("app", json!({"repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]}}))
        .await;
    world.repository_says("app", "True", "Ready").await;
    world.ecr.fault(Fault {
        times: Some(7),
        ..Fault::always(Matcher::operation("GetRepositoryPolicy"), refused("ThrottlingException"))
    });
    world.clear_calls();
    let api = world.api::<EcrRepository>();
    let without = Patch::Merge(json!({"spec": {"repositoryPolicy": null}}));
    api.patch("app", &PatchParams::default(), &without).await.unwrap();
    world.repository_says("app", "False", "Throttled").await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(world.writes(), ["DeleteRepositoryPolicy"]);
    assert!(world.there("app").unwrap().policy.is_none());
}

async fn a_repair_that_failed_is_not_forgotten(world: World) {
    world.repository("app", json!({"imageTagMutability": "IMMUTABLE"})).await;
    world.repository_says("app", "True", "Ready").await;
    let mutable = json!({"repositoryName": "app", "imageTagMutability": "MUTABLE"});
    world.behind_the_back("PutImageTagMutability", mutable);
    world.ecr.fault(Fault {
        times: Some(7),
        ..Fault::always(Matcher::operation("PutImageTagMutability"), refused("ThrottlingException"))
    });
    world.again(&world.api::<EcrRepository>(), "app").await;
    world.repository_says("app", "False", "Throttled").await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(world.there("app").unwrap().description["imageTagMutability"], "IMMUTABLE");
}

async fn an_aspect_that_cannot_be_read_or_makes_no_sense_holds_back_no_other(world: World) {
    let lifecycle = json!({"policyText": r#"{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":3},"action":{"type":"expire"}}]}"#});
    world.repository("app", json!({"lifecyclePolicy": lifecycle, "deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.ecr.fault(Fault::always(Matcher::operation("GetLifecyclePolicy"), refused("AccessDeniedException")));
    let other = json!({"rules": []});
    world
        .repository(
            "app",
            json!({"lifecyclePolicy": other, "imageTagMutability": "IMMUTABLE", "deletionPolicy": "Delete"}),
        )
        .await;
    let told = world.repository_says("app", "False", "Denied").await;
    assert!(told.status.unwrap().conditions[0].message.contains("ecr:GetLifecyclePolicy"));
    assert_eq!(world.there("app").unwrap().description["imageTagMutability"], "IMMUTABLE");
    world.ecr.clear_faults();
    let nonsense = json!({"policyText": r#"{"no":"policy"}"#});
    world
        .repository(
            "app",
            json!({"repositoryPolicy": nonsense, "imageTagMutability": "MUTABLE", "deletionPolicy": "Delete"}),
        )
        .await;
    world.repository_says("app", "False", "Invalid").await;
    assert_eq!(world.there("app").unwrap().description["imageTagMutability"], "MUTABLE");
    world.delete(&world.api::<EcrRepository>(), "app").await;
    assert!(world.there("app").is_none(), "nor does it hold back deletion");
}

async fn deletion_right_after_creation_waits_until_ecr_shows_what_it_made(world: World) {
    world.ecr.eventual_consistency(Duration::from_secs(4));
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.delete(&world.api::<EcrRepository>(), "app").await;
    assert!(world.there("app").is_none(), "no orphan is left");
}

async fn a_registry_that_is_made_anew_wakes_everybody_at_once(world: World) {
    let registries: Api<EcrRegistry> = Api::all(world.client.clone());
    world.delete(&registries, &world.registry).await;
    world.repository("app", json!({})).await;
    world.repository_says("app", "False", "RegistryNotFound").await;
    world.register(json!({})).await;
    world.repository_says("app", "True", "Ready").await;
}

#[tokio::test]
async fn a_copy_of_our_secret_in_another_namespace_is_nobodys_business() {
    let world = World::new("copy").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let original = world.api::<Secret>().get("pull").await.unwrap();
    let elsewhere = world.selected_namespace("elsewhere").await;
    let copy = json!({
        "apiVersion": "v1", "kind": "Secret", "type": original.type_,
        "metadata": {"name": "pull", "namespace": elsewhere, "labels": original.metadata.labels, "annotations": original.metadata.annotations},
        "data": original.data,
    });
    world.apply(&copy).await;
    let marker = json!({"secretTemplate": {"labels": {"a": "b"}}});
    world.pull_secret("pull", marker).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let left: Api<Secret> = Api::namespaced(world.client.clone(), &elsewhere);
    assert!(left.get_opt("pull").await.unwrap().is_some());
}

#[tokio::test]
async fn a_right_that_is_withdrawn_leaves_what_is_there_or_clears_it_as_declared() {
    let world = World::new("withdrawn").await;
    world.pull_secret("pull", json!({"serviceAccounts": ["default"]})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let accounts: Api<ServiceAccount> = world.api();
    let names = |account: &ServiceAccount| account.image_pull_secrets.clone().unwrap_or_default().len();
    world.until(&accounts, "default", "with our name", |account: &ServiceAccount| names(account) == 1).await;
    world.register(json!({"allow": []})).await;
    world.pull_secret_says("pull", "False", "NotAllowed").await;
    assert!(world.api::<Secret>().get_opt("pull").await.unwrap().is_some());
    assert_eq!(names(&accounts.get("default").await.unwrap()), 1, "kept with the Secret");
    world.register(json!({"allow": [], "pull": {"whenNotAllowed": "Remove"}})).await;
    world.until_gone(&world.api::<Secret>(), "pull").await;
    world.until(&accounts, "default", "without our name", |account: &ServiceAccount| names(account) == 0).await;
}

#[tokio::test]
async fn one_region_that_fails_leaves_the_tokens_of_others_fresh() {
    let world = World::new("regions").await;
    world.ecr.set_token_lifetime(Duration::from_secs(8));
    world.register(json!({"pull": {"regions": ["us-east-1"]}})).await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let mut down = Matcher::operation("GetAuthorizationToken");
    down.region = Some("us-east-1".to_owned());
    world.ecr.fault(Fault::always(down, refused("ServerException")));
    let auth = |secret: &Secret, region: &str| {
        let document: Value = serde_json::from_slice(&secret.data.as_ref().unwrap()[".dockerconfigjson"].0).unwrap();
        document["auths"][format!("{ACCOUNT}.dkr.ecr.{region}.amazonaws.com")]["auth"].as_str().map(str::to_owned)
    };
    let secrets = world.api::<Secret>();
    let mut last = auth(&secrets.get("pull").await.unwrap(), REGION);
    for _ in 0..3 {
        let renewed = world.until(&secrets, "pull", "renewed", |secret: &Secret| auth(secret, REGION) != last).await;
        last = auth(&renewed, REGION);
    }
    let told_by_host = |object: &EcrPullSecret| {
        let registries = &object.status.as_ref().unwrap().registries;
        registries.iter().any(|it| it.error.is_some()) && registries.iter().any(|it| it.error.is_none())
    };
    world.until(&world.api(), "pull", "told host by host", told_by_host).await;
}

#[tokio::test]
async fn one_registry_that_is_gone_leaves_the_others_tokens_to_those_who_come() {
    let world = World::new("entries").await;
    let registries = json!([{"registryRef": {"name": world.registry}}, {"registryRef": {"name": "no-such-registry"}}]);
    let object = json!({
        "apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrPullSecret",
        "metadata": {"name": "pull", "namespace": world.namespace}, "spec": {"registries": registries},
    });
    world.apply(&object).await;
    world.pull_secret_says("pull", "False", "RegistryNotFound").await;
    assert!(world.api::<Secret>().get_opt("pull").await.unwrap().is_some());
}

#[tokio::test]
async fn a_secret_whose_owner_is_no_more_is_taken_over() {
    let world = World::new("orphan").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let api = world.api::<EcrPullSecret>();
    api.delete("pull", &DeleteParams::orphan()).await.unwrap();
    world.until_gone(&api, "pull").await;
    assert!(world.api::<Secret>().get_opt("pull").await.unwrap().is_some());
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
}

async fn every_change_is_an_event_of_its_own(world: World) {
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    for value in ["1", "2"] {
        world.repository("app", json!({"tags": {"n": value}})).await;
        world.repository_says("app", "True", "Ready").await;
    }
    let told = || async {
        let tagged = world.events("app").await.into_iter().filter(|reason| reason == "TagResource").count();
        (tagged == 2).then_some(())
    };
    world.eventually("two events of two changes", told).await;
}

#[tokio::test]
async fn a_registry_that_goes_leaves_the_secrets_which_grow_old_and_say_so() {
    let world = World::new("goes").await;
    world.ecr.set_token_lifetime(Duration::from_secs(10));
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let registries: Api<EcrRegistry> = Api::all(world.client.clone());
    world.delete(&registries, &world.registry).await;
    world.pull_secret_says("pull", "False", "RegistryNotFound").await;
    world.pull_secret_says("pull", "True", "Stale").await;
    world.pull_secret_says("pull", "False", "Expired").await;
    assert!(world.api::<Secret>().get_opt("pull").await.unwrap().is_some());
    world.register(json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
}
