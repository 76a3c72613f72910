//! With hundreds of namespaces whatever goes wrong is repaired at once, from the token at hand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{LocalObjectReference, Namespace, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::operator::Operator;
use crate::support::world::{ACCOUNT, World};

const NAMESPACES: usize = 500;
/// For all of them to be made and served, on a busy machine.
const FOR_ALL: Duration = Duration::from_mins(3);

fn label(world: &World, wanted: bool) -> Patch<Value> {
    let value = if wanted { json!(world.namespace) } else { json!(null) };
    Patch::Merge(json!({"metadata": {"labels": {"world": value}}}))
}

fn names_ours(account: &ServiceAccount) -> bool {
    account.image_pull_secrets.iter().flatten().any(|entry| entry.name == "pull")
}

fn is_ours(secret: &Secret) -> bool {
    secret.labels().contains_key("ecr-operator.dev/owner-uid")
}

/// Tells how long it took; nothing is asserted of that.
#[expect(clippy::print_stderr, reason = "for whoever runs the tests")]
async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = work.await;
    eprintln!("{what}: {} ms", started.elapsed().as_millis());
    done
}

#[tokio::test]
async fn with_five_hundred_namespaces_every_mishap_is_repaired_at_once_without_a_call() {
    let cluster = Cluster::start("control-plane").await;
    let _operator = Operator::start(&cluster, "operator").await;
    let world = World::at(&cluster, "many").await;
    world.cluster_pull_secret("many", json!({"secretName": "pull", "serviceAccounts": ["default", "builder"]})).await;
    let made = async {
        let names: Vec<_> = (0..NAMESPACES).map(|number| format!("n{number}")).collect();
        let make = names.iter().map(|name| world.selected_namespace(name));
        futures::stream::iter(make).buffer_unordered(16).collect::<Vec<_>>().await;
        world.secrets_are("many", &format!("{NAMESPACES}/{NAMESPACES}"), FOR_ALL).await;
    };
    timed("500 namespaces made and served", made).await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1, "one token for all");
    world.ecr.clear_calls();

    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let params = PatchParams::default();
    let created = async {
        let name = world.selected_namespace("new").await;
        world.until(&Api::namespaced(world.client.clone(), &name), "pull", "there", is_ours).await;
        name
    };
    let name = timed("namespace created", created).await;
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &name);
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), &name);
    world.until(&accounts, "default", "with our Secret", names_ours).await;
    let deselected = async {
        namespaces.patch(&name, &params, &label(&world, false)).await.unwrap();
        world.until_gone(&secrets, "pull").await;
        world.until(&accounts, "default", "without our Secret", |account| !names_ours(account)).await;
    };
    timed("namespace deselected", deselected).await;
    let selected = async {
        namespaces.patch(&name, &params, &label(&world, true)).await.unwrap();
        world.until(&secrets, "pull", "there again", is_ours).await
    };
    let secret = timed("namespace relabelled", selected).await;
    let deleted = async {
        secrets.delete("pull", &DeleteParams::default()).await.unwrap();
        world.until(&secrets, "pull", "back", |now: &Secret| now.meta().uid != secret.meta().uid && is_ours(now)).await
    };
    let secret = timed("Secret deleted", deleted).await;
    let mut spoilt = secret.data.clone().unwrap();
    spoilt.get_mut(".dockerconfigjson").unwrap().0.push(b' ');
    let edited = async {
        secrets.patch("pull", &params, &Patch::Merge(json!({"data": spoilt}))).await.unwrap();
        world.until(&secrets, "pull", "repaired", |now: &Secret| now.data == secret.data).await;
    };
    timed("Secret edited by one byte", edited).await;
    let stripped = async {
        let strip = Patch::Merge(json!({"metadata": {"labels": {"ecr-operator.dev/owner-uid": null}}}));
        secrets.patch("pull", &params, &strip).await.unwrap();
        world.until(&secrets, "pull", "labelled again", is_ours).await
    };
    let now = timed("Secret's label stripped", stripped).await;
    assert_eq!(now.meta().uid, secret.meta().uid, "edits are repaired in place");
    let builder = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": name}, "imagePullSecrets": [{"name": "theirs"}]});
    for what in ["ServiceAccount created", "ServiceAccount reverted"] {
        let made = async {
            world.apply(&builder).await;
            world.until(&accounts, "builder", "with our Secret", names_ours).await
        };
        let account = timed(what, made).await;
        assert_eq!(account.image_pull_secrets.unwrap().len(), 2, "theirs is kept");
    }
    let patched = async {
        world.apply(&builder).await;
        futures::future::join_all((0..4).map(|writer| add(&accounts, format!("of-{writer}")))).await;
        let all =
            |account: &ServiceAccount| names_ours(account) && account.image_pull_secrets.iter().flatten().count() == 6;
        world.until(&accounts, "builder", "with all names", all).await;
    };
    timed("ServiceAccount patched by four at the same time", patched).await;
    let all = format!("{0}/{0}", NAMESPACES + 1);
    world.secrets_are("many", &all, FOR_ALL).await;
    assert!(world.ecr.calls().is_empty(), "no call for any of that: {:?}", world.operations());

    what_is_declared_changes(&world, &name).await;
    world.secrets_are("many", &all, FOR_ALL).await;
}

