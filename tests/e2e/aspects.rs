//! What only the whole shows: defaults, policies beside foreign statements, exports, scanning, new roles.

use std::time::Duration;

use ecr_operator::api::{EcrRegistry, EcrRepository};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use serde_json::json;

use crate::support::world::{ACCOUNT, World};

stories! {
    an_encryption_that_differs_is_told_and_nothing_is_made_anew,
    policies_at_their_size_limits_are_set_and_one_over_it_is_refused_with_the_number,
    defaults_fill_what_is_absent_and_required_tags_win,
    a_thin_object_that_adopts_brings_in_defaults_only_where_it_says_so,
    foreign_statements_stay_beside_grants_and_ours_go_with_their_block,
    registry_level_scanning_decides_and_the_status_says_so,
    an_export_is_ours_alone_and_goes_with_its_objects;
    but not on moto:
    a_role_that_was_just_created_is_waited_for = "moto believes in every role",
    a_role_that_does_not_come_in_two_minutes_makes_the_policy_invalid = "moto believes in every role",
    deletion_that_cannot_be_done_says_how_to_let_go = "moto knows no faults",
    each_refusal_of_a_creation_says_who_can_lift_it = "moto knows no faults",
}

async fn defaults_fill_what_is_absent_and_required_tags_win(world: World) {
    let lifecycle = json!({"rules": [{
        "rulePriority": 1,
        "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 9},
        "action": {"type": "expire"},
    }]});
    world
        .register(json!({
            "defaults": {"imageTagMutability": "IMMUTABLE", "lifecyclePolicy": lifecycle, "tags": {"team": "none", "env": "dev"}},
            "requiredTags": {"cost-center": "{namespace}-{name}"},
        }))
        .await;
    world.repository("app", json!({"tags": {"team": "a", "cost-center": "mine"}})).await;
    world.repository("bare", json!({"inheritDefaults": false})).await;
    world.repository_says("app", "True", "Ready").await;
    world.repository_says("bare", "True", "Ready").await;
    let app = world.there("app").unwrap();
    assert_eq!(app.description["imageTagMutability"], "IMMUTABLE");
    assert!(app.lifecycle_policy.is_some());
    let tags: Vec<_> = ["team", "env", "cost-center"].iter().map(|key| app.tags[*key].clone()).collect();
    assert_eq!(tags, ["a".to_owned(), "dev".to_owned(), format!("{}-app", world.namespace)]);
    let bare = world.there("bare").unwrap();
    assert_eq!(bare.description["imageTagMutability"], "MUTABLE");
    assert!(bare.lifecycle_policy.is_none() && !bare.tags.contains_key("env"));
    // A default that changes is a change of every repository that inherits it.
    world.clear_calls();
    world.register(json!({"defaults": {"imageTagMutability": "MUTABLE", "lifecyclePolicy": lifecycle, "tags": {"env": "dev"}}})).await;
    world
        .eventually("the new default is in force", || async {
            (world.there("app").unwrap().description["imageTagMutability"] == "MUTABLE").then_some(())
        })
        .await;
}

async fn a_thin_object_that_adopts_brings_in_defaults_only_where_it_says_so(world: World) {
    let expires = json!({"rules": [{
        "rulePriority": 1,
        "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1},
        "action": {"type": "expire"},
    }]});
    let grants = json!({"grants": [{"access": "Pull", "accounts": ["210987654321"]}]});
    world
        .register(json!({"defaults": {
            "imageTagMutability": "IMMUTABLE", "lifecyclePolicy": expires, "repositoryPolicy": grants, "tags": {"team": "none"},
        }}))
        .await;
    for name in ["alone", "along"] {
        world.behind_the_back("CreateRepository", json!({"repositoryName": name}));
    }
    world.clear_calls();
    world.repository("alone", json!({"adoptionPolicy": "Adopt", "inheritDefaults": false})).await;
    world.repository_says("alone", "True", "Ready").await;
    assert_eq!(world.writes(), ["TagResource"], "the mark, and nothing that the object doesn't say itself");
    let thin = world.there("alone").unwrap();
    assert!(thin.lifecycle_policy.is_none() && thin.policy.is_none() && !thin.tags.contains_key("team"));
    assert_eq!(thin.description["imageTagMutability"], "MUTABLE");

    world.repository("along", json!({"adoptionPolicy": "Adopt", "inheritDefaults": true})).await;
    world.repository_says("along", "True", "Ready").await;
    let rich = world.there("along").unwrap();
    assert!(rich.lifecycle_policy.is_some() && rich.policy.is_some());
    assert_eq!((rich.tags["team"].as_str(), &rich.description["imageTagMutability"]), ("none", &json!("IMMUTABLE")));
}

