//! Rules of `EcrRepository` besides its settings.

use kube::api::PostParams;

use crate::support::api::{misjudged, object, objects, rule, try_all};
use crate::support::cluster::Cluster;

#[tokio::test]
async fn rules_of_a_repository() {
    let no_name = "must be an ECR repository name";
    let key_taken = "each fact needs a key of its own";
    let names = rule("a name as ECR takes it")
        .good("name: ab")
        .good("name: 1a/b.c_d__e-f---g/h")
        .good("name: '%256%'")
        .bad("name: Ab", "spec.name", no_name)
        .bad("name: a___b", "spec.name", no_name)
        .bad("name: a..b", "spec.name", no_name)
        .bad("name: a/", "spec.name", no_name)
        .bad("name: /a", "spec.name", no_name)
        .bad("name: a//b", "spec.name", no_name)
        .bad("name: -a", "spec.name", no_name)
        .bad("name: '%257%'", "spec.name", "256")
        .bad("name: a", "spec.name", "at least 2 chars");
    let rules = vec![
        names,
        rule("names of registries are names of objects")
            .good("registryRef: {name: other.registry}")
            .bad("registryRef: {name: Nope}", "spec.registryRef.name", "must be the name of a Kubernetes object")
            .bad("registryRef: {}", "spec.registryRef.name", "Required value"),
        rule("adoption says what becomes of the defaults")
            .good("adoptionPolicy: Deny")
            .good("adoptionPolicy: Adopt, inheritDefaults: false")
            .good("adoptionPolicy: TakeOver, inheritDefaults: true")
            .bad("adoptionPolicy: Adopt", "spec", "need inheritDefaults written out")
            .bad("adoptionPolicy: TakeOver", "spec", "need inheritDefaults written out")
            .bad("adoptionPolicy: Always", "spec.adoptionPolicy", "TakeOver"),
        rule("mode is one of two").good("mode: Plan").bad("mode: DryRun", "spec.mode", "Plan"),
        rule("exports go under keys that ConfigMaps take, each its own")
            .good("exportTo: {configMap: images, keys: {uri: IMAGE_REPOSITORY}}")
            .good("exportTo: {configMap: images, keys: {uri: a, arn: b, name: c, host: d, registryId: e, region: f}}")
            .bad("exportTo: {configMap: images, keys: {}}", "spec.exportTo.keys", "at least 1 properties")
            .bad("exportTo: {configMap: images}", "spec.exportTo.keys", "Required value")
            .bad(
                "exportTo: {configMap: Images, keys: {uri: a}}",
                "spec.exportTo.configMap",
                "name of a Kubernetes object",
            )
            .bad(
                "exportTo: {configMap: images, keys: {uri: 'a b'}}",
                "spec.exportTo.keys.uri",
                "must be a key as ConfigMaps",
            )
            .bad(
                "exportTo: {configMap: images, keys: {uri: ..}}",
                "spec.exportTo.keys.uri",
                "must be a key as ConfigMaps",
            )
            .bad("exportTo: {configMap: images, keys: {uri: a, region: a}}", "spec.exportTo.keys", key_taken),
    ];
    try_all("EcrRepository", rules).await;
}

#[tokio::test]
async fn the_default_name_has_two_characters() {
    let client = Cluster::shared().await.client().await;
    let api = objects(&client, "EcrRepository");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&dry, &object("EcrRepository", "a", "name: ab")).await.unwrap();
    api.create(&dry, &object("EcrRepository", "a.b--c", "")).await.unwrap();
    let answer = api.create(&dry, &object("EcrRepository", "a", "")).await;
    assert_eq!(misjudged(answer, "spec.name", "at least 2 characters: set spec.name"), None);
}
