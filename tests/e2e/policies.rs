//! Repository and lifecycle policies as they change: what goes, what stays, and what is read back.

use ecr_operator::api::EcrRepository;
use kube::api::{Patch, PatchParams};
use local_ecr::{Action, Fault, Matcher};
use serde_json::{Value, json};

use crate::support::world::World;

stories! {
    every_kind_of_grant_and_statement_is_set_and_read_back_without_a_difference,
    statements_of_others_go_where_the_spec_says_so,
    a_text_that_gives_way_to_grants_takes_its_statements_along,
    a_text_that_is_dropped_takes_its_statements_along,
    a_policy_that_is_read_back_longer_than_it_may_be_written_is_no_difference,
    a_lifecycle_policy_outlives_its_block_and_the_event_says_so;
    but not on moto:
    a_statement_that_somebody_adds_during_the_pass_stays = "moto knows no faults",
}

async fn change(world: &World, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    world.api::<EcrRepository>().patch("app", &PatchParams::default(), &patch).await.unwrap();
    world.repository_says("app", "True", "Ready").await;
}

/// The statements that ECR holds.
fn statements(world: &World) -> Vec<Value> {
    let policy = world.there("app").unwrap().policy.unwrap_or_default();
    policy["Statement"].as_array().cloned().unwrap_or_default()
}

fn sids(world: &World) -> Vec<String> {
    let sid = |statement: &Value| statement["Sid"].as_str().unwrap_or_default().to_owned();
    statements(world).iter().map(sid).collect()
}

/// A look at everything finds nothing to do.
async fn is_settled(world: &World) {
    world.clear_calls();
    let api = world.api::<EcrRepository>();
    let last = api.get("app").await.unwrap().status.unwrap().last_handled_reconcile_at;
    world.again(&api, "app").await;
    let handled =
        |object: &EcrRepository| object.status.as_ref().is_some_and(|status| status.last_handled_reconcile_at != last);
    world.until(&api, "app", "handled", handled).await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(world.writes(), [""; 0]);
    assert!(world.operations().contains(&"GetRepositoryPolicy".to_owned()));
}

fn allow(sid: &str, account: &str) -> Value {
    json!({"Sid": sid, "Effect": "Allow", "Principal": {"AWS": account}, "Action": ["ecr:BatchGetImage"]})
}

async fn every_kind_of_grant_and_statement_is_set_and_read_back_without_a_difference(world: World) {
    let unit = "o-abcdefghij/r-ab12/ou-ab12-11111111/";
    let grants = json!([
        {"access": "Pull", "accounts": ["210987654321", "310987654321"], "orgPaths": [unit]},
        {"access": "Push", "organizations": ["o-abcdefghij"]},
        {"access": "LambdaPull", "accounts": ["210987654321"], "organizations": ["o-abcdefghij"]},
    ]);
    // A user's Sid may be what a grant's is, or what one without gets.
    let own = json!([
        {"Sid": "Pull1", "Effect": "Allow", "Principal": {"AWS": "410987654321"}, "Action": "ecr:DescribeImages"},
        {"Effect": "Deny", "Principal": "*", "Action": ["ecr:DeleteRepository"], "Condition": {"Bool": {"aws:SecureTransport": false}}},
        {"Sid": "Statement2", "Effect": "Allow", "Principal": {"AWS": "410987654321"}, "Action": "ecr:ListImages"},
    ]);
    world.repository("app", json!({"repositoryPolicy": {"grants": grants, "statements": own}})).await;
    world.repository_says("app", "True", "Ready").await;
    let set = statements(&world);
    assert_eq!(set.len(), 10);
    assert!(sids(&world).iter().all(|sid| sid.starts_with("EcrOperator")));
    let condition = |sid: &str| {
        let statement = set.iter().find(|statement| statement["Sid"] == sid).unwrap();
        statement["Condition"].clone()
    };
    assert_eq!(
        condition("EcrOperatorPull1OrgPath"),
        json!({"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": [unit]}}),
        "the unit itself, and none below it"
    );
    assert_eq!(
        condition("EcrOperatorLambdaPull3Service"),
        json!({"StringLike": {"aws:sourceArn": ["arn:aws:lambda:eu-west-1:210987654321:function:*"]}})
    );
    assert_eq!(
        condition("EcrOperatorLambdaPull3ServiceOrg"),
        json!({"StringEquals": {"aws:SourceOrgID": ["o-abcdefghij"]}})
    );
    is_settled(&world).await;
}

async fn statements_of_others_go_where_the_spec_says_so(world: World) {
    let grants = json!([{"access": "Pull", "accounts": ["210987654321"]}]);
    world.repository("app", json!({"repositoryPolicy": {"grants": grants, "foreignStatements": "Remove"}})).await;
    world.repository_says("app", "True", "Ready").await;
    let mut policy = world.there("app").unwrap().policy.unwrap();
    policy["Statement"].as_array_mut().unwrap().push(allow("theirs", "310987654321"));
    let body = json!({"repositoryName": "app", "policyText": policy.to_string()});
    world.behind_the_back("SetRepositoryPolicy", body);
    let api = world.api::<EcrRepository>();
    world.again(&api, "app").await;
    let repaired = |object: &EcrRepository| object.status.as_ref().is_some_and(|status| status.drift.is_some());
    let told = world.until(&api, "app", "repaired", repaired).await;
    let drift = told.status.unwrap().drift.unwrap();
    assert_eq!(drift.actions[0].detail, "remove statement: Allow ecr:batchgetimage to 310987654321");
    assert_eq!(sids(&world), ["EcrOperatorPull1"]);
}

