//! Identities on a real API server: roles that are assumed, and tokens of named ServiceAccounts.

use std::time::Duration;

use ecr_operator::api::EcrPullSecret;
use k8s_openapi::api::core::v1::Secret;
use local_ecr::Config;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::operator::{NAMESPACE, Operator};
use crate::support::pod_identity::PodIdentity;
use crate::support::world::{ACCOUNT, PATIENCE, REGION, World};

const ROLE: &str = "arn:aws:iam::123456789012:role/manager";

/// A role that trusts whom this statement names.
fn trust(world: &World, statement: &Value, issuer: &[&str]) {
    let everything = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let role = json!({"name": "manager", "trust": {"Statement": statement}, "policies": [everything]});
    let seed = json!({"accounts": [{"id": ACCOUNT, "roles": [role], "oidcProviders": issuer}]});
    world.ecr.seed(&serde_json::from_value(seed).unwrap()).unwrap();
}

/// A registry with this identity for all it does; tokens are cut down, as by default.
async fn register(world: &World, identity: &Value) {
    let spec = json!({
        "region": REGION, "endpoint": {"url": world.ecr.url()}, "identity": identity,
        "allow": [{"namespaces": {}, "manage": ["*"], "pull": ["*"]}],
    });
    world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": world.registry}, "spec": spec})).await;
}

/// The statement that a message tells to add.
fn told(message: &str) -> Value {
    let from = message.find('{').unwrap_or_else(|| panic!("no statement in: {message}"));
    serde_json::Deserializer::from_str(&message[from..]).into_iter::<Value>().next().unwrap().unwrap()
}

async fn refusal(world: &World, reason: &str) -> String {
    let object = world.registry_says("False", reason).await;
    let conditions = object.status.unwrap().conditions;
    conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap().message
}

#[tokio::test]
async fn a_role_is_assumed_and_what_it_lacks_is_told_word_for_word() {
    let world = World::without_registry("assume", Config::default()).await;
    let nobody = json!({"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"});
    trust(&world, &nobody, &[]);
    let source = json!({"accessKey": {"secretName": world.registry}});
    let assumed = json!({"assumeRole": {"roleArn": ROLE, "externalId": "word", "source": source}});
    register(&world, &assumed).await;
    let message = refusal(&world, "Denied").await;
    assert_eq!(told(&message)["Condition"]["StringEquals"]["sts:ExternalId"], "word", "{message}");
    assert_eq!(world.operations(), [""; 0], "as nobody else");

    // Added as it was told, and noticed without a restart.
    trust(&world, &told(&message), &[]);
    let status = world.registry_says("True", "Ready").await.status.unwrap();
    let arn = format!("arn:aws:sts::123456789012:assumed-role/manager/ecr-operator-{}", world.registry);
    assert_eq!(status.caller_arn.as_deref(), Some(arn.as_str()), "CloudTrail shows for which registry");
    world.repository("app", json!({})).await;
    world.repository_says("app", "True", "Ready").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
}

#[tokio::test]
async fn a_named_service_account_assumes_a_role_with_a_token_of_its_own() {
    let world = World::without_registry("web", Config::default()).await;
    let nobody = json!({"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"});
    trust(&world, &nobody, &[]);
    world.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "aws", "namespace": world.namespace}})).await;
    let account = json!({"namespace": world.namespace, "name": "aws"});
    register(&world, &json!({"webIdentity": {"roleArn": ROLE, "serviceAccountRef": account}})).await;
    let message = refusal(&world, "Denied").await;
    assert!(message.contains("serviceaccounts/token") && message.contains("[aws]"), "{message}");
    assert!(message.contains("serviceAccountTokens"), "the chart's value is named: {message}");

    // As the chart renders serviceAccountTokens.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "tokens", "namespace": world.namespace}, "rules": [{"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["aws"], "verbs": ["create"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "tokens", "namespace": world.namespace}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tokens"}, "subjects": [{"kind": "ServiceAccount", "name": "ecr-operator", "namespace": NAMESPACE}]});
    world.apply(&role).await;
    world.apply(&binding).await;
    let api: kube::Api<ecr_operator::api::EcrRegistry> = kube::Api::all(world.client.clone());
    let unknown = |object: &ecr_operator::api::EcrRegistry| {
        let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions.iter().any(|condition| condition.message.contains("InvalidIdentityToken"))
    };
    let object = world.until(&api, &world.registry, "refused by STS", unknown).await;
    let message = object.status.unwrap().conditions[0].message.clone();
    let statement = told(&message);
    let subject = format!("system:serviceaccount:{}:aws", world.namespace);
    assert!(statement.to_string().contains(&subject), "{message}");
    let provider = statement["Principal"]["Federated"].as_str().unwrap();
    let issuer = provider.split_once("oidc-provider/").unwrap().1.to_owned();
    trust(&world, &statement, &[&format!("https://{issuer}")]);
    world.registry_says("True", "Ready").await;
    world.ecr.clear_calls();
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let calls = world.ecr.calls_of("AssumeRoleWithWebIdentity");
    assert!(calls.iter().any(|call| call.request.to_string().contains("ecr:BatchGetImage")), "minted within a policy");
    assert!(world.ecr.calls_of("AssumeRole").is_empty(), "nothing is chained");
}

