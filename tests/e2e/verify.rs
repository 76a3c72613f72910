//! `spec.verify`: Ready means that the tokens were seen to be let in.

use ecr_operator::api::{ClusterEcrPullSecret, EcrPullSecret};
use local_ecr::{Action, Fault, Matcher};
use serde_json::json;

use crate::support::world::{REGION, World};

const OTHER: &str = "210987654321";

fn looks(world: &World) -> usize {
    world.ecr.count(|call| call.service == "registry")
}

fn message(object: &EcrPullSecret) -> String {
    object.status.as_ref().unwrap().conditions[0].message.clone()
}

#[tokio::test]
async fn ready_is_said_once_each_host_was_asked_and_not_again_while_the_token_stays() {
    let world = World::new("verify").await;
    world.pull_secret("pull", json!({"verify": {"repository": "team-a/not-there-yet"}})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let asked = world.ecr.calls();
    let asked: Vec<_> = asked.iter().filter(|call| call.service == "registry").collect();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].operation.as_str(), asked[0].resource.as_str()), ("GetManifest", "team-a/not-there-yet"));

    // Another pass changes nothing about that; a new token does.
    world
        .pull_secret("pull", json!({"verify": {"repository": "team-a/not-there-yet"}, "serviceAccounts": ["default"]}))
        .await;
    world.pull_secret_says("pull", "True", "Ready").await;
    assert_eq!(looks(&world), 1);
    world.again(&world.api::<EcrPullSecret>(), "pull").await;
    let asked = world.ecr.wait_for_calls(2, crate::support::world::PATIENCE, |call| call.service == "registry").await;
    assert_eq!(asked.len(), 2);
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 2);
}

#[tokio::test]
async fn a_refusal_tells_the_host_and_the_side_that_has_to_change() {
    let world = World::new("refused").await;
    world.register(json!({"pull": {"scopeTokens": "Never", "accounts": [OTHER]}})).await;
    world.registry_says("True", "Ready").await;
    world.ecr.behind_the_back(OTHER, REGION, "CreateRepository", json!({"repositoryName": "shared"})).unwrap();
    world.pull_secret("pull", json!({"verify": {"repository": "shared"}})).await;
    let refused = world.pull_secret_says("pull", "False", "Denied").await;
    let told = message(&refused);
    let wanted = format!("the policy of repository shared in account {OTHER} has to allow");
    assert!(told.contains(&wanted) && told.contains(&format!("{OTHER}.dkr.ecr.{REGION}.amazonaws.com")), "{told}");
    assert_eq!(refused.status.as_ref().unwrap().secrets.as_deref(), Some("1/1"), "it is there all the same");

    let policy =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "ecr:*"}]});
    let body = json!({"repositoryName": "shared", "policyText": policy.to_string()});
    world.ecr.behind_the_back(OTHER, REGION, "SetRepositoryPolicy", body).unwrap();
    world.again(&world.api::<EcrPullSecret>(), "pull").await;
    world.pull_secret_says("pull", "True", "Ready").await;
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_named_and_asked_again() {
    let world = World::new("silent").await;
    world.ecr.fault(Fault::always(
        Matcher::operation("GetManifest"),
        Action::Before { code: "ServiceUnavailable".into(), status: 503 },
    ));
    world.pull_secret("pull", json!({"verify": {"repository": "app"}})).await;
    let held_up = world.pull_secret_says("pull", "False", "Transient").await;
    assert!(message(&held_up).contains("registry 123456789012.dkr.ecr.eu-west-1.amazonaws.com answered HTTP 503"));
    world.ecr.clear_faults();
    world.pull_secret_says("pull", "True", "Ready").await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1);
}

#[tokio::test]
async fn a_silent_registry_holds_up_no_secret_and_is_left_alone_for_the_rest_of_a_pass() {
    let world = World::new("hang").await;
    let allow = json!([{"namespaces": {}, "pull": ["{namespace}/*", "app"]}]);
    world.register(json!({"pull": {"scopeTokens": "Required"}, "allow": allow})).await;
    for number in 0..30 {
        world.selected_namespace(&number.to_string()).await;
    }
    world.ecr.fault(Fault::always(Matcher::operation("GetManifest"), Action::Hang));
    let name = world.namespace.clone();
    world.cluster_pull_secret(&name, json!({"secretName": "pull", "verify": {"repository": "app"}})).await;
    let api: kube::Api<ClusterEcrPullSecret> = kube::Api::all(world.client.clone());
    let told = |object: &ClusterEcrPullSecret| {
        let status = object.status.clone().unwrap_or_default();
        let unverified = |message: &str| message.contains("not verified");
        status.secrets.as_deref() == Some("30/30")
            && status.conditions.iter().any(|one| one.reason == "Transient" && unverified(&one.message))
    };
    world.until(&api, &name, "30/30, not verified", told).await;
    assert!(looks(&world) < 30, "{} asked in vain", looks(&world));
    world.ecr.clear_faults();
    let ready = |object: &ClusterEcrPullSecret| {
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
    };
    world.until(&api, &name, "Ready", ready).await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 30, "nothing was fetched twice");
}
