//! What a user of one namespace may try in order to reach beyond it, or beyond what the registry gives it: a table of
//! attempts. Each is refused, by the schema or with a reason, and nothing else happens: nothing is asked of AWS, and what
//! belongs to others stays as it was, to the resourceVersion.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ecr_operator::api::{EcrPullSecret, EcrRegistry, EcrRepository};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use crate::scope::{HOST, registry};
use crate::support::api::resource;
use crate::support::world::{ACCOUNT, REGION, World};

/// How an attempt ends.
enum End {
    /// The API server doesn't take it, and says this.
    Refused(&'static str),
    /// The operator says no: this reason, and this within the message.
    Says(&'static str, &'static str),
}
use End::{Refused, Says};

/// One attempt: kind, spec, end. `OTHER` is another team's namespace, `OWN` the one that tries.
type Attempt = (&'static str, Value, End);

fn repositories() -> Vec<Attempt> {
    let repository = |spec, end| ("EcrRepository", spec, end);
    let undeclared = || Refused("field not declared in schema");
    let taken = |name: &str, policy: &str| json!({"name": name, "adoptionPolicy": policy, "inheritDefaults": false});
    vec![
        // Names of others, and what looks like one of its own.
        repository(json!({"name": "OTHER/app"}), Says("NotAllowed", "may not declare repository OTHER/app")),
        repository(json!({"name": "OTHER/new"}), Says("NotAllowed", "may not declare repository OTHER/new")),
        repository(json!({"name": "OWN-x/app"}), Says("NotAllowed", "may not declare")),
        repository(json!({"name": "app"}), Says("NotAllowed", "may not declare")),
        repository(json!({"name": "OWN/../OTHER/app"}), Refused("must be an ECR repository name")),
        repository(json!({"name": "OWN/*"}), Refused("must be an ECR repository name")),
        repository(taken("OTHER/app", "TakeOver"), Says("NotAllowed", "may not declare")),
        // Registries of others, and none.
        repository(
            json!({"registryRef": {"name": "OTHER"}, "name": "OWN/app"}),
            Says("NotAllowed", "EcrRegistry OTHER"),
        ),
        repository(
            json!({"registryRef": {"name": "none-such"}, "name": "OWN/app"}),
            Says("RegistryNotFound", "none-such"),
        ),
        repository(json!({"registryRef": {"name": "OTHER", "namespace": "OTHER"}}), undeclared()),
        // Above the ceiling.
        repository(taken("OWN/free", "Adopt"), Says("AdoptionDenied", "maxAdoption Deny")),
        repository(taken("OWN/theirs", "Adopt"), Says("Conflict", "another-cluster")),
        repository(taken("OWN/theirs", "TakeOver"), Says("AdoptionDenied", "maxAdoption Deny")),
        // Marks of ownership.
        repository(
            json!({"name": "OWN/app", "tags": {"ecr-operator.dev/owner-id": "another-cluster"}}),
            Refused("ecr-operator.dev/"),
        ),
        repository(json!({"name": "OWN/app", "tags": {"aws:cloudformation:stack-id": "a"}}), Refused("aws:")),
        // Identities, endpoints and places are the administrator's.
        repository(json!({"identity": {"ambient": {}}}), undeclared()),
        repository(json!({"roleArn": "arn:aws:iam::123456789012:role/admin"}), undeclared()),
        repository(json!({"endpoint": {"url": "http://evil.example"}}), undeclared()),
        repository(json!({"region": "us-east-1"}), undeclared()),
        repository(json!({"accountId": "210987654321"}), undeclared()),
        repository(
            json!({"exportTo": {"configMap": "OTHER/images", "keys": {"uri": "a"}}}),
            Refused("name of a Kubernetes object"),
        ),
        repository(
            json!({"exportTo": {"configMap": "images", "namespace": "OTHER", "keys": {"uri": "a"}}}),
            undeclared(),
        ),
        repository(json!({"exportTo": {"configMap": "images", "keys": {"uri": "../a"}}}), Refused("must be a key")),
    ]
}

fn pull_secrets() -> Vec<Attempt> {
    let secret = |spec, end| ("EcrPullSecret", spec, end);
    let of_registry = |name: &str, more: Value| {
        let mut entry = json!({"registryRef": {"name": name}});
        crate::support::world::merge(&mut entry, more);
        json!({"registries": [entry]})
    };
    let own = |more: Value| of_registry("REGISTRY", more);
    let with = |more: Value| {
        let mut spec = own(json!({}));
        crate::support::world::merge(&mut spec, more);
        spec
    };
    let undeclared = || Refused("field not declared in schema");
    let reserved = || Refused("keys that begin with ecr-operator.dev/ are reserved");
    vec![
        // Tokens.
        secret(of_registry("OTHER", json!({})), Says("NotAllowed", "no `allow` rule")),
        secret(of_registry("none-such", json!({})), Says("RegistryNotFound", "none-such")),
        secret(own(json!({"repositories": ["OTHER/*"]})), Says("NotAllowed", "no `allow` rule")),
        secret(own(json!({"repositories": ["OTHER/app"]})), Says("NotAllowed", "no `allow` rule")),
        secret(own(json!({"repositories": ["{namespace}/*"]})), Refused("should match")),
        secret(own(json!({"accounts": ["210987654321"]})), Says("NotAllowed", "not 210987654321")),
        secret(own(json!({"regions": ["us-east-1"]})), Says("NotAllowed", "not us-east-1")),
        secret(own(json!({"hosts": ["evil.example"]})), Refused("Unsupported value")),
        secret(with(json!({"access": "Push"})), Says("NotAllowed", "push")),
        secret(own(json!({"endpoint": "http://evil.example"})), undeclared()),
        secret(with(json!({"identity": {"ambient": {}}})), undeclared()),
        // Secrets of others.
        secret(with(json!({"secretName": "precious"})), Says("SecretConflict", "precious")),
        secret(with(json!({"secretName": "precious", "mergePolicy": "Merge"})), Says("SecretConflict", "precious")),
        secret(with(json!({"secretName": "theirs"})), Says("SecretConflict", "theirs")),
        secret(with(json!({"secretName": "forged"})), Says("SecretConflict", "forged")),
        secret(with(json!({"secretName": "OTHER/pull"})), Refused("name of a Kubernetes object")),
        secret(with(json!({"namespaceSelector": {}})), undeclared()),
        secret(with(json!({"namespace": "OTHER"})), undeclared()),
        secret(with(json!({"serviceAccounts": ["OTHER/default"]})), Refused("should match")),
        // Marks of ours, and of age.
        secret(with(json!({"secretTemplate": {"labels": {"ecr-operator.dev/owner-uid": "forged"}}})), reserved()),
        secret(
            with(json!({"secretTemplate": {"annotations": {"ecr-operator.dev/expires-at": "2099-01-01T00:00:00Z"}}})),
            reserved(),
        ),
        secret(with(json!({"secretTemplate": {"annotations": {"ecr-operator.dev/namespace": "OTHER"}}})), reserved()),
    ]
}

/// Two teams with a registry: one has its things, the other tries.
struct Teams {
    world: World,
    own: String,
    other: String,
}

impl Teams {
    async fn new(name: &str) -> Self {
        let world = World::new(name).await;
        let (own, other) = (world.namespace.clone(), world.selected_namespace("other").await);
        let rule = |namespace: &str| json!({"namespaces": {"matchNames": [namespace]}, "manage": ["{namespace}/*"], "pull": ["{namespace}/*"], "maxAdoption": "Deny", "maxDeletion": "Retain"});
        world.register(json!({"pull": {"scopeTokens": "Required"}, "allow": [rule(&own), rule(&other)]})).await;
        world.registry_says("True", "Ready").await;
        // One that the other team alone may use.
        let mut theirs = Api::<EcrRegistry>::all(world.client.clone()).get(&world.registry).await.unwrap().spec;
        theirs.allow = serde_json::from_value(json!([rule(&other)])).unwrap();
        world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": other}, "spec": theirs})).await;

        let marks = json!({"ecr-operator.dev/owner-id": "another-cluster", "ecr-operator.dev/namespace": "a", "ecr-operator.dev/name": "b", "ecr-operator.dev/uid": "c"});
        let there = |name: String, tags: &Value| json!({"account": ACCOUNT, "region": REGION, "name": name, "tags": tags, "images": [["v1"]]});
        let seed =
            json!({"repositories": [there(format!("{own}/free"), &json!({})), there(format!("{own}/theirs"), &marks)]});
        world.ecr.seed(&serde_json::from_value(seed).unwrap()).unwrap();
        world.repository_in(&other, "app", json!({"name": format!("{other}/app")})).await;
        world.repository_in_says(&other, "app", "True", "Ready").await;
        world.put_image(&format!("{other}/app"));
        world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrPullSecret", "metadata": {"name": "pull", "namespace": other}, "spec": {"registries": [{"registryRef": {"name": other}}], "serviceAccounts": ["*"]}})).await;
        let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), &other);
        world
            .until(&accounts, "default", "with the Secret", |it: &ServiceAccount| it.image_pull_secrets.is_some())
            .await;
        Self { world, own, other }
    }