#[tokio::test]
async fn a_role_is_assumed_by_a_named_service_account_and_both_trust_no_more_than_that() {
    let world = World::without_registry("websource", Config::default()).await;
    let issuer = "kubernetes.default.svc";
    let metadata = json!({"name": "aws", "namespace": world.namespace});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [{"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["aws"], "verbs": ["create"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "aws"}, "subjects": [{"kind": "ServiceAccount", "name": "ecr-operator", "namespace": NAMESPACE}]});
    for object in [json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}), role, binding] {
        world.apply(&object).await;
    }
    let subject = format!("system:serviceaccount:{}:aws", world.namespace);
    let provider = format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer}");
    let claims = json!({format!("{issuer}:sub"): subject, format!("{issuer}:aud"): "sts.amazonaws.com"});
    let web = json!({"Statement": {"Effect": "Allow", "Principal": {"Federated": provider}, "Action": "sts:AssumeRoleWithWebIdentity", "Condition": {"StringEquals": claims}}});
    let first = format!("arn:aws:iam::{ACCOUNT}:role/first");
    let chained = json!({"Statement": {"Effect": "Allow", "Principal": {"AWS": first}, "Action": "sts:AssumeRole"}});
    let may = |action: &str| json!({"Statement": {"Effect": "Allow", "Action": action, "Resource": "*"}});
    let roles = json!([
        {"name": "first", "trust": web, "policies": [may("sts:AssumeRole")]},
        {"name": "manager", "trust": chained, "policies": [may("*")]},
    ]);
    let seed = json!({"accounts": [{"id": ACCOUNT, "roles": roles, "oidcProviders": [format!("https://{issuer}")]}]});
    world.ecr.seed(&serde_json::from_value(seed).unwrap()).unwrap();

    let account = json!({"namespace": world.namespace, "name": "aws"});
    let source = json!({"webIdentity": {"roleArn": first, "serviceAccountRef": account}});
    register(&world, &json!({"assumeRole": {"roleArn": ROLE, "source": source}})).await;
    world.registry_says("True", "Ready").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let roles = |operation| {
        let calls = world.ecr.calls_of(operation);
        calls.into_iter().map(|call| call.resource).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(roles("AssumeRoleWithWebIdentity"), [first.clone()].into(), "the source is used for nothing else");
    assert_eq!(roles("AssumeRole"), [ROLE.to_owned()].into());
    let policies = world.ecr.calls_of("AssumeRole").into_iter().filter(|call| call.request["Policy"].is_string());
    assert_eq!(policies.count(), 1, "the token is signed within a policy");
}

/// A user of `account` who may do everything; returns the identity that its key is.
async fn user(world: &World, account: &str, name: &str) -> Value {
    let everything = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let key = format!("AKIA{}", name.to_uppercase());
    let user = json!({"name": name, "accessKey": key, "secretKey": "s", "policies": [everything]});
    world.ecr.seed(&serde_json::from_value(json!({"accounts": [{"id": account, "users": [user]}]})).unwrap()).unwrap();
    let secret = format!("{}-{name}", world.registry);
    world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret, "namespace": NAMESPACE}, "stringData": {"accessKeyId": key, "secretAccessKey": "s"}})).await;
    json!({"accessKey": {"secretName": secret}})
}

#[tokio::test]
async fn tokens_are_minted_whether_or_not_repositories_can_be_managed_unless_that_is_another_account() {
    let world = World::without_registry("apart", Config::default()).await;
    world.ecr.set_token_lifetime(Duration::from_secs(6));
    let puller = user(&world, ACCOUNT, "puller").await;
    let nobody = format!("{}-elsewhere", world.registry);
    let manager = json!({"accessKey": {"secretName": nobody}});
    world.register(json!({"identity": manager, "pull": {"identity": puller}})).await;
    let told = world.registry_says("False", "Denied").await.status.unwrap();
    assert_eq!(told.account_id.as_deref(), Some(ACCOUNT), "pinned all the same");
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    world.ecr.clear_calls();
    world.ecr.wait_for_calls(2, PATIENCE, |call| call.operation == "GetAuthorizationToken").await;
    world.pull_secret_says("pull", "True", "Ready").await;
    assert_eq!(world.operations().iter().filter(|name| *name != "GetAuthorizationToken").count(), 0);

    user(&world, "210987654321", "elsewhere").await;
    world.registry_says("False", "AccountMismatch").await;
    let stopped = |object: &EcrPullSecret| {
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.message.contains("210987654321"))
    };
    world.until(&world.api::<EcrPullSecret>(), "pull", "stopped", stopped).await;
    world.ecr.clear_calls();
    world.pull_secret_says("pull", "False", "Expired").await;
    assert_eq!(world.operations(), [""; 0]);
}

