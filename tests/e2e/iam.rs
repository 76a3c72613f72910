//! The policies of `deploy/iam`, put into force: the whole story of each role works with them, they allow nothing that it
//! doesn't use, and nothing that isn't the operator's can be changed with them.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecr::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecr::types::{ImageScanningConfiguration, ImageTagMutability, Tag};
use ecr_operator::api::{EcrRegistry, EcrRepository};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use local_ecr::Config;
use serde_json::{Value, json};

use crate::scope::{HOST, registry};
use crate::support::iam::document;
use crate::support::operator::NAMESPACE;
use crate::support::world::{ACCOUNT, REGION, World};

/// Allowed for what other clients of the registry do, and the local ECR has no way to be asked for.
const OF_OTHER_CLIENTS: [(&str, &str); 2] = [
    ("ecr:BatchImportUpstreamImage", "the first pull of an image through a cache rule"),
    ("ecr:DescribeImages", "tools that look for the newest image, such as Flux and Renovate"),
];

/// A KMS key of the account's own.
const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/0d1e2f3a-0000-4000-8000-000000000001";

/// All that the documents allow.
fn actions(documents: &[Value]) -> BTreeSet<String> {
    let statements = documents.iter().flat_map(|document| document["Statement"].as_array().unwrap());
    let actions = statements.flat_map(|statement| match &statement["Action"] {
        Value::Array(actions) => actions.clone(),
        one => vec![one.clone()],
    });
    actions.map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// A world in which each role has its documents, and is assumed as the trust policy of `deploy/iam` says.
struct Roles {
    world: World,
    owner: String,
}

impl Roles {
    async fn new(name: &str, roles: &[&str]) -> Self {
        let world = World::without_registry(name, Config::default()).await;
        let system = Api::<Namespace>::all(world.client.clone()).get("kube-system").await.unwrap();
        let roles_of = Self { owner: system.metadata.uid.unwrap(), world };
        for role in roles {
            roles_of.give(role, &[role]);
        }
        let identity = |role: &str| {
            let source = json!({"accessKey": {"secretName": roles_of.world.registry}});
            let arn = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
            json!({"assumeRole": {"roleArn": arn, "externalId": "word", "source": source}})
        };
        let mut spec = json!({
            "region": REGION, "endpoint": {"url": roles_of.world.ecr.url()}, "identity": identity(roles[0]),
            "allow": [{"namespaces": {}, "manage": ["*"], "pull": ["team/*"], "push": ["team/*"], "maxAdoption": "TakeOver", "maxDeletion": "DeleteWithImages"}],
        });
        for role in &roles[1..] {
            let uses = if *role == "pusher" { "push" } else { "pull" };
            spec[uses] = json!({"identity": identity(role)});
        }
        let world = &roles_of.world;
        world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": world.registry}, "spec": spec})).await;
        world.registry_says("True", "Ready").await;
        roles_of
    }

    fn give(&self, role: &str, documents: &[&str]) {
        let fill = [("OWNER", self.owner.as_str()), ("KEY", KEY)];
        let policies: Vec<_> = documents.iter().map(|name| document(name, &fill)).collect();
        let source = format!("arn:aws:iam::{ACCOUNT}:user/admin");
        let trust = [("arn:aws:iam::OPERATOR_ACCOUNT:role/ROLE", source.as_str()), ("EXTERNAL_ID", "word")];
        let role = json!({"name": role, "trust": document("trust-assume-role", &trust), "policies": policies});
        let seed = json!({"accounts": [{"id": ACCOUNT, "roles": [role]}]});
        self.world.ecr.seed(&serde_json::from_value(seed).unwrap()).unwrap();
    }

    fn repositories(&self, repositories: &[(&str, BTreeMap<&str, &str>)]) {
        let repository = |(name, tags): &(&str, BTreeMap<&str, &str>)| json!({"account": ACCOUNT, "region": REGION, "name": name, "tags": tags, "images": [["v1"]]});
        let seed = json!({"repositories": repositories.iter().map(repository).collect::<Vec<_>>()});
        self.world.ecr.seed(&serde_json::from_value(seed).unwrap()).unwrap();
    }
}

fn owned_by(id: &str) -> BTreeMap<&str, &str> {
    BTreeMap::from([
        ("ecr-operator.dev/owner-id", id),
        ("ecr-operator.dev/namespace", "there"),
        ("ecr-operator.dev/name", "there"),
        ("ecr-operator.dev/uid", "there"),
    ])
}

#[tokio::test]
async fn the_managers_policy_is_all_that_repositories_take() {
    let roles = Roles::new("iam", &["manager"]).await;
    let world = &roles.world;
    let lifecycle = json!({"rules": [{"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 9}, "action": {"type": "expire"}}]});
    let policy = json!({"grants": [{"access": "Pull", "accounts": ["210987654321"]}]});
    world
        .repository("app", json!({"lifecyclePolicy": lifecycle, "repositoryPolicy": policy, "tags": {"a": "b"}}))
        .await;
    world.repository_says("app", "True", "Ready").await;
    let changed = json!({
        "imageTagMutability": "IMMUTABLE", "imageScanningConfiguration": {"scanOnPush": true},
        "lifecyclePolicy": {"rules": []}, "repositoryPolicy": {"grants": []}, "tags": {"c": "d"}, "deletionPolicy": "Delete",
    });
    world.repository("app", changed).await;
    world.repository_says("app", "True", "Ready").await;

    // The reads that find drift.
    world.again(&Api::<EcrRegistry>::all(world.client.clone()), &world.registry).await;
    assert!(world.ecr.wait_for_call(crate::support::world::PATIENCE, |call| call.service == "tagging").await.is_some());
    world.again(&world.api::<EcrRepository>(), "app").await;

    // Deleted only when that is said.
    world.put_image("app");
    world.api::<EcrRepository>().delete("app", &DeleteParams::default()).await.unwrap();
    world.repository_says("app", "False", "RepositoryNotEmpty").await;
    let images_too = Patch::Merge(json!({"spec": {"deletionPolicy": "DeleteWithImages"}}));
    world.api::<EcrRepository>().patch("app", &PatchParams::default(), &images_too).await.unwrap();
    world.until_gone(&world.api::<EcrRepository>(), "app").await;
    assert!(world.there("app").is_none());

    // What nobody owns can be adopted; what another cluster owns only with the right to take over.
    roles.repositories(&[("free", BTreeMap::new()), ("taken", owned_by("another-cluster"))]);
    let adopted =
        |policy: &str| json!({"adoptionPolicy": policy, "inheritDefaults": false, "imageTagMutability": "IMMUTABLE"});
    world.repository("free", adopted("Adopt")).await;
    world.repository_says("free", "True", "Ready").await;
    world.repository("taken", adopted("TakeOver")).await;
    let denied = world.repository_says("taken", "False", "Denied").await.status.unwrap();
    assert!(denied.conditions[0].message.contains("ecr:TagResource"), "{}", denied.conditions[0].message);
    assert_eq!(world.there("taken").unwrap().description["imageTagMutability"], "MUTABLE");
    roles.give("manager", &["manager", "take-over"]);
    world.again(&world.api::<EcrRepository>(), "taken").await;
    world.repository_says("taken", "True", "Ready").await;

    let allowed = actions(&[document("manager", &[]), document("take-over", &[])]);
    assert_eq!(world.ecr.actions_needed_by("manager"), allowed);
}

#[tokio::test]
async fn the_policy_for_keys_is_all_that_a_repository_with_a_key_of_your_own_takes_besides() {
    let roles = Roles::new("iamkms", &["manager"]).await;
    let world = &roles.world;
    let encryption = json!({"encryptionType": "KMS", "kmsKey": KEY});
    world.repository("app", json!({"encryptionConfiguration": encryption, "deletionPolicy": "Delete"})).await;
    let denied = world.repository_says("app", "False", "Denied").await.status.unwrap();
    assert!(denied.conditions[0].message.contains("kms:CreateGrant"), "{}", denied.conditions[0].message);
    assert!(world.there("app").is_none());
    roles.give("manager", &["manager", "kms"]);
    world.again(&world.api::<EcrRepository>(), "app").await;
    world.repository_says("app", "True", "Ready").await;
    assert_eq!(world.there("app").unwrap().description["encryptionConfiguration"]["kmsKey"], KEY);
    world.api::<EcrRepository>().delete("app", &DeleteParams::default()).await.unwrap();
    world.until_gone(&world.api::<EcrRepository>(), "app").await;
    assert!(world.there("app").is_none());

    let mut needed = world.ecr.actions_needed_by("manager");
    needed.retain(|action| action.starts_with("kms:"));
    assert_eq!(needed, actions(&[document("kms", &[])]));
    // No other key.
    let other = json!({"encryptionType": "KMS", "kmsKey": KEY.replace("0001", "0002")});
    world.repository("other", json!({"encryptionConfiguration": other})).await;
    world.repository_says("other", "False", "Denied").await;
}

#[tokio::test]
async fn the_managers_policy_changes_nothing_that_is_not_the_operators() {
    let roles = Roles::new("iamforeign", &["manager"]).await;
    roles.repositories(&[("theirs", owned_by("another-cluster")), ("unmarked", BTreeMap::new())]);
    let user = json!({"name": "as-manager", "accessKey": "AKIAASMANAGER", "secretKey": "k", "policies": [document("manager", &[("OWNER", &roles.owner)])]});
    roles
        .world
        .ecr
        .seed(&serde_json::from_value(json!({"accounts": [{"id": ACCOUNT, "users": [user]}]})).unwrap())
        .unwrap();
    let config = aws_sdk_ecr::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new("AKIAASMANAGER", "k", None, None, "test"))
        .http_client(roles.world.ecr.connector())
        .build();
    let ecr = aws_sdk_ecr::Client::from_conf(config);
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"ecr:*"}]}"#;
    let lifecycle = r#"{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}"#;
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build().unwrap();
    let mine = || tag("ecr-operator.dev/owner-id", &roles.owner);
    for name in ["theirs", "unmarked"] {
        let arn = format!("arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{name}");
        let scanning = ImageScanningConfiguration::builder().scan_on_push(true).build();
        let immutable = ImageTagMutability::Immutable;
        let attempts = [
            refused(ecr.delete_repository().repository_name(name).force(true).send().await),
            refused(ecr.set_repository_policy().repository_name(name).policy_text(policy).send().await),
            refused(ecr.delete_repository_policy().repository_name(name).send().await),
            refused(ecr.put_lifecycle_policy().repository_name(name).lifecycle_policy_text(lifecycle).send().await),
            refused(ecr.delete_lifecycle_policy().repository_name(name).send().await),
            refused(ecr.put_image_tag_mutability().repository_name(name).image_tag_mutability(immutable).send().await),
            refused(
                ecr.put_image_scanning_configuration()
                    .repository_name(name)
                    .image_scanning_configuration(scanning)
                    .send()
                    .await,
            ),
            refused(ecr.untag_resource().resource_arn(&arn).tag_keys("a").send().await),
            refused(ecr.tag_resource().resource_arn(&arn).tags(tag("a", "b")).send().await),
        ];
        assert_eq!(attempts, [true; 9], "{name}");
    }
    let theirs = format!("arn:aws:ecr:{REGION}:{ACCOUNT}:repository/theirs");
    assert!(refused(ecr.tag_resource().resource_arn(theirs).tags(mine()).send().await), "to take over takes a right");
    let nobodys = ecr.create_repository().repository_name("new");
    assert!(refused(nobodys.clone().send().await), "what is created says whose it is");
    assert!(!refused(nobodys.tags(mine()).send().await), "that was the reason");
}

/// Whether IAM was against it.
fn refused<T, E: ProvideErrorMetadata>(answer: Result<T, SdkError<E>>) -> bool {
    answer.err().is_some_and(|error| error.code() == Some("AccessDeniedException"))
}

#[tokio::test]
async fn the_pullers_and_the_pushers_policies_are_all_that_tokens_take() {
    let roles = Roles::new("iamtokens", &["manager", "puller", "pusher"]).await;
    roles.repositories(&[("team/app", BTreeMap::new())]);
    let world = &roles.world;
    let digest = format!("sha256:{:064}", 0);
    let ask = async |auth: &str, method: &str, path: &str| {
        registry(world, auth, method, &format!("/v2/team/app/{path}")).await
    };
    for (name, access, may_push) in [("puller", "Pull", false), ("pusher", "Push", true)] {
        world.pull_secret(name, json!({"access": access, "verify": {"repository": "team/app"}})).await;
        world.pull_secret_says(name, "True", "Ready").await;
        let secret = world.api::<Secret>().get(name).await.unwrap();
        let written: Value = serde_json::from_slice(&secret.data.unwrap()[".dockerconfigjson"].0).unwrap();
        let auth = written["auths"][HOST]["auth"].as_str().unwrap().to_owned();
        let blob = format!("blobs/{digest}");
        let referrers = format!("referrers/{digest}");
        for (method, path) in
            [("GET", "manifests/v1"), ("HEAD", &blob), ("GET", &blob), ("GET", "tags/list"), ("GET", &referrers)]
        {
            assert_ne!(ask(&auth, method, path).await, 403, "{name} {method} {path}");
        }
        for (method, path) in [
            ("POST", "blobs/uploads/"),
            ("PATCH", "blobs/uploads/1"),
            ("PUT", "blobs/uploads/1"),
            ("PUT", "manifests/v2"),
        ] {
            assert_eq!(ask(&auth, method, path).await != 403, may_push, "{name} {method} {path}");
        }
        let mut allowed = actions(&[document(name, &[])]);
        allowed.retain(|action| OF_OTHER_CLIENTS.iter().all(|(other, _)| other != action));
        let mut needed = world.ecr.actions_needed_by(name);
        if !may_push {
            // Tried above, and refused.
            let pushes = ["ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage"];
            needed.retain(|action| !pushes.contains(&action.as_str()));
        }
        assert_eq!(needed, allowed, "{name}");
    }
}

#[tokio::test]
async fn the_trust_policy_for_irsa_admits_the_operators_service_account_and_no_other() {
    let world = World::without_registry("irsa", Config::default()).await;
    let issuer = "kubernetes.default.svc";
    let role = json!({"name": "operator", "trust": document("trust-irsa", &[("ISSUER", issuer)]), "policies": [document("puller-public", &[])]});
    let seed = json!({"accounts": [{"id": ACCOUNT, "roles": [role], "oidcProviders": [format!("https://{issuer}")]}]});
    world.ecr.seed(&serde_json::from_value(seed).unwrap()).unwrap();
    // As the chart renders serviceAccountTokens.
    let name = &world.namespace;
    let other =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}});
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    let rules = json!([{"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["ecr-operator", name], "verbs": ["create"]}]);
    let role =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules});
    let subjects = json!([{"kind": "ServiceAccount", "name": "ecr-operator", "namespace": NAMESPACE}]);
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata, "roleRef": reference, "subjects": subjects});
    for object in [other, role, binding] {
        world.apply(&object).await;
    }
    for (account, status, reason) in [(name.as_str(), "False", "Denied"), ("ecr-operator", "True", "Ready")] {
        let identity = json!({"webIdentity": {"roleArn": format!("arn:aws:iam::{ACCOUNT}:role/operator"), "serviceAccountRef": {"namespace": NAMESPACE, "name": account}}});
        let spec = json!({"region": REGION, "endpoint": {"url": world.ecr.url()}, "identity": identity, "allow": [{"namespaces": {}, "pull": ["*"]}]});
        world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": world.registry}, "spec": spec})).await;
        world.registry_says(status, reason).await;
    }

    // And the policy for tokens of ECR Public.
    let registries = json!([{"registryRef": {"name": world.registry}, "public": {}}]);
    world.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrPullSecret", "metadata": {"name": "pull", "namespace": name}, "spec": {"registries": registries}})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let mut needed = world.ecr.actions_needed_by("operator");
    assert!(needed.remove("ecr:GetRegistryScanningConfiguration"), "this identity is asked to manage as well");
    assert_eq!(needed, actions(&[document("puller-public", &[])]));
}
