//! What is in other people's Secrets never reaches the operator's process.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use local_ecr::Config;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::operator::{NAMESPACE, Operator};
use crate::support::proxy::Proxy;
use crate::support::world::World;

const THEIRS: &str = r#"{"auths":{"example.com":{"auth":"bm9ib2R5OnJlYWRzLXRoaXM="}}}"#;

#[tokio::test]
async fn no_data_of_a_foreign_secret_reaches_the_process() {
    let cluster = Cluster::start("control-plane").await;
    Operator::start(&cluster, "installer").await.stop();
    let proxy = Proxy::start(&cluster).await;
    let world = World::bare(&cluster, "unread", Config::default()).await;
    let kubeconfig = proxy.kubeconfig.to_str().unwrap();
    let _operator = Operator::start_with(&cluster, "operator", &[("KUBECONFIG", kubeconfig)]).await;
    world.register(json!({})).await;
    world.registry_says("True", "Ready").await;

    // One of nobody's concern, and one where ours is to be.
    let theirs = BASE64_STANDARD.encode(THEIRS);
    let foreign = |name: &str, labels: serde_json::Value| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": name, "namespace": world.namespace, "labels": labels},
            "data": {".dockerconfigjson": theirs},
        })
    };
    world.apply(&foreign("other", json!({}))).await;
    world.apply(&foreign("taken", json!({}))).await;
    world.pull_secret("taken", json!({})).await;
    world.pull_secret_says("taken", "False", "SecretConflict").await;
    // A copy that bears our label, and an edit of ours.
    world.pull_secret("pull", json!({"serviceAccounts": ["*"]})).await;
    let served = world.pull_secret_says("pull", "True", "Ready").await;
    world.apply(&foreign("copy", json!({"ecr-operator.dev/owner-uid": served.uid().unwrap()}))).await;
    let api: Api<Secret> = world.api();
    let edit = Patch::Merge(json!({"data": {".dockerconfigjson": theirs}}));
    let edited = api.patch("pull", &PatchParams::default(), &edit).await.unwrap();
    let repaired = |secret: &Secret| {
        secret.resource_version() != edited.resource_version()
            && secret.data.as_ref().is_some_and(|data| data[".dockerconfigjson"].0 != THEIRS.as_bytes())
    };
    world.until(&api, "pull", "repaired", repaired).await;
    world.pull_secret_says("pull", "True", "Ready").await;

    let exchanges = proxy.exchanges();
    let named = BASE64_STANDARD.encode(Config::default().secret_key);
    assert!(exchanges.iter().any(|exchange| exchange.told(&named)), "the named access key is read: answers are kept");
    for exchange in exchanges {
        assert!(!exchange.told(&theirs), "{} {}", exchange.method, exchange.uri);
        let of_secrets = exchange.uri.contains("/secrets");
        let named = exchange.uri.starts_with(&format!("/api/v1/namespaces/{NAMESPACE}/secrets"))
            && exchange.uri.contains(&world.registry);
        let only_metadata = exchange.accept.contains("as=PartialObjectMetadata");
        assert!(!of_secrets || named || only_metadata, "{} {} {}", exchange.method, exchange.uri, exchange.accept);
    }
}
