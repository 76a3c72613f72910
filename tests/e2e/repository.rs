//! `EcrRepository` on a real API server: created, kept, repaired, and let go.

use ecr_operator::api::EcrRepository;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::world::{ACCOUNT, REGION, World};

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

#[tokio::test]
async fn a_repository_is_created_as_declared_in_three_calls() {
    let world = World::new("create").await;
    world.registry_says("True", "Ready").await;
    world.ecr.clear_calls();
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

#[tokio::test]
async fn a_change_of_one_aspect_is_one_write() {
    let world = World::new("change").await;
    world.repository("app", full("team-a/app")).await;
    world.repository_says("app", "True", "Ready").await;
    for (change, writes) in [
        (json!({"tags": {"team": "b"}}), "TagResource"),
        (json!({"imageScanningConfiguration": {"scanOnPush": false}}), "PutImageScanningConfiguration"),
        (json!({"imageTagMutability": "MUTABLE", "imageTagMutabilityExclusionFilters": null}), "PutImageTagMutability"),
        (json!({"lifecyclePolicy": {"rules": []}}), "DeleteLifecyclePolicy"),
        (
            json!({"repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["310987654321"]}]}}),
            "SetRepositoryPolicy",
        ),
        (json!({"repositoryPolicy": null}), "DeleteRepositoryPolicy"),
        (json!({"tags": {"team": null}}), "UntagResource"),
    ] {
        world.ecr.clear_calls();
        let patch = Patch::Merge(json!({"spec": change}));
        world.api::<EcrRepository>().patch("app", &PatchParams::default(), &patch).await.unwrap();
        world.repository_says("app", "True", "Ready").await;
        assert_eq!(world.writes(), [writes], "{change}");
    }
    let there = world.there("team-a/app").unwrap();
    assert_eq!(there.tags.len(), 4, "only the operator's own are left: {:?}", there.tags);
    assert!(there.lifecycle_policy.is_none() && there.policy.is_none());
}

#[tokio::test]
async fn what_others_set_stays_and_what_others_change_is_put_right() {
    let world = World::new("drift").await;
    world
        .repository("app", json!({"name": "team-a/app", "imageTagMutability": "IMMUTABLE", "tags": {"team": "a"}}))
        .await;
    let object = world.repository_says("app", "True", "Ready").await;
    let arn = object.status.unwrap().repository_arn.unwrap();
    world
        .ecr
        .behind_the_back(
            ACCOUNT,
            REGION,
            "TagResource",
            json!({"resourceArn": arn, "tags": [{"Key": "theirs", "Value": "x"}, {"Key": "team", "Value": "z"}]}),
        )
        .unwrap();
    world
        .ecr
        .behind_the_back(
            ACCOUNT,
            REGION,
            "PutImageTagMutability",
            json!({"repositoryName": "team-a/app", "imageTagMutability": "MUTABLE"}),
        )
        .unwrap();
    world.ecr.clear_calls();
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

#[tokio::test]
async fn deletion_does_what_the_policy_says() {
    let world = World::new("delete").await;
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
            world.ecr.put_image(ACCOUNT, REGION, name, &["v1"]).unwrap();
        }
        world.ecr.clear_calls();
        world.delete(&api, name).await;
        assert_eq!(world.there(name).is_some(), stays, "{policy}");
        let expected: &[&str] = if stays { &[] } else { &["ListTagsForResource", "DeleteRepository"] };
        assert_eq!(world.operations(), expected, "{policy}");
    }
    let left = world.there("retained").unwrap();
    assert!(left.tags.contains_key("ecr-operator.dev/uid"), "a retained repository still says whose it was");
}

#[tokio::test]
async fn a_repository_with_images_waits_and_retain_lets_go() {
    let world = World::new("images").await;
    world.repository("app", json!({"deletionPolicy": "Delete"})).await;
    world.repository_says("app", "True", "Ready").await;
    world.ecr.put_image(ACCOUNT, REGION, "app", &["v1"]).unwrap();
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

#[tokio::test]
async fn a_repository_that_exists_is_not_touched_without_leave() {
    let world = World::new("adopt").await;
    world
        .ecr
        .behind_the_back(
            ACCOUNT,
            REGION,
            "CreateRepository",
            json!({"repositoryName": "app", "tags": [{"Key": "theirs", "Value": "x"}]}),
        )
        .unwrap();
    world.ecr.clear_calls();
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

#[tokio::test]
async fn two_objects_one_repository_the_first_keeps_it() {
    let world = World::new("two").await;
    world.repository("first", json!({"name": "shared/app"})).await;
    world.repository_says("first", "True", "Ready").await;
    world.ecr.clear_calls();
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

#[tokio::test]
async fn a_namespace_without_the_right_gets_nothing() {
    let world = World::new("allow").await;
    world.register(json!({"allow": [{"namespaces": {"matchNames": ["elsewhere"]}, "manage": ["*"]}]})).await;
    world.registry_says("True", "Ready").await;
    world.repository("app", json!({})).await;
    world.repository_says("app", "False", "NotAllowed").await;
    assert_eq!(world.operations(), [""; 0]);
    // The right is given: the object is looked at without a change of its own.
    world.register(json!({"allow": [{"namespaces": {"matchNames": [world.namespace]}, "manage": ["*"]}]})).await;
    world.repository_says("app", "True", "Ready").await;
}

#[tokio::test]
async fn mode_plan_shows_everything_and_writes_nothing() {
    let world = World::new("plan").await;
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

#[tokio::test]
async fn suspended_means_nothing_is_done() {
    let world = World::new("suspend").await;
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

#[tokio::test]
async fn one_failing_aspect_holds_back_no_other_and_names_its_call() {
    let world = World::new("aspect").await;
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
