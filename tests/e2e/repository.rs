//! `EcrRepository` on a real API server: created, kept, repaired, and let go.

use ecr_operator::api::{EcrRegistry, EcrRepository};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::world::{ACCOUNT, World};

stories! {
    a_repository_is_created_as_declared_in_three_calls,
    a_change_of_one_aspect_is_one_write,
    what_others_set_stays_and_what_others_change_is_put_right,
    deletion_does_what_the_policy_says,
    a_repository_with_images_waits_and_retain_lets_go,
    a_repository_that_exists_is_not_touched_without_leave,
    two_objects_one_repository_the_first_keeps_it,
    a_namespace_without_the_right_gets_nothing,
    mode_plan_shows_everything_and_writes_nothing,
    suspended_means_nothing_is_done,
    suspended_means_nothing_is_repaired_nor_deleted,
    deletion_goes_on_when_the_images_are_gone_and_only_within_the_right_of_that_moment,
    what_is_deleted_behind_our_back_is_not_made_anew_for_an_object_that_goes,
    what_retain_let_go_is_not_deleted_by_a_policy_that_comes_after_the_deletion,
    what_stays_anyway_is_let_go_without_a_registry;
    but not on moto:
    scan_on_push_is_turned_off_by_one_write = "moto takes an empty configuration (the SDK leaves out false) for none",
    one_failing_aspect_holds_back_no_other_and_names_its_call = "moto knows no faults",
    what_passes_by_itself_does_not_wait_for_what_needs_a_person = "moto knows no faults",
    a_creation_that_nobody_heard_of_leaves_no_orphan = "moto knows no faults",
}

fn full(name: &str) -> serde_json::Value {
    json!({
        "name": name,
        "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
        "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "dev-*"}],
        "imageScanningConfiguration": {"scanOnPush": true},
        "lifecyclePolicy": {"rules": [{
            "rulePriority": 1,
            "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14},
            "action": {"type": "expire"},
        }]},
        "repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]},
        "tags": {"team": "a"},
        "deletionPolicy": "Delete",
    })
}

async fn a_repository_is_created_as_declared_in_three_calls(world: World) {
    world.registry_says("True", "Ready").await;
    world.clear_calls();
    world.repository("app", full("team-a/app")).await;
    let object = world.repository_says("app", "True", "Ready").await;
    assert_eq!(world.operations(), ["CreateRepository", "PutLifecyclePolicy", "SetRepositoryPolicy"]);

    let there = world.there("team-a/app").unwrap();
    assert_eq!(there.description["imageTagMutability"], "IMMUTABLE_WITH_EXCLUSION");
    assert_eq!(there.description["imageScanningConfiguration"]["scanOnPush"], true);
    assert_eq!(there.tags["team"], "a");
    assert_eq!(there.tags["ecr-operator.dev/uid"], object.metadata.uid.clone().unwrap());
    assert!(there.lifecycle_policy.is_some() && there.policy.is_some());

    let status = object.status.unwrap();
    assert_eq!(status.repository_uri.as_deref(), Some("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team-a/app"));
    assert_eq!(status.repository_arn, Some(there.arn));
    assert_eq!(status.registry_id.as_deref(), Some(ACCOUNT));
    assert_eq!(status.managed_tags, ["team"]);
    assert!(status.created_at.is_some() && status.plan.is_empty());
    world.event("app", "CreateRepository").await;
}

