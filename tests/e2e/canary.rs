//! Everything at TRACE, and then a search for anything secret in all that the operator says.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ecr_operator::api::EcrPullSecret;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams};
use local_ecr::{Action, Config, Fault, Matcher};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::operator::{Operator, get};
use crate::support::pod_identity::PodIdentity;
use crate::support::world::World;

const SECRET_KEY: &str = "canary/secret+access/key0123456789abcdef";

/// All forms in which what is in a Secret could be said.
fn forms(secret: &Secret) -> Vec<String> {
    let document = &secret.data.as_ref().unwrap()[".dockerconfigjson"].0;
    let parsed: Value = serde_json::from_slice(document).unwrap();
    let entries = parsed["auths"].as_object().unwrap().values().filter_map(|entry| entry["auth"].as_str());
    let mut forms = vec![BASE64_STANDARD.encode(document)];
    for auth in entries {
        let pair = String::from_utf8(BASE64_STANDARD.decode(auth).unwrap()).unwrap();
        let password = pair.strip_prefix("AWS:").unwrap().to_owned();
        forms.extend([auth.to_owned(), BASE64_STANDARD.encode(&password), password]);
    }
    forms
}

#[tokio::test]
async fn nothing_secret_is_said_anywhere_even_at_trace() {
    let cluster = Cluster::start("control-plane").await;
    Operator::start(&cluster, "installer").await.stop();
    let mut config = Config::default();
    config.secret_key = SECRET_KEY.to_owned();
    let world = World::bare(&cluster, "canary", config).await;
    // An identity with sessions beside the access key.
    let pod = PodIdentity::associate(&cluster, &world).await;
    let environment = [&pod.environment()[..], &[("ECR_OPERATOR_LOG", "trace"), ("RUST_BACKTRACE", "full")]].concat();
    let operator = Operator::start_with(&cluster, "operator", &environment).await;

    // Success, renewal, refusal, garbage, silence.
    let mut secrets = BTreeSet::new();
    let api: Api<Secret> = world.api();
    let ambient = format!("{}-ambient", world.registry);
    world.register(json!({})).await;
    world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": ambient}, "spec": {
        "region": "eu-west-1", "endpoint": {"url": world.ecr.url()}, "identity": {"ambient": {}}, "pull": {"scopeTokens": "Never"},
        "allow": [{"namespaces": {}, "pull": ["*"]}],
    }})).await;
    world.repository("app", json!({"tags": {"a": "b"}})).await;
    world.repository_says("app", "True", "Ready").await;
    world.pull_secret("pull", json!({"verify": {"repository": "app"}, "serviceAccounts": ["*"]})).await;
    world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrPullSecret", "metadata": {"name": "session", "namespace": world.namespace}, "spec": {
        "registries": [{"registryRef": {"name": ambient}}], "verify": {"repository": "app"},
    }})).await;
    for name in ["pull", "session"] {
        world.pull_secret_says(name, "True", "Ready").await;
        secrets.extend(forms(&api.get(name).await.unwrap()));
    }
    let pull_secrets = world.api::<EcrPullSecret>();
    let anew = async |told: &'static str| {
        world.again(&pull_secrets, "pull").await;
        let says = |object: &EcrPullSecret| {
            let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
            conditions.any(|condition| condition.type_ == "Ready" && condition.message.contains(told))
        };
        world.until(&pull_secrets, "pull", told, says).await;
    };
    let any = || Matcher::operation("GetAuthorizationToken");
    world.ecr.fault(Fault::always(any(), Action::Cut));
    anew("GetAuthorizationToken").await;
    world.ecr.clear_faults();
    world.ecr.fault(Fault::always(any(), Action::Before { code: "AccessDeniedException".into(), status: 400 }));
    anew("AccessDeniedException").await;
    world.ecr.clear_faults();
    let garbage = r#"{"authorizationData":[{"authorizationToken":"Z2FyYmFnZQ==","expiresAt":4102444800}]}"#;
    world.ecr.fault(Fault::always(any(), Action::Body { status: 200, body: garbage.into() }));
    anew("unknown form").await;
    world.ecr.clear_faults();
    world
        .ecr
        .fault(Fault::always(Matcher::operation("GetManifest"), Action::Before { code: "DENIED".into(), status: 403 }));
    anew("refuses to show app").await;
    world.ecr.clear_faults();
    anew("hold a valid token").await;
    secrets.extend(forms(&api.get("pull").await.unwrap()));
    pull_secrets.delete("session", &DeleteParams::default()).await.unwrap();
    world.until_gone(&pull_secrets, "session").await;

    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig().with_file_name("operator.kubeconfig")).unwrap();
    let bearer = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap().to_owned();
    secrets.extend([
        SECRET_KEY.to_owned(),
        BASE64_STANDARD.encode(SECRET_KEY),
        pod.token,
        bearer,
        "Z2FyYmFnZQ==".into(),
    ]);

    let metrics = get(&operator.address, "/metrics").await.unwrap();
    let mut said = format!("{}\n{metrics}\n", operator.logged());
    for kinds in ["events", "ecr,namespaces,serviceaccounts"] {
        let objects =
            cluster.kubectl(&["get", kinds, "--all-namespaces", "-o", "json", "--show-managed-fields"], "").await;
        assert!(objects.ok, "{}", objects.text);
        write!(said, "{}", objects.text).unwrap();
    }
    let ours = cluster
        .kubectl(
            &["get", "secrets", "-A", "-l", "ecr-operator.dev/owner-uid", "-o", "jsonpath={.items[*].metadata}"],
            "",
        )
        .await;
    said.push_str(&ours.text);
    for told in ["\"level\":\"WARN\"", "new token", "ecr-operator.dev/expires-at", "pull_secret_expiry_timestamp"] {
        assert!(said.contains(told), "this search would find nothing: {told} isn't in what was said");
    }
    for secret in secrets {
        // As JSON strings it would be said with the same characters: none of them is escaped.
        assert!(secret.len() > 8 && !said.contains(&secret), "said: {}…", &secret[..8]);
    }
}