/// With a policy of two statements that bear no mark of the operator.
async fn with_a_text(world: &World) {
    let statements = [allow("broad", "210987654321"), allow("broader", "310987654321")];
    let text = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    world.repository("app", json!({"repositoryPolicy": {"policyText": text}})).await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(sids(world), ["broad", "broader"]);
    is_settled(world).await;
}

async fn a_text_that_gives_way_to_grants_takes_its_statements_along(world: World) {
    with_a_text(&world).await;
    let grants = json!([{"access": "Pull", "accounts": ["410987654321"]}]);
    change(&world, json!({"repositoryPolicy": {"policyText": null, "grants": grants}})).await;
    assert_eq!(sids(&world), ["EcrOperatorPull1"], "nobody keeps access that is no longer declared");
    // From then on what others add is theirs again.
    let mut policy = world.there("app").unwrap().policy.unwrap();
    policy["Statement"].as_array_mut().unwrap().push(allow("theirs", "310987654321"));
    world.behind_the_back("SetRepositoryPolicy", json!({"repositoryName": "app", "policyText": policy.to_string()}));
    is_settled(&world).await;
    change(&world, json!({"repositoryPolicy": null})).await;
    assert_eq!(sids(&world), ["theirs"]);
}

async fn a_text_that_is_dropped_takes_its_statements_along(world: World) {
    with_a_text(&world).await;
    change(&world, json!({"repositoryPolicy": null})).await;
    assert!(world.there("app").unwrap().policy.is_none());
}

async fn a_policy_that_is_read_back_longer_than_it_may_be_written_is_no_difference(world: World) {
    // ECR prints policies in lines, and accounts as the ARNs of their roots.
    let accounts: Vec<_> = (0..600).map(|n| format!("{}", 210_987_654_321_u64 + n)).collect();
    let statement = json!({"Effect": "Allow", "Principal": {"AWS": accounts}, "Action": "ecr:BatchGetImage"});
    let text = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
    assert!(text.len() <= 10_240);
    world.repository("app", json!({"repositoryPolicy": {"policyText": text}})).await;
    world.repository_says("app", "True", "Ready").await;
    is_settled(&world).await;
}

async fn a_lifecycle_policy_outlives_its_block_and_the_event_says_so(world: World) {
    let rule = json!({"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 9}, "action": {"type": "expire"}});
    world.repository("app", json!({"lifecyclePolicy": {"rules": [rule]}})).await;
    world.repository_says("app", "True", "Ready").await;
    world.clear_calls();
    change(&world, json!({"lifecyclePolicy": null})).await;
    world.event("app", "Released").await;
    assert_eq!(world.writes(), [""; 0]);
    assert_eq!(world.there("app").unwrap().lifecycle_policy.unwrap()["rules"], json!([rule]));
    change(&world, json!({"lifecyclePolicy": {"rules": []}})).await;
    assert!(world.there("app").unwrap().lifecycle_policy.is_none(), "declared as empty is another thing");
    let told = world.events("app").await;
    assert_eq!(told.iter().filter(|reason| *reason == "Released").count(), 1, "{told:?}");
}

async fn a_statement_that_somebody_adds_during_the_pass_stays(world: World) {
    let grants = |account: &str| json!({"grants": [{"access": "Pull", "accounts": [account]}]});
    world.repository("app", json!({"repositoryPolicy": grants("210987654321")})).await;
    world.repository_says("app", "True", "Ready").await;
    // The pass still sees what was there before; by the time it writes, there is more.
    let mut policy = world.there("app").unwrap().policy.unwrap();
    let before = json!({"registryId": "123456789012", "repositoryName": "app", "policyText": policy.to_string()});
    policy["Statement"].as_array_mut().unwrap().push(allow("theirs", "310987654321"));
    world.behind_the_back("SetRepositoryPolicy", json!({"repositoryName": "app", "policyText": policy.to_string()}));
    let late = Action::Body { status: 200, body: before.to_string() };
    world.ecr.fault(Fault::once(Matcher::operation("GetRepositoryPolicy"), late.clone()));
    change(&world, json!({"imageTagMutability": "IMMUTABLE", "repositoryPolicy": grants("410987654321")})).await;
    assert_eq!(sids(&world), ["theirs", "EcrOperatorPull1"]);
    // Nor is the whole policy deleted under it.
    world.ecr.fault(Fault::once(Matcher::operation("GetRepositoryPolicy"), late));
    world.clear_calls();
    change(&world, json!({"imageTagMutability": "MUTABLE", "repositoryPolicy": null})).await;
    assert_eq!(sids(&world), ["theirs"]);
    assert_eq!(world.writes(), ["PutImageTagMutability", "SetRepositoryPolicy"]);
    assert_eq!(world.ecr.calls_of("GetRepositoryPolicy").len(), 2, "once to plan, once just before it is written");
}