    /// What is in the way: Secrets and a ConfigMap that the one who tries didn't get from us.
    async fn obstacles(&self) {
        let theirs: Api<Secret> = Api::namespaced(self.world.client.clone(), &self.other);
        let original = theirs.get("pull").await.unwrap();
        let docker = json!({"auths": {"registry.example": {"auth": "YTpi"}}}).to_string();
        let secret = |name: &str, kind: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name, "namespace": self.own}, "stringData": data});
        let mut forged = secret("forged", "kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": docker}));
        // With all marks of a Secret of ours, good until the end of days.
        let mut annotations: BTreeMap<String, String> = original.annotations().clone();
        annotations.insert("ecr-operator.dev/expires-at".into(), "2099-01-01T00:00:00Z".into());
        forged["metadata"]["labels"] = json!(original.labels());
        forged["metadata"]["annotations"] = json!(annotations);
        for object in [
            secret("precious", "Opaque", json!({"key": "value"})),
            secret("theirs", "kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": docker})),
            forged,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "precious", "namespace": self.own}, "data": {"key": "value"}}),
        ] {
            self.world.apply(&object).await;
        }
    }

    /// Everything that no attempt may touch, with its resourceVersion; what the attempts themselves are is left out.
    async fn rest(&self) -> BTreeMap<String, String> {
        let mut rest = BTreeMap::new();
        for namespace in [&self.own, &self.other] {
            let client = || self.world.client.clone();
            let mut note = |kind: &str, meta: &kube::core::ObjectMeta| {
                let name = meta.name.clone().unwrap_or_default();
                rest.insert(format!("{kind} {namespace}/{name}"), meta.resource_version.clone().unwrap_or_default());
            };
            let all = ListParams::default();
            let secrets = Api::<Secret>::namespaced(client(), namespace).list(&all).await.unwrap();
            secrets.iter().for_each(|it| note("Secret", it.meta()));
            let maps = Api::<ConfigMap>::namespaced(client(), namespace).list(&all).await.unwrap();
            maps.iter().for_each(|it| note("ConfigMap", it.meta()));
            let accounts = Api::<ServiceAccount>::namespaced(client(), namespace).list(&all).await.unwrap();
            accounts.iter().for_each(|it| note("ServiceAccount", it.meta()));
        }
        let there = self.world.ecr.repositories();
        rest.extend(there.into_iter().map(|it| (format!("repository {}", it.name), format!("{it:?}"))));
        rest
    }

    fn fill(&self, text: &str) -> String {
        text.replace("OTHER", &self.other).replace("OWN", &self.own).replace("REGISTRY", &self.world.registry)
    }

    async fn apply(&self, kind: &str, name: &str, spec: &Value) -> Result<DynamicObject, kube::Error> {
        let mut spec: Value = serde_json::from_str(&self.fill(&spec.to_string())).unwrap();
        if kind == "EcrRepository" && spec["registryRef"].is_null() {
            spec["registryRef"] = json!({"name": self.world.registry});
        }
        let object =
            json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let api: Api<DynamicObject> = Api::namespaced_with(self.world.client.clone(), &self.own, &resource(kind));
        api.patch(name, &PatchParams::apply("mallory"), &Patch::Apply(object)).await
    }

    /// Makes the attempt, and says what was wrong with its end.
    async fn attempt(&self, number: usize, (kind, spec, end): &Attempt) -> Option<String> {
        let name = format!("try-{number}");
        let applied = self.apply(kind, &name, spec).await;
        match (end, applied) {
            (Refused(why), Err(error)) => {
                (!error.to_string().contains(why)).then(|| format!("refused otherwise: {error}"))
            }
            (Refused(_), Ok(_)) => Some("it was taken".to_owned()),
            (Says(..), Err(error)) => Some(format!("it wasn't taken: {error}")),
            (Says(reason, why), Ok(_)) => {
                let (reason_told, message) = self.verdict(kind, &name).await;
                let told = reason_told == *reason && message.contains(&self.fill(why));
                (!told).then(|| format!("it says {reason_told}: {message}"))
            }
        }
    }

    async fn verdict(&self, kind: &str, name: &str) -> (String, String) {
        let api: Api<DynamicObject> = Api::namespaced_with(self.world.client.clone(), &self.own, &resource(kind));
        let ready = || async {
            let object = api.get(name).await.unwrap();
            let conditions: Vec<Condition> =
                serde_json::from_value(object.data["status"]["conditions"].clone()).unwrap_or_default();
            let ready = conditions.into_iter().find(|it| it.type_ == "Ready")?;
            (ready.observed_generation == object.metadata.generation).then_some((ready.reason, ready.message))
        };
        self.world.eventually(&format!("a verdict on {name}"), ready).await
    }
}