async fn each_refusal_of_a_creation_says_who_can_lift_it(world: World) {
    let api = world.api::<EcrRepository>();
    for (name, code, remedy) in [
        ("kms", "KmsException", "kms:CreateGrant and kms:DescribeKey"),
        ("organization", "BlockedByOrganizationPolicyException", "whoever manages the organization"),
        ("plain", "AccessDeniedException", "the identity needs ecr:CreateRepository on arn:aws:ecr"),
    ] {
        let refusal = local_ecr::Action::Before { code: code.to_owned(), status: 400 };
        let calls = local_ecr::Matcher::operation("CreateRepository").on(name);
        world.ecr.fault(local_ecr::Fault::once(calls, refusal));
        world.repository(name, json!({})).await;
        let told = world.repository_says(name, "False", "Denied").await;
        let message = told.status.unwrap().conditions[0].message.clone();
        assert!(message.contains(code) && message.contains(remedy), "{message}");
        assert!(world.there(name).is_none());
        // As the spec asks for a try when it was lifted.
        world.again(&api, name).await;
        world.repository_says(name, "True", "Ready").await;
    }
}

async fn foreign_statements_stay_beside_grants_and_ours_go_with_their_block(world: World) {
    world
        .repository("app", json!({"repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]}}))
        .await;
    world.repository_says("app", "True", "Ready").await;
    let mut policy = world.there("app").unwrap().policy.unwrap();
    let theirs = json!({"Sid": "theirs", "Effect": "Allow", "Principal": {"AWS": "310987654321"}, "Action": "ecr:BatchGetImage"});
    policy["Statement"].as_array_mut().unwrap().push(theirs);
    let body = json!({"repositoryName": "app", "policyText": policy.to_string()});
    world.behind_the_back("SetRepositoryPolicy", body);
    world.clear_calls();
    let api = world.api::<EcrRepository>();
    world.again(&api, "app").await;
    let handled = |object: &EcrRepository| {
        object.status.as_ref().is_some_and(|status| status.last_handled_reconcile_at.is_some())
    };
    world.until(&api, "app", "handled", handled).await;
    assert_eq!(world.writes(), [""; 0], "a foreign statement is no difference");
    let organization =
        json!({"spec": {"repositoryPolicy": {"grants": [{"access": "Pull", "organizations": ["o-abcdefghij"]}]}}});
    api.patch("app", &PatchParams::default(), &Patch::Merge(organization)).await.unwrap();
    world.repository_says("app", "True", "Ready").await;
    let sids = || {
        let policy = world.there("app").unwrap().policy.unwrap();
        let statements = policy["Statement"].as_array().unwrap().clone();
        statements.iter().map(|statement| statement["Sid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(sids(), ["theirs", "EcrOperatorPull1Org"]);
    api.patch("app", &PatchParams::default(), &Patch::Merge(json!({"spec": {"repositoryPolicy": null}})))
        .await
        .unwrap();
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(sids(), ["theirs"]);
}

async fn a_role_that_was_just_created_is_waited_for(world: World) {
    let role = "arn:aws:iam::123456789012:role/new";
    world.repository("app", json!({"repositoryPolicy": {"grants": [{"access": "Pull", "roleArns": [role]}]}})).await;
    let told = world.repository_says("app", "False", "Transient").await;
    assert!(told.status.unwrap().conditions[0].message.contains("so new that ECR doesn't know it yet"));
    world.ecr.make_role_known(role);
    world.repository_says("app", "True", "Ready").await;
}

async fn a_role_that_does_not_come_in_two_minutes_makes_the_policy_invalid(world: World) {
    let role = "arn:aws:iam::123456789012:role/never";
    world.repository("app", json!({"repositoryPolicy": {"grants": [{"access": "Pull", "roleArns": [role]}]}})).await;
    world.repository_says("app", "False", "Transient").await;
    let is_invalid = |object: Option<&EcrRepository>| {
        let conditions = object.and_then(|object| object.status.as_ref()).map(|status| status.conditions.as_slice());
        conditions.is_some_and(|conditions| conditions.iter().any(|it| it.type_ == "Ready" && it.reason == "Invalid"))
    };
    let told = await_condition(world.api::<EcrRepository>(), "app", is_invalid);
    // Two minutes, and then the next try.
    let told = tokio::time::timeout(Duration::from_mins(6), told).await.unwrap().unwrap().unwrap();
    let conditions = told.status.unwrap().conditions;
    assert!(conditions.iter().any(|it| it.type_ == "Stalled" && it.status == "True"), "{conditions:?}");
    assert!(conditions.iter().any(|it| it.message.contains("ecr:SetRepositoryPolicy")), "{conditions:?}");
    assert!(world.there("app").unwrap().policy.is_none());
}

async fn registry_level_scanning_decides_and_the_status_says_so(world: World) {
    let scanning = json!({"scanType": "ENHANCED", "rules": [{"scanFrequency": "SCAN_ON_PUSH", "repositoryFilters": [{"filter": "*", "filterType": "WILDCARD"}]}]});
    world.behind_the_back("PutRegistryScanningConfiguration", scanning);
    let registries = Api::<EcrRegistry>::all(world.client.clone());
    world.again(&registries, &world.registry).await;
    let handled =
        |object: &EcrRegistry| object.status.as_ref().is_some_and(|status| status.last_handled_reconcile_at.is_some());
    world.until(&registries, &world.registry, "handled", handled).await;
    world.repository("app", json!({"imageScanningConfiguration": {"scanOnPush": true}})).await;
    let told = world.repository_says("app", "True", "Ready").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("registry-level scanning decides (ENHANCED)"), "{message}");
}

async fn an_encryption_that_differs_is_told_and_nothing_is_made_anew(world: World) {
    world.behind_the_back("CreateRepository", json!({"repositoryName": "app"}));
    let spec = json!({
        "encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": "alias/images"}, "tags": {"a": "b"},
        "imageTagMutability": "IMMUTABLE", "adoptionPolicy": "Adopt", "inheritDefaults": false,
    });
    world.repository("app", spec).await;
    let told = world.repository_says("app", "False", "Invalid").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("declared KMS (alias/images), in AWS AES256"), "{message}");
    assert!(message.contains("nothing is ever re-created"), "{message}");
    let mut writes = world.writes();
    writes.sort();
    let marked_then_done = ["PutImageTagMutability", "TagResource", "TagResource"];
    assert_eq!(writes, marked_then_done, "the other aspects are as declared");
    let there = world.there("app").unwrap();
    assert_eq!(there.description["encryptionConfiguration"]["encryptionType"], "AES256");
    assert_eq!(there.tags["a"], "b");
    assert!(message.contains("delete this object with deletionPolicy Retain"), "{message}");
    // As it says: gone and back, with what is there declared.
    let api = world.api::<EcrRepository>();
    world.delete(&api, "app").await;
    world.repository("app", json!({"encryptionConfiguration": {"encryptionType": "AES256"}})).await;
    world.repository_says("app", "True", "Ready").await;
}

async fn policies_at_their_size_limits_are_set_and_one_over_it_is_refused_with_the_number(world: World) {
    let rule = json!({"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 9}, "action": {"type": "expire"}});
    let lifecycle = format!("{:<30720}", json!({"rules": [rule]}).to_string());
    let policy = |padding: usize| {
        let condition = json!({"StringEquals": {"aws:PrincipalTag/team": "x".repeat(padding)}});
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage", "Condition": condition}]}).to_string()
    };
    let longest = policy(10_240 - policy(0).len());
    let declare = |foreign: &str| {
        json!({
            "lifecyclePolicy": {"policyText": lifecycle},
            "repositoryPolicy": {"policyText": longest, "foreignStatements": foreign},
        })
    };
    world.repository("app", declare("Remove")).await;
    world.repository_says("app", "True", "Ready").await;
    let there = world.there("app").unwrap();
    assert_eq!(there.policy.as_ref().unwrap().to_string().len(), 10_240);
    assert!(there.lifecycle_policy.is_some());
    // Beside foreign statements ours bear a Sid, and that is too much.
    world.clear_calls();
    world.repository("app", declare("Keep")).await;
    let told = world.repository_says("app", "False", "Invalid").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("repositoryPolicy has 102") && message.contains("ECR takes 10240 at most"), "{message}");
    assert_eq!(world.writes(), [""; 0]);
    assert_eq!(world.there("app").unwrap().policy, there.policy);
}

async fn an_export_is_ours_alone_and_goes_with_its_objects(world: World) {
    let maps: Api<ConfigMap> = world.api();
    let export = |key: &str| json!({"exportTo": {"configMap": "images", "keys": {"uri": key}}});
    world.repository("app", export("APP")).await;
    world.repository("web", export("WEB")).await;
    for name in ["app", "web"] {
        world.repository_says(name, "True", "Ready").await;
    }
    let data = maps.get("images").await.unwrap().data.unwrap();
    assert_eq!(data["APP"], "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app");
    assert_eq!(data.len(), 2);
    world.repository("rival", export("APP")).await;
    world.repository_says("rival", "False", "Conflict").await;

    let api = world.api::<EcrRepository>();
    world.delete(&api, "app").await;
    let left = maps.get("images").await.unwrap().data.unwrap();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["WEB"]);
    world.delete(&api, "web").await;
    world.until_gone(&maps, "images").await;

    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "namespace": world.namespace}, "data": {"a": "b"}});
    world.apply(&foreign).await;
    world.repository("late", json!({"exportTo": {"configMap": "theirs", "keys": {"uri": "APP"}}})).await;
    world.repository_says("late", "False", "Conflict").await;
    assert_eq!(maps.get("theirs").await.unwrap().data.unwrap().len(), 1);
}