async fn a_change_of_one_aspect_is_one_write(world: World) {
    world.repository("app", full("team-a/app")).await;
    world.repository_says("app", "True", "Ready").await;
    for (change, writes) in [
        (json!({"tags": {"team": "b"}}), "TagResource"),
        (json!({"imageTagMutability": "MUTABLE", "imageTagMutabilityExclusionFilters": null}), "PutImageTagMutability"),
        (json!({"lifecyclePolicy": {"rules": []}}), "DeleteLifecyclePolicy"),
        (
            json!({"repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["310987654321"]}]}}),
            "SetRepositoryPolicy",
        ),
        (json!({"repositoryPolicy": null}), "DeleteRepositoryPolicy"),
        (json!({"tags": {"team": null}}), "UntagResource"),
    ] {
        world.clear_calls();
        let patch = Patch::Merge(json!({"spec": change}));
        world.api::<EcrRepository>().patch("app", &PatchParams::default(), &patch).await.unwrap();
        world.repository_says("app", "True", "Ready").await;
        assert_eq!(world.writes(), [writes], "{change}");
    }
    let there = world.there("team-a/app").unwrap();
    assert_eq!(there.tags.len(), 4, "only the operator's own are left: {:?}", there.tags);
    assert!(there.lifecycle_policy.is_none() && there.policy.is_none());
}

async fn scan_on_push_is_turned_off_by_one_write(world: World) {
    world.repository("app", json!({"imageScanningConfiguration": {"scanOnPush": true}})).await;
    world.repository_says("app", "True", "Ready").await;
    world.clear_calls();
    world.repository("app", json!({"imageScanningConfiguration": {"scanOnPush": false}})).await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(world.writes(), ["PutImageScanningConfiguration"]);
    assert_eq!(world.there("app").unwrap().description["imageScanningConfiguration"]["scanOnPush"], false);
}

async fn what_others_set_stays_and_what_others_change_is_put_right(world: World) {
    world
        .repository("app", json!({"name": "team-a/app", "imageTagMutability": "IMMUTABLE", "tags": {"team": "a"}}))
        .await;
    let object = world.repository_says("app", "True", "Ready").await;
    let arn = object.status.unwrap().repository_arn.unwrap();
    world.behind_the_back(
        "TagResource",
        json!({"resourceArn": arn, "tags": [{"Key": "theirs", "Value": "x"}, {"Key": "team", "Value": "z"}]}),
    );
    world.behind_the_back(
        "PutImageTagMutability",
        json!({"repositoryName": "team-a/app", "imageTagMutability": "MUTABLE"}),
    );
    world.clear_calls();
    let annotate = Patch::Merge(json!({"metadata": {"annotations": {"ecr-operator.dev/reconcile-at": "now"}}}));
    world.api::<EcrRepository>().patch("app", &PatchParams::default(), &annotate).await.unwrap();
    let repaired = world
        .until(&world.api::<EcrRepository>(), "app", "repaired", |object| {
            object.status.as_ref().is_some_and(|status| status.drift.is_some())
        })
        .await;
    let mut writes = world.writes();
    writes.sort();
    assert_eq!(writes, ["PutImageTagMutability", "TagResource"]);
    let there = world.there("team-a/app").unwrap();
    assert_eq!((there.tags["theirs"].as_str(), there.tags["team"].as_str()), ("x", "a"));
    assert_eq!(repaired.status.unwrap().drift.unwrap().actions.len(), 2);
}

async fn deletion_does_what_the_policy_says(world: World) {
    let api = world.api::<EcrRepository>();
    for (name, policy, stays) in
        [("retained", "Retain", true), ("deleted", "Delete", false), ("purged", "DeleteWithImages", false)]
    {
        world.repository(name, json!({"deletionPolicy": policy})).await;
        let object = world.repository_says(name, "True", "Ready").await;
        assert_eq!(
            object.metadata.finalizers.is_some(),
            policy != "Retain",
            "a finalizer only where deletion has something to do"
        );
        if policy == "DeleteWithImages" {
            world.put_image(name);
        }
        world.clear_calls();
        world.delete(&api, name).await;
        assert_eq!(world.there(name).is_some(), stays, "{policy}");
        let expected: &[&str] = if stays { &[] } else { &["ListTagsForResource", "DeleteRepository"] };
        assert_eq!(world.operations(), expected, "{policy}");
    }
    let left = world.there("retained").unwrap();
    assert!(left.tags.contains_key("ecr-operator.dev/uid"), "a retained repository still says whose it was");
}

async fn a_repository_with_images_waits_and_retain_lets_go(world: World) {
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.put_image("app");
    let api = world.api::<EcrRepository>();
    api.delete("app", &DeleteParams::default()).await.unwrap();
    let waiting = world.repository_says("app", "False", "RepositoryNotEmpty").await;
    let told = waiting.status.unwrap().conditions[0].message.clone();
    assert!(told.contains("1 images, the newest pushed at"), "{told}");
    api.patch("app", &PatchParams::default(), &Patch::Merge(json!({"spec": {"deletionPolicy": "Retain"}})))
        .await
        .unwrap();
    world.until_gone(&api, "app").await;
    assert!(world.there("app").is_some());
}

async fn a_repository_that_exists_is_not_touched_without_leave(world: World) {
    world.behind_the_back(
        "CreateRepository",
        json!({"repositoryName": "app", "tags": [{"Key": "theirs", "Value": "x"}]}),
    );
    world.clear_calls();
    world.repository("app", json!({"imageTagMutability": "IMMUTABLE"})).await;
    let refused = world.repository_says("app", "False", "AlreadyExists").await;
    assert_eq!(world.writes(), ["CreateRepository"], "tried, refused by ECR, and nothing else");
    let status = refused.status.unwrap();
    assert_eq!(
        status.plan.iter().map(|step| step.action.as_str()).collect::<Vec<_>>(),
        ["TagResource", "PutImageTagMutability"]
    );
    assert_eq!(status.repository_arn, None);

    let adopt = Patch::Merge(json!({"spec": {"adoptionPolicy": "Adopt", "inheritDefaults": false}}));
    world.api::<EcrRepository>().patch("app", &PatchParams::default(), &adopt).await.unwrap();
    world.repository_says("app", "True", "Ready").await;
    let there = world.there("app").unwrap();
    assert_eq!(there.tags["theirs"], "x");
    assert_eq!(there.description["imageTagMutability"], "IMMUTABLE");
}

async fn two_objects_one_repository_the_first_keeps_it(world: World) {
    world.repository("first", json!({"name": "shared/app"})).await;
    world.repository_says("first", "True", "Ready").await;
    world.clear_calls();
    world.repository("second", json!({"name": "shared/app", "imageTagMutability": "IMMUTABLE", "adoptionPolicy": "TakeOver", "inheritDefaults": true})).await;
    let refused = world.repository_says("second", "False", "Conflict").await;
    assert!(refused.status.unwrap().conditions[0].message.contains(&format!("{}/first", world.namespace)));
    assert_eq!(world.writes(), [""; 0]);
    // The owner goes and leaves it: then nobody owns it.
    world.delete(&world.api::<EcrRepository>(), "first").await;
    let again = Patch::Merge(json!({"metadata": {"annotations": {"ecr-operator.dev/reconcile-at": "now"}}}));
    world.api::<EcrRepository>().patch("second", &PatchParams::default(), &again).await.unwrap();
    world.repository_says("second", "True", "Ready").await;
}

async fn a_namespace_without_the_right_gets_nothing(world: World) {
    world.register(json!({"allow": [{"namespaces": {"matchNames": ["elsewhere"]}, "manage": ["*"]}]})).await;
    world.registry_says("True", "Ready").await;
    world.repository("app", json!({})).await;
    world.repository_says("app", "False", "NotAllowed").await;
    assert_eq!(world.operations(), [""; 0]);
    // The right is given: the object is looked at without a change of its own.
    world.register(json!({"allow": [{"namespaces": {"matchNames": [world.namespace]}, "manage": ["*"]}]})).await;
    world.repository_says("app", "True", "Ready").await;
}

async fn mode_plan_shows_everything_and_writes_nothing(world: World) {
    let mut spec = full("team-a/app");
    spec["mode"] = json!("Plan");
    world.repository("app", spec.clone()).await;
    let planned = world.repository_says("app", "False", "PlanPending").await;
    assert_eq!(world.writes(), [""; 0]);
    let plan = planned.status.unwrap().plan;
    assert_eq!(
        plan.iter().map(|step| step.action.as_str()).collect::<Vec<_>>(),
        ["CreateRepository", "PutLifecyclePolicy", "SetRepositoryPolicy"]
    );
    assert!(plan[1].detail.contains("add rule 1 (expire untagged sinceImagePushed 14 days)"), "{}", plan[1].detail);
    spec["mode"] = json!("Apply");
    world.repository("app", spec).await;
    let applied = world.repository_says("app", "True", "Ready").await;
    assert!(applied.status.unwrap().plan.is_empty());
}

async fn suspended_means_nothing_is_done(world: World) {
    world.registry_says("True", "Ready").await;
    let suspended = json!({
        "apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRepository",
        "metadata": {"name": "app", "namespace": world.namespace, "annotations": {"ecr-operator.dev/suspend": "true"}},
        "spec": {"registryRef": {"name": world.registry}},
    });
    world.apply(&suspended).await;
    world.repository_says("app", "Unknown", "Suspended").await;
    assert_eq!(world.operations(), [""; 0]);
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
}

async fn one_failing_aspect_holds_back_no_other_and_names_its_call(world: World) {
    let denied = local_ecr::Action::Before { code: "AccessDeniedException".to_owned(), status: 400 };
    world.ecr.fault(local_ecr::Fault::always(local_ecr::Matcher::operation("PutLifecyclePolicy"), denied));
    world.repository("app", full("team-a/app")).await;
    let told = world.repository_says("app", "False", "Denied").await;
    let status = told.status.unwrap();
    assert!(status.conditions[0].message.contains("ecr:PutLifecyclePolicy"), "{}", status.conditions[0].message);
    assert_eq!(status.plan.iter().map(|step| step.action.as_str()).collect::<Vec<_>>(), ["PutLifecyclePolicy"]);
    assert!(world.there("team-a/app").unwrap().policy.is_some());
    world.ecr.clear_faults();
    let again = Patch::Merge(json!({"metadata": {"annotations": {"ecr-operator.dev/reconcile-at": "now"}}}));
    let api: Api<EcrRepository> = world.api();
    api.patch("app", &PatchParams::default(), &again).await.unwrap();
    world.repository_says("app", "True", "Ready").await;
}

/// Sets an annotation, or takes it away.
async fn suspend<K>(api: &Api<K>, name: &str, value: Option<&str>)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"ecr-operator.dev/suspend": value}}}));
    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn suspended_means_nothing_is_repaired_nor_deleted(world: World) {
    let api = world.api::<EcrRepository>();
    world.repository("app", json!({"imageTagMutability": "IMMUTABLE", "deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    suspend(&api, "app", Some("true")).await;
    world.repository_says("app", "Unknown", "Suspended").await;
    let mutable = json!({"repositoryName": "app", "imageTagMutability": "MUTABLE"});
    world.behind_the_back("PutImageTagMutability", mutable);
    world.clear_calls();
    world.again(&api, "app").await;
    world.again(&Api::<EcrRegistry>::all(world.client.clone()), &world.registry).await;
    api.delete("app", &DeleteParams::default()).await.unwrap();
    let waits = |object: &EcrRepository| {
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        object.metadata.deletion_timestamp.is_some() && conditions.into_iter().any(|it| it.reason == "Suspended")
    };
    world.until(&api, "app", "waiting, suspended", waits).await;
    assert_eq!(world.writes(), [""; 0]);
    suspend(&api, "app", None).await;
    world.until_gone(&api, "app").await;
    assert_eq!(world.writes(), ["DeleteRepository"]);
}

async fn deletion_goes_on_when_the_images_are_gone_and_only_within_the_right_of_that_moment(world: World) {
    let api = world.api::<EcrRepository>();
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.put_image("app");
    api.delete("app", &DeleteParams::default()).await.unwrap();
    world.repository_says("app", "False", "RepositoryNotEmpty").await;
    let right = |most: &str| json!({"allow": [{"namespaces": {}, "manage": ["*"], "maxDeletion": most}]});
    world.register(right("Retain")).await;
    let told = world.repository_says("app", "False", "NotAllowed").await;
    assert!(told.status.unwrap().conditions[0].message.contains("maxDeletion Retain"));
    let image = json!({"repositoryName": "app", "imageIds": [{"imageTag": "v1"}]});
    world.behind_the_back("BatchDeleteImage", image);
    world.again(&api, "app").await;
    world.repository_says("app", "False", "NotAllowed").await;
    assert!(world.there("app").is_some());
    world.register(right("Delete")).await;
    world.until_gone(&api, "app").await;
    assert!(world.there("app").is_none());
}

/// Puts somebody else's finalizer on an object.
async fn hold(api: &Api<EcrRepository>, name: &str, finalizers: &[&str]) {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn what_is_deleted_behind_our_back_is_not_made_anew_for_an_object_that_goes(world: World) {
    let api = world.api::<EcrRepository>();
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    world.age("app").await;
    hold(&api, "app", &["example.com/theirs"]).await;
    api.delete("app", &DeleteParams::default()).await.unwrap();
    world.behind_the_back("DeleteRepository", json!({"repositoryName": "app"}));
    world.clear_calls();
    world.again(&api, "app").await;
    world.again(&Api::<EcrRegistry>::all(world.client.clone()), &world.registry).await;
    world.repository("next", json!({})).await;
    world.repository_says("next", "True", "Ready").await;
    assert_eq!(world.writes(), ["CreateRepository"], "of the next one");
    hold(&api, "app", &[]).await;
    world.until_gone(&api, "app").await;
    assert!(world.there("app").is_none());
}

async fn what_retain_let_go_is_not_deleted_by_a_policy_that_comes_after_the_deletion(world: World) {
    let api = world.api::<EcrRepository>();
    world.repository("app", json!({"deletionPolicy": "Retain"})).await;
    world.repository_says("app", "True", "Ready").await;
    hold(&api, "app", &["example.com/theirs"]).await;
    api.delete("app", &DeleteParams::default()).await.unwrap();
    let force = Patch::Merge(json!({"spec": {"deletionPolicy": "DeleteWithImages"}}));
    api.patch("app", &PatchParams::default(), &force).await.unwrap();
    world.clear_calls();
    world.repository("next", json!({})).await;
    world.repository_says("next", "True", "Ready").await;
    hold(&api, "app", &[]).await;
    world.until_gone(&api, "app").await;
    assert!(world.there("app").is_some());
    assert_eq!(world.writes(), ["CreateRepository"], "of the next one");
}

async fn what_stays_anyway_is_let_go_without_a_registry(world: World) {
    let api = world.api::<EcrRepository>();
    let export = json!({"configMap": "images", "keys": {"uri": "IMAGE"}});
    world.repository("app", json!({"exportTo": export})).await;
    let held = world.repository_says("app", "True", "Ready").await;
    assert!(held.metadata.finalizers.is_some(), "the export is to be taken away");
    let registries: Api<EcrRegistry> = Api::all(world.client.clone());
    suspend(&registries, &world.registry, Some("true")).await;
    world.delete(&registries, &world.registry).await;
    world.repository_says("app", "False", "RegistryNotFound").await;
    world.clear_calls();
    world.delete(&api, "app").await;
    assert!(world.there("app").is_some());
    assert_eq!(world.operations(), [""; 0]);
}

async fn what_passes_by_itself_does_not_wait_for_what_needs_a_person(world: World) {
    let refused = |code: &str| local_ecr::Action::Before { code: code.to_owned(), status: 400 };
    let always =
        |operation: &str, code: &str| local_ecr::Fault::always(local_ecr::Matcher::operation(operation), refused(code));
    world.ecr.fault(always("PutLifecyclePolicy", "AccessDeniedException"));
    world.ecr.fault(local_ecr::Fault { times: Some(4), ..always("SetRepositoryPolicy", "ThrottlingException") });
    world.repository("app", full("team-a/app")).await;
    world.repository_says("app", "False", "Denied").await;
    let set = || async { world.there("team-a/app").is_some_and(|there| there.policy.is_some()).then_some(()) };
    world.eventually("the policy is set though the other one is denied", set).await;
}

async fn a_creation_that_nobody_heard_of_leaves_no_orphan(world: World) {
    world.ecr.eventual_consistency(std::time::Duration::from_secs(4));
    let lost = local_ecr::Fault::always(local_ecr::Matcher::operation("CreateRepository"), local_ecr::Action::Lost);
    world.ecr.fault(lost);
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    let api = world.api::<EcrRepository>();
    world.repository_says("app", "False", "Transient").await;
    world.delete(&api, "app").await;
    assert!(world.there("app").is_none());
}