#[tokio::test]
async fn nobody_reaches_beyond_its_namespace_or_its_rights() {
    let teams = Teams::new("security").await;
    teams.obstacles().await;
    let before = teams.rest().await;
    teams.world.ecr.clear_calls();
    let mut wrong = Vec::new();
    for (number, attempt) in repositories().iter().chain(&pull_secrets()).enumerate() {
        if let Some(what) = teams.attempt(number, attempt).await {
            wrong.push(format!("{} {}: {what}", attempt.0, attempt.1));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let after = teams.rest().await;
    let changed: Vec<_> = after.iter().filter(|(what, version)| before.get(*what) != Some(version)).collect();
    assert!(changed.is_empty() && after.len() == before.len(), "{changed:#?}");
    assert_eq!(teams.world.writes(), [""; 0], "AWS was changed");
    // A token within its rights may have been had, before it turned out that there is no place for it.
    let sessions = teams.world.ecr.calls();
    let sessions = sessions.iter().filter(|call| call.service == "sts" && !call.request["Policy"].is_null());
    for session in sessions {
        let policy = session.request["Policy"].as_str().unwrap();
        let within = policy.contains(&format!("repository/{}/*", teams.own)) && !policy.contains(&teams.other);
        assert!(within, "a token beyond its rights: {policy}");
    }
}

#[tokio::test]
async fn what_is_asked_for_too_widely_is_given_within_the_rights_and_no_further() {
    let teams = Teams::new("secwide").await;
    let world = &teams.world;
    teams.obstacles().await;
    teams.apply("EcrPullSecret", "pull", &json!({"registries": [{"registryRef": {"name": "REGISTRY"}, "repositories": ["*"]}], "serviceAccounts": ["*"]})).await.unwrap();
    world.pull_secret_says("pull", "True", "Ready").await;
    let secret = world.api::<Secret>().get("pull").await.unwrap();
    let written: Value = serde_json::from_slice(&secret.data.unwrap()[".dockerconfigjson"].0).unwrap();
    assert_eq!(written["auths"].as_object().unwrap().keys().collect::<Vec<_>>(), [HOST]);
    let auth = written["auths"][HOST]["auth"].as_str().unwrap().to_owned();
    assert!(BASE64_STANDARD.decode(&auth).unwrap().starts_with(b"AWS:"));
    let (other, own) = (&teams.other, &teams.own);
    assert_eq!(registry(world, &auth, "GET", &format!("/v2/{own}/free/manifests/v1")).await, 200);
    assert_eq!(registry(world, &auth, "GET", &format!("/v2/{other}/app/manifests/v1")).await, 403);
    assert_eq!(
        registry(world, &auth, "GET", &format!("/v2/{other}/none/manifests/v1")).await,
        403,
        "nor whether it is there"
    );
    assert_eq!(registry(world, &auth, "POST", &format!("/v2/{own}/free/blobs/uploads/")).await, 403);
    // To have it verified tells no more than the token.
    teams
        .apply(
            "EcrPullSecret",
            "probe",
            &json!({"registries": [{"registryRef": {"name": "REGISTRY"}}], "verify": {"repository": "OTHER/app"}}),
        )
        .await
        .unwrap();
    let (reason, message) = teams.verdict("EcrPullSecret", "probe").await;
    assert_eq!(reason, "Denied", "{message}");

    // A deletionPolicy above the ceiling, and a ConfigMap of somebody else: the repository is its own, and no more happens.
    teams.apply("EcrRepository", "mine", &json!({"name": "OWN/mine", "deletionPolicy": "DeleteWithImages", "exportTo": {"configMap": "precious", "keys": {"uri": "key"}}})).await.unwrap();
    let (reason, message) = teams.verdict("EcrRepository", "mine").await;
    assert!(["NotAllowed", "Conflict"].contains(&reason.as_str()), "{reason}: {message}");
    assert!(message.contains("maxDeletion"), "{message}");
    let kept = world.api::<ConfigMap>().get("precious").await.unwrap().data.unwrap();
    assert_eq!(kept["key"], "value");
    let mine = format!("{own}/mine");
    world.put_image(&mine);
    world.api::<EcrRepository>().delete("mine", &DeleteParams::default()).await.unwrap();
    let waits = |object: &EcrRepository| {
        let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
        object.metadata.deletion_timestamp.is_some() && conditions.any(|it| it.message.contains("waiting to delete"))
    };
    world.until(&world.api::<EcrRepository>(), "mine", "waiting", waits).await;
    assert!(world.there(&mine).is_some(), "above the ceiling nothing is deleted");
    let retain = Patch::Merge(json!({"spec": {"deletionPolicy": "Retain"}}));
    world.api::<EcrRepository>().patch("mine", &PatchParams::default(), &retain).await.unwrap();
    world.until_gone(&world.api::<EcrRepository>(), "mine").await;
    assert!(world.there(&mine).is_some());
}

#[tokio::test]
async fn a_secret_of_ours_that_its_user_forges_is_what_it_should_be_again() {
    let teams = Teams::new("secforge").await;
    let world = &teams.world;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let secrets: Api<Secret> = world.api();
    let good = secrets.get("pull").await.unwrap();
    let theirs: Api<EcrPullSecret> = Api::namespaced(world.client.clone(), &teams.other);
    let their_uid = theirs.get("pull").await.unwrap().uid().unwrap();
    let before = teams.rest().await;
    for forged in [
        json!({"annotations": {"ecr-operator.dev/expires-at": "2099-01-01T00:00:00Z"}}),
        json!({"annotations": {"ecr-operator.dev/owner-namespace": teams.other}}),
        json!({"labels": {"ecr-operator.dev/owner-uid": their_uid}}),
    ] {
        let patch = Patch::Merge(json!({"metadata": forged}));
        secrets.patch("pull", &PatchParams::default(), &patch).await.unwrap();
        let again = |secret: &Secret| secret.annotations() == good.annotations() && secret.labels() == good.labels();
        world.until(&secrets, "pull", &format!("as before {forged}"), again).await;
    }
    assert_eq!(secrets.get("pull").await.unwrap().uid(), good.uid());
    let after = teams.rest().await;
    let own = format!("Secret {}/pull", teams.own);
    let changed: Vec<_> =
        after.iter().filter(|(what, version)| **what != own && before.get(*what) != Some(version)).collect();
    assert!(changed.is_empty(), "{changed:#?}");
}