/// The object, its registry's rights, the access key and the role: all Secrets follow.
async fn what_is_declared_changes(world: &World, name: &str) {
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), name);
    let spec = |labels: Value| json!({"secretName": "pull", "serviceAccounts": ["default", "builder"], "secretTemplate": {"labels": labels}});
    let everywhere = Api::<Secret>::all(world.client.clone());
    let changed = async {
        world.cluster_pull_secret("many", spec(json!({"wave": "2"}))).await;
        until_all(world, &everywhere, "wave=2").await;
    };
    timed("the object changed, 501 Secrets", changed).await;
    assert!(world.ecr.calls().is_empty(), "nor for that: {:?}", world.operations());

    let but_one = json!([{"namespaces": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [name]}]}, "pull": ["*"]}]);
    let withdrawn = async {
        world.register(json!({"allow": but_one, "pull": {"whenNotAllowed": "Remove"}})).await;
        world.until_gone(&secrets, "pull").await;
    };
    timed("right of one namespace withdrawn", withdrawn).await;
    let given = async {
        world.register(json!({"allow": [{"namespaces": {}, "pull": ["*"]}]})).await;
        world.until(&secrets, "pull", "there again", is_ours).await;
    };
    timed("right given back", given).await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 0, "the token at hand serves it");

    let before = issued(&everywhere).await;
    assert_eq!(before.len(), NAMESPACES + 1);
    let everything = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let user = json!({"accounts": [{"id": ACCOUNT, "users": [{"name": "second", "accessKey": "AKIASECOND", "secretKey": "s", "policies": [everything]}]}]});
    world.ecr.seed(&serde_json::from_value(user).unwrap()).unwrap();
    let rotated = async {
        world.access_key("AKIASECOND", "s").await;
        until_others(world, &everywhere, &before).await;
    };
    timed("access key of another user, 501 Secrets", rotated).await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1, "one token for all");
    let before = issued(&everywhere).await;
    let trust = json!({"Statement": {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}});
    let role =
        json!({"accounts": [{"id": ACCOUNT, "roles": [{"name": "puller", "trust": trust, "policies": [everything]}]}]});
    world.ecr.seed(&serde_json::from_value(role).unwrap()).unwrap();
    let source = json!({"accessKey": {"secretName": world.registry}});
    let identity = json!({"assumeRole": {"roleArn": format!("arn:aws:iam::{ACCOUNT}:role/puller"), "source": source}});
    let other_role = async {
        world.register(json!({"pull": {"identity": identity}})).await;
        until_others(world, &everywhere, &before).await;
    };
    timed("another role, 501 Secrets", other_role).await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 2, "one more token for all");
}

/// Puts a name into the list, whoever writes meanwhile.
async fn add(accounts: &Api<ServiceAccount>, name: String) {
    loop {
        let mut account = accounts.get("builder").await.unwrap();
        account.image_pull_secrets.get_or_insert_default().push(LocalObjectReference { name: name.clone() });
        if accounts.replace("builder", &PostParams::default(), &account).await.is_ok() {
            return;
        }
    }
}

/// Waits until all Secrets have this label, as the API server counts them.
async fn until_all(world: &World, secrets: &Api<Secret>, label: &str) {
    let of_label = ListParams::default().labels(label);
    let all =
        || async { (secrets.list_metadata(&of_label).await.unwrap().items.len() == NAMESPACES + 1).then_some(()) };
    world.eventually(&format!("all Secrets have {label}"), all).await;
}

/// When the token in each Secret was issued.
async fn issued(secrets: &Api<Secret>) -> BTreeMap<String, String> {
    let ours = ListParams::default().labels("wave=2");
    let all = secrets.list_metadata(&ours).await.unwrap().items.into_iter();
    let of = |secret: PartialObjectMeta<Secret>| {
        (secret.namespace().unwrap(), secret.annotations()["ecr-operator.dev/tokens"].clone())
    };
    all.map(of).collect()
}

/// Waits until all Secrets hold another token than `before`.
async fn until_others(world: &World, secrets: &Api<Secret>, before: &BTreeMap<String, String>) {
    let all = || async {
        let now = issued(secrets).await;
        before.iter().all(|(namespace, token)| now.get(namespace).is_some_and(|now| now != token)).then_some(())
    };
    world.eventually("all Secrets hold another token", all).await;
}

#[tokio::test]
async fn the_secret_stays_the_same_object_through_a_hundred_renewals() {
    let world = World::new("hundred").await;
    // A new one may be wished for at a hundredth of its life.
    world.ecr.set_token_lifetime(Duration::from_secs(40));
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let secrets: Api<Secret> = world.api();
    let first = secrets.get("pull").await.unwrap();
    let mut last = first.clone();
    for _ in 0..100 {
        world.again(&world.api::<ecr_operator::api::EcrPullSecret>(), "pull").await;
        last = world.until(&secrets, "pull", "renewed", |now: &Secret| now.data != last.data).await;
        assert_eq!(last.meta().uid, first.meta().uid);
        assert!(last.data.as_ref().is_some_and(|data| data[".dockerconfigjson"].0.len() > 100));
    }
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 101);
}
