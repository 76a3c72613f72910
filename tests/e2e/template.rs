//! `format: Template`: Secrets as other tools read them.

use std::collections::BTreeMap;
use std::path::Path;

use ecr_operator::api::EcrPullSecret;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::world::World;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn values(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.clone().unwrap_or_default();
    data.into_iter().map(|(key, value)| (key, String::from_utf8(value.0).unwrap())).collect()
}

/// An object of `deploy/examples`, at the registry of this world.
fn example(world: &World, file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples").join(file);
    let mut object: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    object["metadata"]["namespace"] = json!(world.namespace);
    object["spec"]["registries"] = json!([{"registryRef": {"name": world.registry}}]);
    object
}

async fn made(world: &World, file: &str) -> Secret {
    let object = example(world, file);
    world.apply(&object).await;
    let name = object["metadata"]["name"].as_str().unwrap();
    world.pull_secret_says(name, "True", "Ready").await;
    let secret = world.api::<Secret>().get(name).await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    secret
}

#[tokio::test]
async fn the_examples_give_argo_cd_jenkins_and_renovate_what_they_read() {
    let world = World::new("template").await;
    let label = |secret: &Secret, key: &str| secret.metadata.labels.as_ref().unwrap()[key].clone();

    let argo = made(&world, "template-argocd.yaml").await;
    assert_eq!(label(&argo, "argocd.argoproj.io/secret-type"), "repo-creds");
    let data = values(&argo);
    assert_eq!((data["url"].as_str(), data["username"].as_str(), data["enableOCI"].as_str()), (HOST, "AWS", "true"));
    let password = data["password"].clone();
    assert!(!password.is_empty());

    let jenkins = made(&world, "template-jenkins.yaml").await;
    assert_eq!(label(&jenkins, "jenkins.io/credentials-type"), "usernamePassword");
    assert_eq!(values(&jenkins)["password"], password, "one token for all");

    let renovate = made(&world, "template-renovate.yaml").await;
    let rules: Value = serde_json::from_str(&values(&renovate)["RENOVATE_HOST_RULES"]).unwrap();
    assert_eq!(rules, json!([{"hostType": "docker", "matchHost": HOST, "username": "AWS", "password": password}]));
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1);
}

