//! `exportTo` as it changes, and what it costs when nothing does.

use ecr_operator::api::EcrRepository;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::operator::Operator;
use crate::support::proxy::Proxy;
use crate::support::world::World;

stories! {
    keys_that_change_names_that_change_and_an_export_that_is_dropped_leave_nothing_behind,
    an_export_that_somebody_deletes_is_back_when_it_is_looked_at,
}

const URI: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app";

async fn change(world: &World, export: Value) {
    let patch = Patch::Merge(json!({"spec": {"exportTo": export}}));
    world.api::<EcrRepository>().patch("app", &PatchParams::default(), &patch).await.unwrap();
    world.repository_says("app", "True", "Ready").await;
}

/// What a ConfigMap of this world has in it.
async fn exported(world: &World, name: &str) -> Option<Value> {
    let map = world.api::<ConfigMap>().get_opt(name).await.unwrap();
    map.map(|map| json!(map.data.unwrap_or_default()))
}

async fn keys_that_change_names_that_change_and_an_export_that_is_dropped_leave_nothing_behind(world: World) {
    world.repository("app", json!({"exportTo": {"configMap": "images", "keys": {"uri": "A", "region": "R"}}})).await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(exported(&world, "images").await, Some(json!({"A": URI, "R": "eu-west-1"})));
    world.clear_calls();
    change(&world, json!({"keys": {"uri": "B", "region": null}})).await;
    assert_eq!(exported(&world, "images").await, Some(json!({"B": URI})));
    change(&world, json!({"configMap": "others"})).await;
    assert_eq!(exported(&world, "images").await, None, "its last key took it along");
    assert_eq!(exported(&world, "others").await, Some(json!({"B": URI})));
    change(&world, Value::Null).await;
    assert_eq!(exported(&world, "others").await, None);
    let left = world.api::<EcrRepository>().get("app").await.unwrap();
    assert_eq!(left.status.unwrap().exported_to, None);
    assert_eq!(world.operations(), [""; 0], "AWS has nothing to do with it");
}

async fn an_export_that_somebody_deletes_is_back_when_it_is_looked_at(world: World) {
    world.repository("app", json!({"exportTo": {"configMap": "images", "keys": {"uri": "A"}}})).await;
    world.repository_says("app", "True", "Ready").await;
    world.delete(&world.api::<ConfigMap>(), "images").await;
    world.again(&world.api::<EcrRepository>(), "app").await;
    world
        .eventually("exported again", || async {
            exported(&world, "images").await.filter(|data| *data == json!({ "A": URI }))
        })
        .await;
}

#[tokio::test]
async fn an_export_that_is_as_it_should_be_is_never_written() {
    let cluster = Cluster::start("control-plane").await;
    Operator::start(&cluster, "installer").await.stop();
    let proxy = Proxy::start(&cluster).await;
    let kubeconfig = proxy.kubeconfig.to_str().unwrap().to_owned();
    let environment = [("KUBECONFIG", kubeconfig.as_str())];
    let first = Operator::start_with(&cluster, "first", &environment).await;
    let world = World::at(&cluster, "exports").await;
    let api = world.api::<EcrRepository>();
    let writes = || {
        let exchanges = proxy.exchanges().into_iter();
        exchanges.filter(|exchange| exchange.method != "GET" && exchange.uri.contains("/configmaps/")).count()
    };
    let looked_at = async || {
        world.again(&api, "app").await;
        let asked =
            api.get("app").await.unwrap().metadata.annotations.unwrap()["ecr-operator.dev/reconcile-at"].clone();
        let handled = |object: &EcrRepository| {
            object.status.as_ref().is_some_and(|status| status.last_handled_reconcile_at.as_ref() == Some(&asked))
        };
        world.until(&api, "app", "handled", handled).await;
    };
    world.repository("app", json!({"exportTo": {"configMap": "images", "keys": {"uri": "A", "arn": "B"}}})).await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(writes(), 1);
    looked_at().await;
    let note = Patch::Merge(json!({"metadata": {"annotations": {"note": "of no meaning"}}}));
    api.patch("app", &PatchParams::default(), &note).await.unwrap();
    looked_at().await;
    first.stop();
    let _second = Operator::start_with(&cluster, "second", &environment).await;
    looked_at().await;
    assert_eq!(writes(), 1, "neither for looks, nor annotations, nor a restart");
    assert_eq!(exported(&world, "images").await.unwrap()["A"], URI);
}
