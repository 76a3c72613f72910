//! Whose a repository is: strangers, lost tags, returning owners, objects that come back.

use ecr_operator::api::EcrRepository;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::world::World;

stories! {
    tags_that_somebody_takes_away_are_put_back_three_times_and_then_a_person_is_asked,
    a_repository_that_somebody_else_made_anew_is_not_ours,
    a_retained_repository_returns_to_the_object_that_comes_back,
    an_object_restored_from_a_backup_with_its_status_returns_too,
    marks_of_other_managers_are_respected_and_taken_over_only_with_leave,
    the_registrys_ceiling_stops_an_adoption,
    a_lost_clusters_repositories_pass_on_without_an_edit,
    of_two_clusters_that_may_both_take_over_one_yields,
    one_taken_over_from_a_manager_that_takes_our_tags_off_is_claimed_three_times_and_then_a_person_is_asked,
    one_whose_owner_was_made_anew_for_another_repository_is_free;
    but not on moto:
    a_tag_that_does_not_fit_holds_back_no_adoption = "moto sets more than 50 tags",
    one_that_could_not_be_marked_was_never_held = "moto knows no faults",
}

const OURS: [&str; 4] =
    ["ecr-operator.dev/owner-id", "ecr-operator.dev/namespace", "ecr-operator.dev/name", "ecr-operator.dev/uid"];

fn strip(world: &World, name: &str) {
    let arn = world.there(name).unwrap().arn;
    world.behind_the_back("UntagResource", json!({"resourceArn": arn, "tagKeys": OURS}));
}

async fn tags_that_somebody_takes_away_are_put_back_three_times_and_then_a_person_is_asked(world: World) {
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    let api = world.api::<EcrRepository>();
    for round in 1..=3 {
        strip(&world, "app");
        world.clear_calls();
        let meta = Patch::Merge(json!({"spec": {"tags": {"round": round.to_string()}}}));
        api.patch("app", &PatchParams::default(), &meta).await.unwrap();
        world.repository_says("app", "True", "Ready").await;
        assert!(OURS.iter().all(|key| world.there("app").unwrap().tags.contains_key(*key)));
        assert_eq!(world.writes(), ["TagResource", "TagResource"], "the mark, and what is declared");
    }
    strip(&world, "app");
    world.clear_calls();
    api.patch("app", &PatchParams::default(), &Patch::Merge(json!({"spec": {"tags": {"round": "4"}}}))).await.unwrap();
    world.repository_says("app", "False", "Contested").await;
    assert_eq!(world.writes(), [""; 0]);
    world.again(&api, "app").await;
    world.repository_says("app", "True", "Ready").await;
}

async fn a_repository_that_somebody_else_made_anew_is_not_ours(world: World) {
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.age("app").await;
    world.behind_the_back("DeleteRepository", json!({"repositoryName": "app"}));
    world.behind_the_back("CreateRepository", json!({"repositoryName": "app"}));
    world.clear_calls();
    let api = world.api::<EcrRepository>();
    world.again(&api, "app").await;
    world.repository_says("app", "False", "Conflict").await;
    world.delete(&api, "app").await;
    assert!(world.there("app").is_some(), "never ours to delete");
    assert_eq!(world.writes(), [""; 0]);
}

async fn a_retained_repository_returns_to_the_object_that_comes_back(world: World) {
    let api = world.api::<EcrRepository>();
    world.repository("app", json!({"tags": {"a": "b"}})).await;
    let first = world.repository_says("app", "True", "Ready").await;
    world.delete(&api, "app").await;
    // The same manifest, without an edit, and with a new UID.
    world.repository("app", json!({"tags": {"a": "b"}})).await;
    let second = world.repository_says("app", "True", "Ready").await;
    assert_ne!(first.metadata.uid, second.metadata.uid);
    assert_eq!(world.there("app").unwrap().tags["ecr-operator.dev/uid"], second.metadata.uid.unwrap());
}

