//! Tokens cut down to what `allow` gives, tried at the registry that the local ECR guards.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::world::{ACCOUNT, REGION, World};

pub const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

async fn auth(world: &World, name: &str) -> String {
    let secret = world.api::<Secret>().get(name).await.unwrap();
    let document: Value = serde_json::from_slice(&secret.data.unwrap()[".dockerconfigjson"].0).unwrap();
    document["auths"][HOST]["auth"].as_str().unwrap().to_owned()
}

/// What the registry answers to whoever holds `auth`.
pub async fn registry(world: &World, auth: &str, method: &str, path: &str) -> u16 {
    let url = world.ecr.url();
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic {auth}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

async fn world(name: &str) -> World {
    let world = World::new(name).await;
    let repository = |name: &str| json!({"account": ACCOUNT, "region": REGION, "name": name, "images": [["v1"]]});
    let seed = json!({"repositories": [repository("team-a/app"), repository("team-b/app")]});
    world.ecr.seed(&serde_json::from_value(seed).unwrap()).unwrap();
    world
}

#[tokio::test]
async fn a_pull_token_pulls_what_the_namespace_may_and_nothing_else() {
    let world = world("scopepull").await;
    world.register(json!({"pull": {"scopeTokens": "Required"}, "allow": [{"namespaces": {}, "pull": ["team-a/*"], "push": ["*"]}]})).await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let auth = auth(&world, "pull").await;
    assert!(BASE64_STANDARD.decode(&auth).unwrap().starts_with(b"AWS:"));
    assert_eq!(registry(&world, &auth, "GET", "/v2/team-a/app/manifests/v1").await, 200);
    assert_eq!(registry(&world, &auth, "GET", "/v2/team-b/app/manifests/v1").await, 403);
    assert_eq!(registry(&world, &auth, "POST", "/v2/team-a/app/blobs/uploads/").await, 403, "it can't push");
}

#[tokio::test]
async fn a_token_is_cut_down_further_to_what_is_asked() {
    let world = world("scopeask").await;
    world
        .register(json!({"pull": {"scopeTokens": "Required"}, "allow": [{"namespaces": {}, "pull": ["*/app"]}]}))
        .await;
    let asked = json!([{"registryRef": {"name": world.registry}, "repositories": ["team-a/*"]}]);
    let object = json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrPullSecret", "metadata": {"name": "pull", "namespace": world.namespace}, "spec": {"registries": asked}});
    world.apply(&object).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let auth = auth(&world, "pull").await;
    assert_eq!(registry(&world, &auth, "GET", "/v2/team-a/app/manifests/v1").await, 200);
    assert_eq!(registry(&world, &auth, "GET", "/v2/team-b/app/manifests/v1").await, 403);
}

#[tokio::test]
async fn nobody_pushes_until_somebody_may_mint_for_it_and_then_only_where_allowed() {
    let world = world("scopepush").await;
    let allow = json!([{"namespaces": {}, "pull": ["*"], "push": ["team-a/*"]}]);
    world.register(json!({"allow": allow})).await;
    world.pull_secret("push", json!({"access": "Push"})).await;
    let told = world.pull_secret_says("push", "False", "NotAllowed").await;
    assert!(told.status.unwrap().conditions[0].message.contains("spec.push.identity"));
    assert!(world.ecr.calls_of("GetAuthorizationToken").is_empty());

    let identity = json!({"accessKey": {"secretName": world.registry}});
    let pull = json!({"accounts": ["210987654321"], "regions": ["us-east-1"]});
    world.register(json!({"allow": allow, "push": {"identity": identity}, "pull": pull})).await;
    let status = world.pull_secret_says("push", "True", "Ready").await.status.unwrap();
    assert_eq!(status.registries.len(), 1, "what may be pulled elsewhere isn't pushed there: {:?}", status.registries);
    let auth = auth(&world, "push").await;
    let push =
        async |repository: &str| registry(&world, &auth, "POST", &format!("/v2/{repository}/blobs/uploads/")).await;
    assert_ne!(push("team-a/app").await, 403);
    assert_eq!(push("team-b/app").await, 403);
    assert_eq!(registry(&world, &auth, "GET", "/v2/team-a/app/manifests/v1").await, 200);
    assert_eq!(registry(&world, &auth, "GET", "/v2/team-b/app/manifests/v1").await, 403, "push is a scope of its own");
}

#[tokio::test]
async fn namespaces_with_all_rights_share_one_token_and_others_get_their_own() {
    let world = world("scopeshare").await;
    world.register(json!({"pull": {"scopeTokens": "Required"}, "allow": [{"namespaces": {}, "pull": ["*"]}]})).await;
    for suffix in ["one", "two", "three"] {
        world.selected_namespace(suffix).await;
    }
    let name = world.namespace.clone();
    world.cluster_pull_secret(&name, json!({"secretName": "pull"})).await;
    let api: kube::Api<ecr_operator::api::ClusterEcrPullSecret> = kube::Api::all(world.client.clone());
    let served = |object: &ecr_operator::api::ClusterEcrPullSecret| {
        object.status.as_ref().is_some_and(|status| status.secrets.as_deref() == Some("3/3"))
    };
    world.until(&api, &name, "3/3", served).await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1);
}

