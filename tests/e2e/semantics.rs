//! Where others loop or lie.

use ecr_operator::api::EcrRepository;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use local_ecr::{Action, Fault, Matcher};
use serde_json::json;

use crate::support::world::{REGION, World, merge};

stories! {
    two_live_clusters_that_name_one_repository_do_not_flip_flop,
    one_repository_has_one_owner_across_namespaces_too,
    an_object_never_moves_to_another_account,
    a_foreign_finalizer_is_kept_and_the_repository_goes_once,
    a_policy_that_is_set_with_the_same_edit_as_the_deletion_counts,
    as_many_tags_as_fit_are_set,
    more_tags_than_fit_are_refused_with_the_number_and_nothing_is_lost;
    but not on moto:
    a_creation_whose_answer_was_lost_is_known_as_ours = "moto knows no faults",
    a_creation_that_is_refused_leaves_no_trace_of_a_repository_in_the_status = "moto knows no faults",
    words_of_a_newer_api_are_no_drift_and_are_shown_as_they_are = "moto knows no faults",
    throttling_is_waited_out_and_takes_no_readiness_away = "moto knows no faults",
}

async fn a_creation_whose_answer_was_lost_is_known_as_ours(world: World) {
    world.ecr.fault(Fault { times: Some(2), ..Fault::always(Matcher::operation("CreateRepository"), Action::Lost) });
    world.repository("app", json!({"tags": {"a": "b"}})).await;
    world.repository_says("app", "True", "Ready").await;
    assert!(world.there("app").is_some());
}

async fn a_creation_that_is_refused_leaves_no_trace_of_a_repository_in_the_status(world: World) {
    let denied = Action::Before { code: "AccessDeniedException".to_owned(), status: 400 };
    world.ecr.fault(Fault::always(Matcher::operation("CreateRepository"), denied));
    world.repository("app", json!({})).await;
    let told = world.repository_says("app", "False", "Denied").await;
    let status = told.status.unwrap();
    assert_eq!((status.repository_arn, status.repository_uri, status.created_at), (None, None, None));
    assert_eq!(status.plan[0].action, "CreateRepository");
}

async fn two_live_clusters_that_name_one_repository_do_not_flip_flop(world: World) {
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    let arn = world.there("app").unwrap().arn;
    let taken = json!({"resourceArn": arn, "tags": [{"Key": "ecr-operator.dev/uid", "Value": "of-the-other-cluster"}]});
    world.behind_the_back("TagResource", taken);
    world.clear_calls();
    let api = world.api::<EcrRepository>();
    world.again(&api, "app").await;
    world.repository_says("app", "False", "Conflict").await;
    world.again(&api, "app").await;
    world.repository_says("app", "False", "Conflict").await;
    assert_eq!(world.writes(), [""; 0]);
}