async fn deletion_that_cannot_be_done_says_how_to_let_go(world: World) {
    let api = world.api::<EcrRepository>();
    for name in ["denied", "gone"] {
        world.repository(name, json!({"deletionPolicy": "Delete"})).await;
        world.repository_says(name, "True", "Ready").await;
    }
    let denied = local_ecr::Action::Before { code: "AccessDeniedException".to_owned(), status: 400 };
    world.ecr.fault(local_ecr::Fault::always(local_ecr::Matcher::operation("DeleteRepository").on("denied"), denied));
    api.delete("denied", &DeleteParams::default()).await.unwrap();
    let told = world.repository_says("denied", "False", "Denied").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(
        message.contains("ecr:DeleteRepository") && message.contains("set spec.deletionPolicy to Retain"),
        "{message}"
    );

    let registries: Api<EcrRegistry> = Api::all(world.client.clone());
    world.delete(&registries, &world.registry).await;
    api.delete("gone", &DeleteParams::default()).await.unwrap();
    world.repository_says("gone", "False", "RegistryNotFound").await;
    for name in ["denied", "gone"] {
        api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"deletionPolicy": "Retain"}})))
            .await
            .unwrap();
        world.until_gone(&api, name).await;
        assert!(world.there(name).is_some());
    }
}