#[tokio::test]
async fn a_host_that_two_registries_have_different_tokens_for_is_refused_also_while_one_cannot_be_used() {
    let world = World::new("claims").await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let before = world.api::<Secret>().get("pull").await.unwrap();
    let other = format!("{}-other", world.registry);
    let another = user(&world, ACCOUNT, "another").await;
    let spec = json!({
        "region": REGION, "endpoint": {"url": world.ecr.url()}, "identity": another, "pull": {"scopeTokens": "Never"},
        "allow": [{"namespaces": {}, "pull": ["*"]}],
    });
    world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": other}, "spec": spec})).await;
    world.register(json!({"identity": {"accessKey": {"secretName": "no-such-key"}}})).await;
    world.registry_says("False", "Denied").await;
    world.ecr.clear_calls();
    let both = json!([{"registryRef": {"name": world.registry}}, {"registryRef": {"name": other}}]);
    world.pull_secret("pull", json!({"registries": both})).await;
    let refused = |object: &EcrPullSecret| {
        let failed = object.status.as_ref().and_then(|status| status.namespaces.as_ref());
        failed.is_some_and(|namespaces| {
            let told = |reason: &str| [&world.registry, &other].iter().all(|name| reason.contains(name.as_str()));
            namespaces.failed.iter().any(|failed| failed.reason.starts_with("Invalid: ") && told(&failed.reason))
        })
    };
    world.until(&world.api::<EcrPullSecret>(), "pull", "refused", refused).await;
    assert_eq!(
        world.api::<Secret>().get("pull").await.unwrap().data,
        before.data,
        "a valid token is never overwritten"
    );

    world.register(json!({})).await;
    let message =
        world.pull_secret_says("pull", "False", "Invalid").await.status.unwrap().conditions[0].message.clone();
    assert!(message.contains(&format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com")), "{message}");
    assert!(world.ecr.calls_of("GetAuthorizationToken").is_empty());
    assert_eq!(world.api::<Secret>().get("pull").await.unwrap().data, before.data);
}

#[tokio::test]
async fn registries_that_mint_as_one_role_share_the_token_of_their_host() {
    let world = World::without_registry("shared", Config::default()).await;
    trust(&world, &json!({"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}), &[]);
    let source = json!({"accessKey": {"secretName": world.registry}});
    let names = [world.registry.clone(), format!("{}-other", world.registry)];
    for name in &names {
        let spec = json!({
            "region": REGION, "endpoint": {"url": world.ecr.url()}, "identity": {"assumeRole": {"roleArn": ROLE, "source": source}},
            "allow": [{"namespaces": {}, "pull": ["*"]}],
        });
        world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": name}, "spec": spec})).await;
    }
    let both = names.clone().map(|name| json!({"registryRef": {"name": name}}));
    world.pull_secret("pull", json!({"registries": both})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1, "one token, whoever of them asks for it");
    let sessions: std::collections::BTreeSet<_> =
        world.ecr.calls_of("AssumeRole").iter().map(|call| call.request["RoleSessionName"].to_string()).collect();
    assert_eq!(sessions.len(), 2, "CloudTrail shows for which registry: {sessions:?}");
}

#[tokio::test]
async fn another_role_behind_the_pods_own_identity_means_new_tokens_at_once() {
    let cluster = Cluster::start("control-plane").await;
    // Its namespace and ServiceAccount are there once an operator was.
    Operator::start(&cluster, "installer").await.stop();
    let world = World::bare(&cluster, "ambient", Config::default()).await;
    let pod = PodIdentity::associate(&cluster, &world).await;
    world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": world.registry}, "spec": {
        "region": REGION, "endpoint": {"url": world.ecr.url()}, "identity": {"ambient": {}}, "pull": {"scopeTokens": "Never"},
        "allow": [{"namespaces": {}, "pull": ["*"]}],
    }})).await;
    let first = Operator::start_with(&cluster, "first", &pod.environment()).await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    first.stop();
    let before = world.api::<Secret>().get("pull").await.unwrap();

    PodIdentity::hand_out(&world, "newcomer");
    world.ecr.clear_calls();
    let _second = Operator::start_with(&cluster, "second", &pod.environment()).await;
    let renewed = |secret: &Secret| secret.data != before.data;
    world.until(&world.api::<Secret>(), "pull", "of the other role", renewed).await;
    let by_newcomer = |object: &EcrPullSecret| {
        let registries = object.status.iter().flat_map(|status| &status.registries);
        registries.into_iter().any(|one| one.caller_arn.as_ref().is_some_and(|arn| arn.contains("/newcomer/")))
    };
    world.until(&world.api::<EcrPullSecret>(), "pull", "told", by_newcomer).await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1);
}
