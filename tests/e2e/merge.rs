//! `mergePolicy: Merge`: our entries in a Secret of others, and nothing of theirs lost.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ecr_operator::api::EcrPullSecret;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::operator::Operator;
use crate::support::world::World;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn document(secret: &Secret) -> Value {
    let data = secret.data.as_ref().and_then(|data| data.get(".dockerconfigjson"));
    data.map_or(Value::Null, |text| serde_json::from_slice(&text.0).unwrap())
}

fn has_ours(secret: &Secret) -> bool {
    document(secret)["auths"][HOST]["auth"].is_string()
}

fn foreign(world: &World, text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "shared", "namespace": world.namespace, "labels": {"theirs": "yes"}},
        "data": {".dockerconfigjson": BASE64_STANDARD.encode(text)},
    })
}

async fn merge(world: &World, name: &str) {
    world.pull_secret(name, json!({"secretName": "shared", "mergePolicy": "Merge"})).await;
}

async fn edit(world: &World, text: &Value) {
    let patch = Patch::Merge(json!({"data": {".dockerconfigjson": BASE64_STANDARD.encode(text.to_string())}}));
    world.api::<Secret>().patch("shared", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn our_entry_lives_beside_those_of_others_and_goes_with_the_object() {
    let world = World::new("merge").await;
    let text = r#"{"credHelpers":{"a":"b"},"auths":{"example.com":{"auth":"eDp5"}}}"#;
    world.apply(&foreign(&world, text)).await;
    let secrets: Api<Secret> = world.api();
    let before = secrets.get("shared").await.unwrap();
    merge(&world, "pull").await;
    let object = world.pull_secret_says("pull", "True", "Ready").await;
    assert!(!object.metadata.finalizers.unwrap_or_default().is_empty(), "always: there is something to take out");
    let with = secrets.get("shared").await.unwrap();
    assert!(has_ours(&with));
    assert_eq!(with.metadata.uid, before.metadata.uid);
    assert_eq!(with.metadata.owner_references, None, "it is theirs");
    assert_eq!(document(&with)["auths"]["example.com"]["auth"], "eDp5");

    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
    let left = secrets.get("shared").await.unwrap();
    assert_eq!(left.data, before.data, "to the byte");
    assert_eq!(left.metadata.labels, before.metadata.labels);
    assert_eq!(left.metadata.annotations.unwrap_or_default().len(), 0);
}

#[tokio::test]
async fn whatever_others_write_meanwhile_stays_and_our_entry_is_put_back_without_asking_aws() {
    let world = World::new("merge-edit").await;
    world.apply(&foreign(&world, r#"{"auths":null}"#)).await;
    merge(&world, "pull").await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let secrets: Api<Secret> = world.api();
    // With the replacement that is three times: more within a minute are a contest.
    for round in 0..2 {
        let theirs = json!({"auths": {format!("host-{round}.example"): {"auth": "eDp5"}}, "HttpHeaders": {"n": round}});
        edit(&world, &theirs).await;
        let repaired = world.until(&secrets, "shared", "repaired", has_ours).await;
        let mut left = document(&repaired);
        left["auths"].as_object_mut().unwrap().remove(HOST);
        assert_eq!(left, theirs, "nothing of theirs is lost");
    }
    // An apply of all of it by its owner takes nothing of ours away for long, nor does a replacement.
    secrets.delete("shared", &DeleteParams::default()).await.unwrap();
    world.apply(&foreign(&world, "{}")).await;
    world.until(&secrets, "shared", "merged into the new one", has_ours).await;
    assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1, "all from the token at hand");
    world.pull_secret_says("pull", "True", "Ready").await;
}

#[tokio::test]
async fn an_entry_is_renewed_where_it_is() {
    let world = World::new("merge-renew").await;
    world.ecr.set_token_lifetime(std::time::Duration::from_secs(6));
    world.apply(&foreign(&world, r#"{"auths":{"example.com":{"auth":"eDp5"}}}"#)).await;
    merge(&world, "pull").await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let secrets: Api<Secret> = world.api();
    let auth = |secret: &Secret| document(secret)["auths"][HOST]["auth"].as_str().map(str::to_owned);
    let mut last = auth(&secrets.get("shared").await.unwrap());
    for _ in 0..2 {
        let renewed = world.until(&secrets, "shared", "renewed", |secret: &Secret| auth(secret) != last).await;
        assert_eq!(document(&renewed)["auths"]["example.com"]["auth"], "eDp5");
        last = auth(&renewed);
    }
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_made_and_goes_when_nothing_foreign_is_in_it() {
    let world = World::new("merge-new").await;
    let secrets: Api<Secret> = world.api();
    merge(&world, "pull").await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let made = secrets.get("shared").await.unwrap();
    assert!(has_ours(&made));
    assert_eq!(made.type_.as_deref(), Some("kubernetes.io/dockerconfigjson"));
    // Deleted by somebody, it comes back.
    secrets.delete("shared", &DeleteParams::default()).await.unwrap();
    let other = |secret: &Secret| has_ours(secret) && secret.metadata.uid != made.metadata.uid;
    world.until(&secrets, "shared", "back", other).await;
    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
    world.until_gone(&secrets, "shared").await;

    merge(&world, "again").await;
    world.pull_secret_says("again", "True", "Ready").await;
    let mut theirs = document(&secrets.get("shared").await.unwrap());
    theirs["auths"]["example.com"] = json!({"auth": "eDp5"});
    edit(&world, &theirs).await;
    world.delete(&world.api::<EcrPullSecret>(), "again").await;
    let left = secrets.get("shared").await.unwrap();
    assert_eq!(document(&left), json!({"auths": {"example.com": {"auth": "eDp5"}}}));
}

#[tokio::test]
async fn several_objects_share_a_secret_and_a_host_belongs_to_one() {
    let world = World::new("merge-both").await;
    let entry = |hosts: &str| json!([{"registryRef": {"name": world.registry}, "hosts": [hosts]}]);
    let spec = |hosts: &str| json!({"secretName": "shared", "mergePolicy": "Merge", "registries": entry(hosts)});
    for (name, hosts) in [("classic", "Classic"), ("dual", "DualStack"), ("late", "Classic")] {
        let mut object = json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrPullSecret", "metadata": {"name": name, "namespace": world.namespace}});
        object["spec"] = spec(hosts);
        world.apply(&object).await;
        if name != "late" {
            world.pull_secret_says(name, "True", "Ready").await;
        }
    }
    let refused = world.pull_secret_says("late", "False", "Conflict").await;
    let told = refused.status.unwrap().conditions[0].message.clone();
    assert!(told.contains(&format!("EcrPullSecret {}/classic", world.namespace)) && told.contains(HOST), "{told}");
    let secrets: Api<Secret> = world.api();
    assert_eq!(document(&secrets.get("shared").await.unwrap())["auths"].as_object().unwrap().len(), 2);
    // Whoever waits for it gets it when it is free.
    world.delete(&world.api::<EcrPullSecret>(), "classic").await;
    world.pull_secret_says("late", "True", "Ready").await;
    world.pull_secret_says("dual", "True", "Ready").await;
    assert_eq!(document(&secrets.get("shared").await.unwrap())["auths"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_merged_into_is_left_as_it_is_and_told_by_name() {
    let world = World::new("merge-refused").await;
    let taken = format!(r#"{{"auths":{{"{HOST}":{{"auth":"theirs"}}}}}}"#);
    let mut immutable = foreign(&world, "{}");
    immutable["immutable"] = json!(true);
    let mut opaque = foreign(&world, "{}");
    opaque["type"] = json!("Opaque");
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_048_000));
    let secrets: Api<Secret> = world.api();
    for (secret, reason, why) in [
        (opaque, "SecretConflict", "its type is Opaque"),
        (immutable, "SecretConflict", "immutable: true"),
        (foreign(&world, r#"{"auths":["x"]}"#), "SecretConflict", "`auths` isn't a JSON object"),
        (foreign(&world, &taken), "SecretConflict", HOST),
        (foreign(&world, &large), "Invalid", "a Secret holds 1048576"),
    ] {
        world.apply(&secret).await;
        let before = secrets.get("shared").await.unwrap();
        merge(&world, "pull").await;
        let told = world.pull_secret_says("pull", "False", reason).await.status.unwrap().conditions[0].message.clone();
        assert!(told.contains(why) && !told.contains("theirs"), "{told}");
        assert_eq!(secrets.get("shared").await.unwrap(), before);
        world.delete(&world.api::<EcrPullSecret>(), "pull").await;
        assert_eq!(secrets.get("shared").await.unwrap(), before);
        world.delete(&secrets, "shared").await;
    }
}

#[tokio::test]
async fn those_who_write_at_the_same_time_lose_nothing_and_nor_do_we() {
    let world = World::new("merge-race").await;
    world.ecr.set_token_lifetime(std::time::Duration::from_secs(4));
    world.apply(&foreign(&world, r#"{"auths":{}}"#)).await;
    merge(&world, "pull").await;
    let secrets: Api<Secret> = world.api();
    let writers = (0..3).map(|writer| {
        let secrets = secrets.clone();
        async move {
            for number in 0..30 {
                loop {
                    let mut secret = secrets.get("shared").await.unwrap();
                    let mut theirs = document(&secret);
                    theirs["auths"][format!("of-{writer}-{number}.example")] = json!({"auth": "eDp5"});
                    let text = ByteString(theirs.to_string().into_bytes());
                    secret.data.get_or_insert_default().insert(".dockerconfigjson".to_owned(), text);
                    if secrets.replace("shared", &PostParams::default(), &secret).await.is_ok() {
                        break;
                    }
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    let all = |secret: &Secret| {
        has_ours(secret) && document(secret)["auths"].as_object().is_some_and(|auths| auths.len() == 91)
    };
    world.until(&secrets, "shared", "with all entries", all).await;
}

#[tokio::test]
async fn a_host_that_others_hold_keeps_ours_in_the_same_secret_from_nothing() {
    let world = World::new("merge-held").await;
    world.ecr.set_token_lifetime(std::time::Duration::from_secs(6));
    let theirs = HOST.replace("eu-west-1", "us-east-1");
    let entry = json!({"auth": "dGhlaXJz"});
    world.apply(&foreign(&world, &json!({"auths": {&theirs: entry}}).to_string())).await;
    merge(&world, "pull").await;
    world.pull_secret_says("pull", "True", "Ready").await;
    world.register(json!({"pull": {"regions": ["us-east-1"]}})).await;
    let told = world.pull_secret_says("pull", "False", "SecretConflict").await.status.unwrap();
    assert!(told.conditions[0].message.contains(&theirs), "{:?}", told.conditions);
    let secrets: Api<Secret> = world.api();
    let auth = |secret: &Secret, host: &str| document(secret)["auths"][host]["auth"].clone();
    let mut last = auth(&secrets.get("shared").await.unwrap(), HOST);
    for _ in 0..2 {
        let renewed = world.until(&secrets, "shared", "renewed", |secret: &Secret| auth(secret, HOST) != last).await;
        assert_eq!(document(&renewed)["auths"][&theirs], entry, "left as it was");
        last = auth(&renewed, HOST);
    }
    let status = world.pull_secret_says("pull", "False", "SecretConflict").await.status.unwrap();
    let ends = |host: &str| status.registries.iter().find(|told| told.host == host).unwrap().expires_at.is_some();
    assert_eq!((ends(HOST), ends(&theirs)), (true, false), "what is told is what is in it");
    let mut freed = document(&secrets.get("shared").await.unwrap());
    freed["auths"].as_object_mut().unwrap().remove(&theirs);
    edit(&world, &freed).await;
    world.until(&secrets, "shared", "filled", |secret: &Secret| auth(secret, &theirs).is_string()).await;
    world.pull_secret_says("pull", "True", "Ready").await;
}

#[tokio::test]
async fn the_entries_of_one_that_cannot_be_read_stay_until_it_is_gone() {
    let cluster = Cluster::start("control-plane").await;
    let operator = Operator::start(&cluster, "operator").await;
    let world = World::at(&cluster, "merge-unread").await;
    let spec = |hosts: &str| {
        let registries = json!([{"registryRef": {"name": world.registry}, "hosts": [hosts]}]);
        json!({"secretName": "shared", "mergePolicy": "Merge", "registries": registries})
    };
    for (name, hosts) in [("newer", "DualStack"), ("pull", "Classic")] {
        world.pull_secret(name, spec(hosts)).await;
        world.pull_secret_says(name, "True", "Ready").await;
    }
    let secrets: Api<Secret> = world.api();
    let both = document(&secrets.get("shared").await.unwrap());
    let mut newer = both.clone();
    newer["auths"].as_object_mut().unwrap().remove(HOST);

    // As a later version of the operator may have it.
    let crds: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    let any = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]);
    let any = Patch::Json::<()>(serde_json::from_value(any).unwrap());
    crds.patch("ecrpullsecrets.ecr-operator.dev", &PatchParams::default(), &any).await.unwrap();
    let objects: Api<PartialObjectMeta<EcrPullSecret>> = world.api();
    let unreadable = Patch::Merge(json!({"spec": {"secretName": {"from": "elsewhere"}}}));
    let patched = || async { objects.patch_metadata("newer", &PatchParams::default(), &unreadable).await.ok() };
    world.eventually("a newer one", patched).await;
    world
        .eventually("told", || async { operator.logged().contains("can't be read, and is left alone").then_some(()) })
        .await;

    edit(&world, &newer).await;
    let repaired = world.until(&secrets, "shared", "repaired", has_ours).await;
    assert_eq!(document(&repaired), both);
    world.delete(&objects, "pull").await;
    assert_eq!(document(&secrets.get("shared").await.unwrap()), newer);

    // Its finalizer taken off by hand, nobody takes them out but whoever writes next.
    let freed = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    objects.patch_metadata("newer", &PatchParams::default(), &freed).await.unwrap();
    world.delete(&objects, "newer").await;
    world.pull_secret("again", spec("Classic")).await;
    world.pull_secret_says("again", "True", "Ready").await;
    let left = document(&secrets.get("shared").await.unwrap());
    assert_eq!(left["auths"].as_object().unwrap().keys().collect::<Vec<_>>(), [HOST]);
}