async fn one_repository_has_one_owner_across_namespaces_too(world: World) {
    let elsewhere = world.selected_namespace("elsewhere").await;
    world.repository("app", json!({"name": "shared/app"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.repository_in(&elsewhere, "app", json!({"name": "shared/app"})).await;
    let told = world.repository_in_says(&elsewhere, "app", "False", "Conflict").await;
    assert!(told.status.unwrap().conditions[0].message.contains(&world.namespace));
}

async fn an_object_never_moves_to_another_account(world: World) {
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    let mut config = local_ecr::Config::default();
    "999999999999".clone_into(&mut config.account);
    let other = local_ecr::LocalEcr::start(config).await.unwrap();
    let name = format!("{}-other", world.registry);
    let registry = json!({
        "apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": name},
        "spec": {
            "region": REGION, "endpoint": {"url": other.url()}, "identity": {"accessKey": {"secretName": world.registry}},
            "allow": [{"namespaces": {}, "manage": ["*"]}],
        },
    });
    world.apply(&registry).await;
    let move_it = Patch::Merge(json!({"spec": {"registryRef": {"name": name}}}));
    world.api::<EcrRepository>().patch("app", &PatchParams::default(), &move_it).await.unwrap();
    world.repository_says("app", "False", "Conflict").await;
    assert!(other.repositories().is_empty());
}

async fn a_foreign_finalizer_is_kept_and_the_repository_goes_once(world: World) {
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    let api = world.api::<EcrRepository>();
    let both = Patch::Merge(json!({"metadata": {"finalizers": ["ecr-operator.dev/finalizer", "example.com/theirs"]}}));
    api.patch("app", &PatchParams::default(), &both).await.unwrap();
    world.clear_calls();
    api.delete("app", &DeleteParams::default()).await.unwrap();
    let only_theirs =
        |object: &EcrRepository| object.metadata.finalizers.as_deref() == Some(&["example.com/theirs".to_owned()]);
    world.until(&api, "app", "held by the other finalizer alone", only_theirs).await;
    api.patch("app", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
    world.until_gone(&api, "app").await;
    assert_eq!(world.writes(), ["DeleteRepository"]);
}

async fn a_policy_that_is_set_with_the_same_edit_as_the_deletion_counts(world: World) {
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.put_image("app");
    let api = world.api::<EcrRepository>();
    api.patch("app", &PatchParams::default(), &Patch::Merge(json!({"spec": {"deletionPolicy": "DeleteWithImages"}})))
        .await
        .unwrap();
    world.delete(&api, "app").await;
    assert!(world.there("app").is_none());
}

async fn throttling_is_waited_out_and_takes_no_readiness_away(world: World) {
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    let slow = Action::Before { code: "ThrottlingException".to_owned(), status: 400 };
    world.ecr.fault(Fault { times: Some(6), ..Fault::always(Matcher::operation("ListTagsForResource"), slow) });
    let api: Api<EcrRepository> = world.api();
    world.again(&api, "app").await;
    world.repository_says("app", "True", "Throttled").await;
    world.repository_says("app", "True", "Ready").await;
}

async fn words_of_a_newer_api_are_no_drift_and_are_shown_as_they_are(world: World) {
    world.repository("app", json!({"tags": {"a": "b"}, "imageScanningConfiguration": {"scanOnPush": true}})).await;
    world.repository_says("app", "True", "Ready").await;
    let mut newer = world.there("app").unwrap().description;
    merge(
        &mut newer,
        json!({"imageTagMutability": "FROZEN", "encryptionConfiguration": {"encryptionType": "QUANTUM"}, "new": {"thing": 1}}),
    );
    let body = json!({"repositories": [newer]}).to_string();
    world.ecr.fault(Fault::always(Matcher::operation("DescribeRepositories"), Action::Body { status: 200, body }));
    world.clear_calls();
    let api = world.api::<EcrRepository>();
    world.again(&api, "app").await;
    let shown = |object: &EcrRepository| {
        object.status.as_ref().is_some_and(|status| status.image_tag_mutability.as_deref() == Some("FROZEN"))
    };
    world.until(&api, "app", "shown with what is new", shown).await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(world.writes(), [""; 0]);
}

async fn as_many_tags_as_fit_are_set(world: World) {
    let tags: serde_json::Map<_, _> = (0..46).map(|n| (format!("t{n}"), json!("x"))).collect();
    world.repository("app", json!({"tags": tags})).await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(world.there("app").unwrap().tags.len(), 50);
}

async fn more_tags_than_fit_are_refused_with_the_number_and_nothing_is_lost(world: World) {
    world.repository("app", json!({"tags": {"keep": "me"}})).await;
    world.repository_says("app", "True", "Ready").await;
    let defaults: serde_json::Map<_, _> = (0..46).map(|n| (format!("d{n}"), json!("x"))).collect();
    world.register(json!({"defaults": {"tags": defaults}})).await;
    let told = world.repository_says("app", "False", "Invalid").await;
    assert!(told.status.unwrap().conditions[0].message.contains("47 tags"));
    assert_eq!(world.there("app").unwrap().tags["keep"], "me");
    world.register(json!({})).await;
    world.repository_says("app", "True", "Ready").await;
}
