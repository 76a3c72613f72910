//! A world for one test: a namespace, an account in a local ECR of its own, and an `EcrRegistry` that leads there.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use ecr_operator::api::{ClusterEcrPullSecret, EcrPullSecret, EcrRegistry, EcrRepository};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::wait::await_condition;
use kube::{Client, Resource, ResourceExt as _};
use local_ecr::{Config, LocalEcr};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::moto::Moto;
use super::operator::{NAMESPACE, Operator};

/// For anything that the operator does.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The account of every local ECR.
pub const ACCOUNT: &str = "123456789012";
/// Its Region.
pub const REGION: &str = "eu-west-1";

/// Everything one test needs, apart from all others.
pub struct World {
    /// As the cluster's administrator.
    pub client: Client,
    /// AWS; unused where `moto` stands in for it.
    pub ecr: LocalEcr,
    /// AWS as others understood it.
    moto: Option<Moto>,
    /// A namespace with no object in it.
    pub namespace: String,
    /// The name of the `EcrRegistry`, and of the Secret with its access key.
    pub registry: String,
}

/// A repository as AWS holds it.
#[derive(Debug)]
pub struct There {
    /// Its ARN.
    pub arn: String,
    /// As `DescribeRepositories` answers it.
    pub description: Value,
    /// All of them.
    pub tags: BTreeMap<String, String>,
    /// The lifecycle policy.
    pub lifecycle_policy: Option<Value>,
    /// The repository policy.
    pub policy: Option<Value>,
}

impl World {
    /// With the operator that all tests share.
    pub async fn new(name: &str) -> Self {
        Operator::shared().await;
        Self::at(Cluster::shared().await, name).await
    }

    /// The same with moto as its AWS; `None` where there is no moto.
    pub async fn on_moto(name: &str) -> Option<Self> {
        let moto = Moto::start().await?;
        let world = Self { moto: Some(moto), ..Self::without_registry(name, Config::default()).await };
        world.register(json!({})).await;
        world.registry_says("True", "Ready").await;
        world.clear_calls();
        Some(world)
    }

    /// In a cluster of its own.
    pub async fn at(cluster: &Cluster, name: &str) -> Self {
        let world = Self::bare(cluster, name, Config::default()).await;
        world.register(json!({})).await;
        world.registry_says("True", "Ready").await;
        // How a registry scans is asked once an interval, and that was now.
        world.ecr.wait_for_call(PATIENCE, |call| call.operation == "GetRegistryScanningConfiguration").await;
        world.ecr.clear_calls();
        world
    }

    /// The same, with the registry still to be made.
    pub async fn without_registry(name: &str, config: Config) -> Self {
        Operator::shared().await;
        Self::bare(Cluster::shared().await, name, config).await
    }

    /// In a cluster whose operator is taken care of elsewhere, with the registry still to be made.
    pub async fn bare(cluster: &Cluster, name: &str, config: Config) -> Self {
        let short = name.replace('_', "-").chars().take(30).collect::<String>();
        let namespace = cluster.namespace(short.trim_end_matches('-')).await;
        let client = cluster.client().await;
        let (id, secret) = (config.access_key.clone(), config.secret_key.clone());
        let ecr = LocalEcr::start(config).await.unwrap();
        let world = Self { client, ecr, moto: None, registry: namespace.clone(), namespace };
        world.access_key(&id, &secret).await;
        world
    }

    /// Makes or changes the Secret with the registry's access key.
    pub async fn access_key(&self, id: &str, secret: &str) {
        let data = json!({"accessKeyId": id, "secretAccessKey": secret});
        self.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": self.registry, "namespace": NAMESPACE}, "stringData": data})).await;
    }

    /// Makes or changes the registry: this over what every test needs.
    pub async fn register(&self, spec: Value) {
        let url = self.moto.as_ref().map_or_else(|| self.ecr.url(), Moto::url);
        self.registry_at(&url, spec).await;
    }