/// The IAM policy that docs/repositories.md gives.
fn documented_policy() -> serde_json::Value {
    let docs = include_str!("../../docs/repositories.md");
    let (_, rest) = docs.split_once("```json\n").unwrap();
    serde_json::from_str(rest.split_once("```").unwrap().0).unwrap()
}

/// A world whose operator may do no more than this.
async fn with_permissions(name: &str, policy: serde_json::Value) -> World {
    let world = World::without_registry(name, local_ecr::Config::default()).await;
    let user = json!({"name": "operator", "accessKey": "AKIAOPERATOR", "secretKey": "hush", "policies": [policy]});
    let seed = json!({"accounts": [{"id": ACCOUNT, "users": [user]}]});
    world.ecr.seed(&serde_json::from_value(seed).unwrap()).unwrap();
    world.access_key("AKIAOPERATOR", "hush").await;
    world.register(json!({})).await;
    world.registry_says("True", "Ready").await;
    world
}

#[tokio::test]
async fn a_permission_that_is_missing_within_the_creation_is_the_one_that_is_named() {
    let mut policy = documented_policy();
    let actions = policy.pointer_mut("/Statement/0/Action").unwrap().as_array_mut().unwrap();
    actions.retain(|action| action != "ecr:TagResource");
    let world = with_permissions("notags", policy).await;
    world.repository("app", json!({})).await;
    let told = world.repository_says("app", "False", "Denied").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    let needed = "the identity needs ecr:TagResource on arn:aws:ecr:eu-west-1:123456789012:repository/app";
    assert!(message.starts_with("ecr:CreateRepository failed") && message.contains(needed), "{message}");
    assert!(world.there("app").is_none());
}