async fn an_object_restored_from_a_backup_with_its_status_returns_too(world: World) {
    let api = world.api::<EcrRepository>();
    world.repository("app", json!({})).await;
    let first = world.repository_says("app", "True", "Ready").await;
    world.delete(&api, "app").await;
    let suspended = json!({
        "apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRepository",
        "metadata": {"name": "app", "namespace": world.namespace, "annotations": {"ecr-operator.dev/suspend": "true"}},
        "spec": {"registryRef": {"name": world.registry}},
    });
    world.apply(&suspended).await;
    world.repository_says("app", "Unknown", "Suspended").await;
    let status = Patch::Merge(json!({"status": first.status}));
    api.patch_status("app", &PatchParams::default(), &status).await.unwrap();
    world.repository("app", json!({})).await;
    let uid = api.get("app").await.unwrap().metadata.uid.unwrap();
    let marked = || async { (world.there("app").unwrap().tags["ecr-operator.dev/uid"] == uid).then_some(()) };
    world.eventually("the repository is marked with the new UID", marked).await;
    world.repository_says("app", "True", "Ready").await;
}

async fn marks_of_other_managers_are_respected_and_taken_over_only_with_leave(world: World) {
    let tags = json!([{"Key": "services.k8s.aws/controller-version", "Value": "ecr-1"}]);
    world.behind_the_back("CreateRepository", json!({"repositoryName": "app", "tags": tags}));
    world.repository("app", json!({"adoptionPolicy": "Adopt", "inheritDefaults": false})).await;
    let refused = world.repository_says("app", "False", "Conflict").await;
    let told = refused.status.unwrap().conditions[0].message.clone();
    assert!(told.contains("ACK") && told.contains("TakeOver"), "{told}");
    world.repository("app", json!({"adoptionPolicy": "TakeOver", "inheritDefaults": false})).await;
    world.repository_says("app", "True", "Ready").await;
    assert!(world.there("app").unwrap().tags.contains_key("services.k8s.aws/controller-version"), "their mark stays");
}

async fn the_registrys_ceiling_stops_an_adoption(world: World) {
    world
        .register(
            json!({"allow": [{"namespaces": {}, "manage": ["*"], "maxAdoption": "Deny", "maxDeletion": "Retain"}]}),
        )
        .await;
    world.behind_the_back("CreateRepository", json!({"repositoryName": "app"}));
    world.repository("app", json!({"adoptionPolicy": "Adopt", "inheritDefaults": false})).await;
    world.repository_says("app", "False", "AdoptionDenied").await;
    world.repository("other", json!({"deletionPolicy": "Delete"})).await;
    world.repository_says("other", "False", "NotAllowed").await;
    assert!(world.there("other").is_some(), "the rest is done all the same");
}

async fn a_lost_clusters_repositories_pass_on_without_an_edit(world: World) {
    let tags: Vec<_> = OURS
        .iter()
        .zip(["lost-cluster", world.namespace.as_str(), "app", "old-uid"])
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    world.behind_the_back("CreateRepository", json!({"repositoryName": "app", "tags": tags}));
    world.repository("app", json!({})).await;
    world.repository_says("app", "False", "Conflict").await;
    world.register(json!({"takeOverFrom": ["lost-cluster"]})).await;
    world.repository_says("app", "True", "Ready").await;
}

async fn of_two_clusters_that_may_both_take_over_one_yields(world: World) {
    world.repository("app", json!({"adoptionPolicy": "TakeOver", "inheritDefaults": false})).await;
    world.repository_says("app", "True", "Ready").await;
    let arn = world.there("app").unwrap().arn;
    let taken: Vec<_> = OURS
        .iter()
        .zip(["another-cluster", world.namespace.as_str(), "app", "its-uid"])
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    world.behind_the_back("TagResource", json!({"resourceArn": arn, "tags": taken}));
    world.clear_calls();
    let api = world.api::<EcrRepository>();
    world.again(&api, "app").await;
    let told = world.repository_says("app", "False", "Conflict").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("another-cluster") && message.contains("create it anew"), "{message}");
    let edit = Patch::Merge(json!({"spec": {"imageTagMutability": "IMMUTABLE"}}));
    api.patch("app", &PatchParams::default(), &edit).await.unwrap();
    world.repository_says("app", "False", "Conflict").await;
    assert_eq!(world.writes(), [""; 0]);
    // A person decides: the object is made anew, and may take over once.
    world.delete(&api, "app").await;
    world.repository("app", json!({"adoptionPolicy": "TakeOver", "inheritDefaults": false})).await;
    world.repository_says("app", "True", "Ready").await;
}