    /// The same, with another endpoint.
    pub async fn registry_at(&self, url: &str, over: Value) {
        let mut spec = json!({
            "region": REGION,
            "endpoint": {"url": url},
            "identity": {"accessKey": {"secretName": self.registry}},
            "pull": {"scopeTokens": "Never"},
            "driftInterval": "1h",
            "allow": [{"namespaces": {}, "manage": ["*"], "pull": ["*"], "maxAdoption": "TakeOver", "maxDeletion": "DeleteWithImages"}],
        });
        merge(&mut spec, over);
        self.apply(&json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRegistry", "metadata": {"name": self.registry}, "spec": spec})).await;
    }

    /// Makes or changes an `EcrRepository`: its spec, but for the registry.
    pub async fn repository(&self, name: &str, spec: Value) {
        self.repository_in(&self.namespace, name, spec).await;
    }

    /// The same in another namespace.
    pub async fn repository_in(&self, namespace: &str, name: &str, mut spec: Value) {
        merge(&mut spec, json!({"registryRef": {"name": self.registry}}));
        let object = json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRepository", "metadata": {"name": name, "namespace": namespace}, "spec": spec});
        self.apply(&object).await;
    }

    /// Makes or changes an `EcrPullSecret`.
    pub async fn pull_secret(&self, name: &str, spec: Value) {
        let mut whole = json!({"registries": [{"registryRef": {"name": self.registry}}]});
        merge(&mut whole, spec);
        let object = json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrPullSecret", "metadata": {"name": name, "namespace": self.namespace}, "spec": whole});
        self.apply(&object).await;
    }

    /// Makes or changes a `ClusterEcrPullSecret` that selects namespaces by the label of this world.
    pub async fn cluster_pull_secret(&self, name: &str, spec: Value) {
        let mut whole = json!({"registries": [{"registryRef": {"name": self.registry}}], "namespaceSelector": {"matchLabels": {"world": self.namespace}}});
        merge(&mut whole, spec);
        let object = json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "ClusterEcrPullSecret", "metadata": {"name": name}, "spec": whole});
        self.apply(&object).await;
    }

    /// Makes or changes a namespace with the label of this world.
    pub async fn selected_namespace(&self, suffix: &str) -> String {
        let name = format!("{}-{suffix}", self.namespace);
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"world": self.namespace}}})).await;
        name
    }

    /// Server-side apply, as GitOps tools do it.
    pub async fn apply(&self, object: &Value) {
        let object: kube::core::DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let types = object.types.clone().unwrap();
        let kind = kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::try_from(&types).unwrap());
        let kind = kube::core::ApiResource { plural: plural(&types.kind), ..kind };
        let api: Api<kube::core::DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        };
        let params = PatchParams::apply("e2e").force();
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|error| panic!("{error}: {object:?}"));
    }

    /// Objects of a kind in this world's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until the object is as `wanted`.
    pub async fn until<K>(&self, api: &Api<K>, name: &str, what: &str, wanted: impl Fn(&K) -> bool + Send) -> K
    where
        K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static,
    {
        let reached = await_condition(api.clone(), name, |object: Option<&K>| object.is_some_and(&wanted));
        if let Ok(found) = tokio::time::timeout(PATIENCE, reached).await {
            return found.unwrap().unwrap();
        }
        let object = serde_json::to_string_pretty(&api.get_opt(name).await.unwrap()).unwrap();
        panic!("{name} never was {what}; it is:\n{object}\nAWS was asked:\n{}", self.asked())
    }

    /// Makes the operator believe that a repository is an old one: what vanishes right after creation may just not be
    /// shown yet.
    pub async fn age(&self, name: &str) {
        let yesterday = jiff::Timestamp::now() - Duration::from_hours(24);
        let status =
            Patch::Merge(json!({"status": {"createdAt": yesterday.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}}));
        self.api::<EcrRepository>().patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    /// Asks for a pass over an object, now.
    pub async fn again<K>(&self, api: &Api<K>, name: &str)
    where
        K: Resource + Clone + Debug + DeserializeOwned,
    {
        let now = jiff::Timestamp::now().to_string();
        let annotate = Patch::Merge(json!({"metadata": {"annotations": {"ecr-operator.dev/reconcile-at": now}}}));
        api.patch(name, &PatchParams::default(), &annotate).await.unwrap();
    }

    /// Waits until the repository object's Ready says this.
    pub async fn repository_says(&self, name: &str, status: &str, reason: &str) -> EcrRepository {
        self.repository_in_says(&self.namespace, name, status, reason).await
    }

    /// The same in another namespace.
    pub async fn repository_in_says(&self, namespace: &str, name: &str, status: &str, reason: &str) -> EcrRepository {
        let api: Api<EcrRepository> = Api::namespaced(self.client.clone(), namespace);
        let says = |object: &EcrRepository| {
            let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            ready_is(conditions, object.metadata.generation, status, reason)
        };
        self.until(&api, name, &format!("Ready={status} {reason}"), says).await
    }

    /// Waits until the pull secret's Ready says this.
    pub async fn pull_secret_says(&self, name: &str, status: &str, reason: &str) -> EcrPullSecret {
        let says = |object: &EcrPullSecret| {
            let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            ready_is(conditions, object.metadata.generation, status, reason)
        };
        self.until(&self.api(), name, &format!("Ready={status} {reason}"), says).await
    }

    /// Waits until the cluster-wide pull secret's Secrets are counted so: it may be many.
    pub async fn secrets_are(&self, name: &str, count: &str, patience: Duration) -> ClusterEcrPullSecret {
        let api: Api<ClusterEcrPullSecret> = Api::all(self.client.clone());
        let counted = |object: Option<&ClusterEcrPullSecret>| {
            let status = object.and_then(|object| object.status.as_ref());
            status.is_some_and(|status| status.secrets.as_deref() == Some(count))
        };
        let reached = tokio::time::timeout(patience, await_condition(api, name, counted)).await;
        reached.unwrap_or_else(|_| panic!("never {count} Secrets; AWS was asked:\n{}", self.asked())).unwrap().unwrap()
    }

    /// Waits until the registry's Ready says this.
    pub async fn registry_says(&self, status: &str, reason: &str) -> EcrRegistry {
        let api: Api<EcrRegistry> = Api::all(self.client.clone());
        let says = |object: &EcrRegistry| {
            let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            ready_is(conditions, object.metadata.generation, status, reason)
        };
        self.until(&api, &self.registry, &format!("Ready={status} {reason}"), says).await
    }

    /// Deletes an object and waits until it is gone.
    pub async fn delete<K>(&self, api: &Api<K>, name: &str)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        api.delete(name, &DeleteParams::default()).await.unwrap();
        self.until_gone(api, name).await;
    }

    /// Waits until there is no such object.
    pub async fn until_gone<K>(&self, api: &Api<K>, name: &str)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.until_gone_within(PATIENCE, api, name).await;
    }

    /// The same, with another patience.
    pub async fn until_gone_within<K>(&self, patience: Duration, api: &Api<K>, name: &str)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let gone = await_condition(api.clone(), name, |object: Option<&K>| object.is_none());
        if tokio::time::timeout(patience, gone).await.is_err() {
            let object = api.get_opt(name).await.unwrap();
            panic!("{name} never went; it is:\n{object:#?}\nAWS was asked:\n{}", self.asked());
        }
    }

    /// The repository as AWS holds it.
    pub fn there(&self, name: &str) -> Option<There> {
        if let Some(moto) = &self.moto {
            return moto.there(name);
        }
        let there = self.ecr.repository(ACCOUNT, REGION, name)?;
        let local_ecr::RepositorySnapshot { arn, description, tags, lifecycle_policy, policy, .. } = there;
        Some(There { arn, description, tags, lifecycle_policy, policy })
    }

    /// An operation of ECR by somebody else's hand; it isn't counted.
    pub fn behind_the_back(&self, operation: &str, body: Value) {
        match &self.moto {
            Some(moto) => drop(moto.call(operation, &body).unwrap()),
            None => drop(self.ecr.behind_the_back(ACCOUNT, REGION, operation, body).unwrap()),
        }
    }

    /// An image that somebody pushed, with the tag `v1`.
    pub fn put_image(&self, repository: &str) {
        let Some(moto) = &self.moto else {
            return drop(self.ecr.put_image(ACCOUNT, REGION, repository, &["v1"]).unwrap());
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{:064}", 0), "size": 2},
        });
        let body = json!({"repositoryName": repository, "imageManifest": manifest.to_string(), "imageTag": "v1"});
        moto.call("PutImage", &body).unwrap();
    }

    /// The operations that changed something in ECR since the log was cleared, in order.
    pub fn writes(&self) -> Vec<String> {
        let reads = ["Describe", "List", "Get", "Batch"];
        let mut operations = self.operations();
        operations.retain(|name| !reads.iter().any(|read| name.starts_with(read)));
        operations
    }

    /// All operations on ECR since the log was cleared, in order.
    pub fn operations(&self) -> Vec<String> {
        if let Some(moto) = &self.moto {
            return moto.operations();
        }
        self.ecr.calls().into_iter().filter(|call| call.service == "ecr").map(|call| call.operation).collect()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        match &self.moto {
            Some(moto) => moto.clear_calls(),
            None => self.ecr.clear_calls(),
        }
    }

    /// The reasons of all events about an object, oldest first.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let api: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut all = api.list(&ListParams::default()).await.unwrap().items;
        all.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        let about = all
            .into_iter()
            .filter(|event| event.regarding.as_ref().is_some_and(|object| object.name.as_deref() == Some(name)));
        about.filter_map(|event| event.reason).collect()
    }

    /// Waits until an event with this reason is told of an object.
    pub async fn event(&self, name: &str, reason: &str) {
        self.eventually(&format!("event {reason} of {name}"), || async {
            self.events(name).await.iter().any(|told| told == reason).then_some(())
        })
        .await;
    }

    /// Asks again until there is an answer.
    pub async fn eventually<T, F: Future<Output = Option<T>>>(&self, what: &str, ask: impl Fn() -> F) -> T {
        let asking = async {
            loop {
                if let Some(answer) = ask().await {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        answer.unwrap_or_else(|_| panic!("never: {what}; AWS was asked:\n{}", self.asked()))
    }

    fn asked(&self) -> String {
        if let Some(moto) = &self.moto {
            return moto.operations().join("\n");
        }
        let told = |call: &local_ecr::Call| {
            format!("  {} {} {} {:?}", call.service, call.operation, call.resource, call.outcome)
        };
        self.ecr.calls().iter().map(told).collect::<Vec<_>>().join("\n")
    }
}

fn ready_is(conditions: &[Condition], generation: Option<i64>, status: &str, reason: &str) -> bool {
    conditions.iter().any(|condition| {
        condition.type_ == "Ready"
            && condition.status == status
            && condition.reason == reason
            && condition.observed_generation == generation
    })
}

fn plural(kind: &str) -> String {
    match kind {
        "EcrRegistry" => "ecrregistries".to_owned(),
        "EcrRepository" => "ecrrepositories".to_owned(),
        "ValidatingAdmissionPolicy" => "validatingadmissionpolicies".to_owned(),
        "MutatingAdmissionPolicy" => "mutatingadmissionpolicies".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    }
}

/// Puts the members of `over` over those of `base`.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(there) if there.is_object() && value.is_object() => merge(there, value),
                    _ => drop(base.insert(key, value)),
                }
            }
        }
        (base, over) => *base = over,
    }
}
