//! The definitions as a whole: the API server takes them, and shows what they promise.

use ecr_operator::cli::crds::render;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;

use crate::support::cluster::Cluster;

#[tokio::test]
async fn kubectl_applies_what_is_printed_and_nothing_is_amiss() {
    let cluster = Cluster::shared().await;
    let applied =
        cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &render().unwrap()).await;
    assert!(applied.ok, "{}", applied.text);
    assert!(!applied.text.contains("Warning"), "{}", applied.text);
    // Client-side apply keeps the whole text in an annotation, which must not be too long.
    let applied = cluster.kubectl(&["apply", "-f", "-"], &render().unwrap()).await;
    assert!(applied.ok, "{}", applied.text);

    let api = Api::<CustomResourceDefinition>::all(cluster.client().await);
    for crd in ecr_operator::api::all_crds().unwrap() {
        let name = crd.metadata.name.unwrap();
        let conditions = api.get(&name).await.unwrap().status.unwrap().conditions.unwrap();
        let is =
            |type_: &str| conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True");
        assert!(is("Established") && is("NamesAccepted") && !is("NonStructuralSchema"), "{name}: {conditions:?}");
    }
}

#[tokio::test]
async fn one_word_shows_all_kinds_with_their_columns() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("columns").await;
    let manifests = "
        {apiVersion: ecr-operator.dev/v1alpha1, kind: EcrRepository, metadata: {name: shown}, spec: {}}
        ---
        {apiVersion: ecr-operator.dev/v1alpha1, kind: EcrPullSecret, metadata: {name: shown}, spec: {}}
        ---
        {apiVersion: ecr-operator.dev/v1alpha1, kind: EcrRegistry, metadata: {name: shown}, spec: {region: eu-west-1}}
        ---
        {apiVersion: ecr-operator.dev/v1alpha1, kind: ClusterEcrPullSecret, metadata: {name: shown}, spec: {namespaceSelector: {}}}
    "
    .replace("        ", "");
    let applied = cluster.kubectl(&["apply", "-n", &namespace, "-f", "-"], &manifests).await;
    assert!(applied.ok, "{}", applied.text);

    let shown = cluster.kubectl(&["get", "ecr", "-n", &namespace], "").await.text;
    for kind in ["ecrregistry", "ecrrepository", "ecrpullsecret", "clusterecrpullsecret"] {
        assert!(shown.contains(&format!("{kind}.ecr-operator.dev/shown")), "{shown}");
    }
    let columns = async |arguments: &[&str]| {
        let shown = cluster.kubectl(&[&["get", "-n", &namespace], arguments].concat(), "").await;
        let header = shown.text.lines().next().unwrap_or_default().to_owned();
        header.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(columns(&["ecrrepo"]).await, "NAME READY REASON URI TAGS AGE");
    assert_eq!(
        columns(&["ecrrepo", "-o", "wide"]).await,
        "NAME READY REASON URI TAGS REGISTRY REGION POLICY DRIFT AGE"
    );
    assert_eq!(columns(&["ecrps"]).await, "NAME READY SECRETS EXPIRES REFRESH AGE");
    assert_eq!(columns(&["cecrps"]).await, "NAME READY SECRETS EXPIRES REFRESH AGE");
    assert_eq!(columns(&["ecrreg"]).await, "NAME READY REASON ACCOUNT REGION REPOSITORIES AGE");

    let of_default =
        ["get", "ecrrepo", "-n", &namespace, "-o", "name", "--field-selector", "spec.registryRef.name=default"];
    assert!(cluster.kubectl(&of_default, "").await.text.contains("/shown"));
    let explained = cluster.kubectl(&["explain", "ecrrepository.spec.deletionPolicy"], "").await;
    assert!(explained.ok && explained.text.contains("Retain"), "{}", explained.text);
    cluster.kubectl(&["delete", "ecrreg,cecrps", "shown"], "").await;
}