#[tokio::test]
async fn a_scope_without_room_in_a_policy_is_told_with_the_number() {
    let world = world("scopelong").await;
    let globs: Vec<_> = (0..60).map(|number| format!("team-{number}/*")).collect();
    world.register(json!({"pull": {"scopeTokens": "Required"}, "allow": [{"namespaces": {}, "pull": globs}]})).await;
    world.pull_secret("pull", json!({})).await;
    let told = world.pull_secret_says("pull", "False", "Invalid").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("2048"), "{message}");
    assert!(world.ecr.calls_of("GetAuthorizationToken").is_empty());
}

#[tokio::test]
async fn repositories_are_not_asked_for_in_vain_where_tokens_are_never_cut_down() {
    let world = world("scopenever").await;
    world.register(json!({"allow": [{"namespaces": {}, "pull": ["*"]}]})).await;
    let asked = json!([{"registryRef": {"name": world.registry}, "repositories": ["team-a/*"]}]);
    world.pull_secret("pull", json!({"registries": asked})).await;
    let told = world.pull_secret_says("pull", "False", "ScopeUnavailable").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("scopeTokens"), "{message}");
    assert!(world.ecr.calls_of("GetAuthorizationToken").is_empty(), "nothing wider is asked for instead");
    assert!(world.api::<Secret>().get_opt("pull").await.unwrap().is_none());
}

#[tokio::test]
async fn ecr_public_is_one_host_with_a_token_of_its_own_from_the_one_region_that_has_it() {
    let world = world("scopepublic").await;
    world
        .register(json!({"pull": {"scopeTokens": "Required"}, "allow": [{"namespaces": {}, "pull": ["team-a/*"]}]}))
        .await;
    let registries = json!([{"registryRef": {"name": world.registry}, "public": {}}]);
    world.pull_secret("pull", json!({"registries": registries})).await;
    let status = world.pull_secret_says("pull", "True", "Ready").await.status.unwrap();
    assert_eq!(status.registries.iter().map(|one| one.host.as_str()).collect::<Vec<_>>(), ["public.ecr.aws"]);

    let secret = world.api::<Secret>().get("pull").await.unwrap();
    let document: Value = serde_json::from_slice(&secret.data.unwrap()[".dockerconfigjson"].0).unwrap();
    let auths = document["auths"].as_object().unwrap();
    assert_eq!(auths.keys().collect::<Vec<_>>(), ["public.ecr.aws"]);
    let login = BASE64_STANDARD.decode(auths["public.ecr.aws"]["auth"].as_str().unwrap()).unwrap();
    assert!(login.starts_with(b"AWS:"));

    let asked = world.ecr.calls_of("GetAuthorizationToken");
    let whom: Vec<_> = asked.iter().map(|call| (call.service.as_str(), call.region.as_str())).collect();
    assert_eq!(whom, [("ecr-public", "us-east-1")]);
    let minted = world.ecr.calls_of("GetFederationToken");
    let policy: Value = serde_json::from_str(minted[0].request["Policy"].as_str().unwrap()).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let mut actions: Vec<_> = statements.iter().flat_map(|statement| statement["Action"].as_array().unwrap()).collect();
    actions.sort_by_key(ToString::to_string);
    assert_eq!(actions, ["ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"]);
}