#[tokio::test]
async fn a_template_secret_is_repaired_and_renewed_like_any_other() {
    let world = World::new("template-kept").await;
    world.ecr.set_token_lifetime(std::time::Duration::from_secs(6));
    let template = json!({"data": {"p": "{password}"}, "labels": {"a": "b"}, "annotations": {"c": "d"}});
    world.pull_secret("pull", json!({"format": "Template", "secretTemplate": template})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let secrets: Api<Secret> = world.api();
    let first = secrets.get("pull").await.unwrap();
    let of_template = |secret: &Secret| {
        let (labels, annotations) = (secret.metadata.labels.clone(), secret.metadata.annotations.clone());
        (labels.unwrap().get("a").cloned(), annotations.unwrap().get("c").cloned())
    };
    assert_eq!(of_template(&first), (Some("b".to_owned()), Some("d".to_owned())));
    let renewed =
        world.until(&secrets, "pull", "renewed", |secret: &Secret| values(secret)["p"] != values(&first)["p"]).await;
    assert_eq!(renewed.metadata.uid, first.metadata.uid);
    // A key that goes from the template goes from the Secret.
    let template = json!({"data": {"q": "{username}"}});
    world.pull_secret("pull", json!({"format": "Template", "secretTemplate": template})).await;
    let changed = |secret: &Secret| values(secret) == [("q".to_owned(), "AWS".to_owned())].into();
    let now = world.until(&secrets, "pull", "as the new template says", changed).await;
    assert_eq!(of_template(&now), (None, None));
}

#[tokio::test]
async fn more_hosts_than_one_are_refused_with_their_number() {
    let world = World::new("template-hosts").await;
    world.register(json!({"pull": {"regions": ["us-east-1", "eu-central-1"]}})).await;
    let template = json!({"data": {"p": "{password}"}});
    world.pull_secret("pull", json!({"format": "Template", "secretTemplate": template})).await;
    let told = world.pull_secret_says("pull", "False", "Invalid").await.status.unwrap().conditions[0].message.clone();
    assert!(told.contains("means 3"), "{told}");
    assert!(world.api::<Secret>().get_opt("pull").await.unwrap().is_none());
    let one = json!([{"registryRef": {"name": world.registry}, "regions": ["us-east-1"]}]);
    let object = json!({
        "apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrPullSecret",
        "metadata": {"name": "pull", "namespace": world.namespace},
        "spec": {"registries": one, "format": "Template", "secretTemplate": template},
    });
    world.apply(&object).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
}

#[tokio::test]
async fn a_secret_that_can_be_renewed_no_more_is_not_called_ready() {
    let world = World::new("template-outgrown").await;
    let template = json!({"data": {"p": "{password}"}});
    world.pull_secret("pull", json!({"format": "Template", "secretTemplate": template})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let before = world.api::<Secret>().get("pull").await.unwrap();
    world.register(json!({"pull": {"regions": ["us-east-1"]}})).await;
    let status = world.pull_secret_says("pull", "False", "Invalid").await.status.unwrap();
    assert!(status.conditions[0].message.contains("means 2"), "{:?}", status.conditions);
    assert!(status.expires_at.is_some(), "what is there goes on ageing");
    assert_eq!(world.api::<Secret>().get("pull").await.unwrap(), before);
}

#[tokio::test]
async fn whatever_is_changed_or_taken_off_is_put_back_without_asking_aws() {
    let world = World::new("template-stripped").await;
    let template =
        json!({"data": {"p": "{password}", "u": "{username}"}, "labels": {"a": "b"}, "annotations": {"c": "d"}});
    let secrets: Api<Secret> = world.api();
    let essence = |secret: &Secret| {
        let meta = secret.metadata.clone();
        (secret.data.clone(), meta.labels, meta.annotations, meta.owner_references, meta.uid)
    };
    // Each edits a Secret of its own: many edits of one within a minute are a contest.
    let edits = [
        json!([{"op": "remove", "path": "/metadata/labels/a"}]),
        json!([{"op": "replace", "path": "/metadata/labels/a", "value": "c"}]),
        json!([{"op": "remove", "path": "/metadata/annotations/c"}]),
        json!([{"op": "replace", "path": "/metadata/annotations/c", "value": "e"}]),
        json!([{"op": "remove", "path": "/metadata/ownerReferences"}]),
        json!([{"op": "replace", "path": "/metadata/ownerReferences/0/controller", "value": false}]),
        json!([{"op": "remove", "path": "/data/u"}]),
        json!([{"op": "remove", "path": "/metadata/annotations/ecr-operator.dev~1fields"}]),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let name = &format!("pull-{number}");
        world.pull_secret(name, json!({"format": "Template", "secretTemplate": template})).await;
        world.pull_secret_says(name, "True", "Ready").await;
        let first = secrets.get(name).await.unwrap();
        let patch = Patch::<Secret>::Json(serde_json::from_value(edit.clone()).unwrap());
        let edited = secrets.patch(name, &PatchParams::default(), &patch).await.unwrap();
        assert_ne!(essence(&edited), essence(&first), "{edit}");
        world.until(&secrets, name, &format!("as before {edit}"), |secret| essence(secret) == essence(&first)).await;
    }
    world.pull_secret("pull", json!({"format": "Template", "secretTemplate": template})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let before = secrets.get("pull").await.unwrap();
    world
        .pull_secret("pull", json!({"format": "Template", "secretTemplate": template, "restartStuckPods": false}))
        .await;
    world.pull_secret_says("pull", "True", "Ready").await;
    assert_eq!(
        secrets.get("pull").await.unwrap().metadata.managed_fields,
        before.metadata.managed_fields,
        "left alone"
    );
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1, "all from the token at hand");
}