async fn one_taken_over_from_a_manager_that_takes_our_tags_off_is_claimed_three_times_and_then_a_person_is_asked(
    world: World,
) {
    let tags = json!([{"Key": "services.k8s.aws/controller-version", "Value": "ecr-1"}]);
    world.behind_the_back("CreateRepository", json!({"repositoryName": "app", "tags": tags}));
    world.repository("app", json!({"adoptionPolicy": "TakeOver", "inheritDefaults": false})).await;
    world.repository_says("app", "True", "Ready").await;
    let api = world.api::<EcrRepository>();
    for _ in 1..=3 {
        strip(&world, "app");
        world.again(&api, "app").await;
        let back =
            || async { OURS.iter().all(|key| world.there("app").unwrap().tags.contains_key(*key)).then_some(()) };
        world.eventually("claimed back", back).await;
        world.repository_says("app", "True", "Ready").await;
    }
    assert!(world.there("app").unwrap().tags.contains_key("services.k8s.aws/controller-version"));
}

async fn one_whose_owner_was_made_anew_for_another_repository_is_free(world: World) {
    let api = world.api::<EcrRepository>();
    world.repository("app", json!({"name": "shared/x"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.delete(&api, "app").await;
    world.repository("app", json!({"name": "shared/y"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.repository("heir", json!({"name": "shared/x", "adoptionPolicy": "Adopt", "inheritDefaults": false})).await;
    let heir = world.repository_says("heir", "True", "Ready").await;
    assert_eq!(world.there("shared/x").unwrap().tags["ecr-operator.dev/uid"], heir.metadata.uid.unwrap());
    // It comes back for the one that has another owner by now.
    world.delete(&api, "app").await;
    world.repository("app", json!({"name": "shared/x", "adoptionPolicy": "TakeOver", "inheritDefaults": false})).await;
    world.repository_says("app", "False", "Conflict").await;
}

async fn a_tag_that_does_not_fit_holds_back_no_adoption(world: World) {
    let theirs: Vec<_> = (0..46).map(|n| json!({"Key": format!("t{n}"), "Value": "x"})).collect();
    world.behind_the_back("CreateRepository", json!({"repositoryName": "app", "tags": theirs}));
    let spec = json!({"adoptionPolicy": "Adopt", "inheritDefaults": false, "tags": {"one": "more"}, "imageTagMutability": "IMMUTABLE"});
    world.repository("app", spec).await;
    let told = world.repository_says("app", "False", "Invalid").await.status.unwrap();
    assert!(told.conditions[0].message.contains("ecr:TagResource"), "{}", told.conditions[0].message);
    assert!(told.managed_tags.is_empty(), "it was never set");
    let there = world.there("app").unwrap();
    assert_eq!((there.tags.len(), there.description["imageTagMutability"].as_str()), (50, Some("IMMUTABLE")));
}

async fn one_that_could_not_be_marked_was_never_held(world: World) {
    let tags = json!([{"Key": "services.k8s.aws/controller-version", "Value": "ecr-1"}]);
    world.behind_the_back("CreateRepository", json!({"repositoryName": "app", "tags": tags}));
    let denied = local_ecr::Action::Before { code: "AccessDeniedException".to_owned(), status: 400 };
    world.ecr.fault(local_ecr::Fault::always(local_ecr::Matcher::operation("TagResource"), denied));
    let spec = json!({"adoptionPolicy": "TakeOver", "inheritDefaults": false, "imageTagMutability": "IMMUTABLE"});
    world.repository("app", spec).await;
    let told = world.repository_says("app", "False", "Denied").await.status.unwrap();
    assert_eq!((told.repository_arn, told.applied_digest), (None, None));
    assert_eq!(world.there("app").unwrap().description["imageTagMutability"], "MUTABLE");
    world.ecr.clear_faults();
    world.again(&world.api::<EcrRepository>(), "app").await;
    world.repository_says("app", "True", "Ready").await;
}