#[tokio::test]
async fn the_documented_permissions_are_enough() {
    let world = with_permissions("leastrights", documented_policy()).await;
    let spec = |mutability: &str, lifecycle: serde_json::Value, tags: serde_json::Value| {
        json!({
            "imageTagMutability": mutability, "lifecyclePolicy": lifecycle, "tags": tags, "deletionPolicy": "Delete",
            "imageScanningConfiguration": {"scanOnPush": mutability == "MUTABLE"},
            "repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]},
        })
    };
    let rule = json!({"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 9}, "action": {"type": "expire"}});
    world.repository("app", spec("MUTABLE", json!({"rules": [rule]}), json!({"a": "b"}))).await;
    world.repository_says("app", "True", "Ready").await;
    world.repository("app", spec("IMMUTABLE", json!({"rules": []}), json!({"c": "d"}))).await;
    world.repository_says("app", "True", "Ready").await;
    world.again(&Api::<EcrRegistry>::all(world.client.clone()), &world.registry).await;
    let snapshot =
        world.ecr.wait_for_call(crate::support::world::PATIENCE, |call| call.operation == "GetResources").await;
    assert!(snapshot.is_some());
    let api = world.api::<EcrRepository>();
    api.patch("app", &PatchParams::default(), &Patch::Merge(json!({"spec": {"repositoryPolicy": null}})))
        .await
        .unwrap();
    world.repository_says("app", "True", "Ready").await;
    world.put_image("app");
    api.delete("app", &DeleteParams::default()).await.unwrap();
    world.repository_says("app", "False", "RepositoryNotEmpty").await;
    let digests = json!({"repositoryName": "app", "imageIds": [{"imageTag": "v1"}]});
    world.behind_the_back("BatchDeleteImage", digests);
    world.again(&api, "app").await;
    world.until_gone(&api, "app").await;
    let refused: Vec<_> =
        world.ecr.calls().into_iter().filter(|call| !call.is_ok()).map(|call| call.operation).collect();
    assert_eq!(refused, ["DeleteRepository"], "refused once, for the image");
}
