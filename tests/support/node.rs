//! A real node with the operator at work, and an ECR for each test that the node finds under its true host name.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ecr_operator::aws::{Credentials, Endpoint, Session, SessionOptions, StaticKey};
use ecr_operator::core::names::Region;
use ecr_operator::core::scope::Scope;
use ecr_operator::core::token::{Secret, Service};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::wait::await_condition;
use local_ecr::{Config, Layers};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::support::cluster::{Cluster, SCRIPT};
use crate::support::operator::Operator;
use crate::support::world::{REGION, World};

/// The one repository of every test.
const REPOSITORY: &str = "team-a/hello";
/// For a pod: scheduling, pulling and starting, beside others on a small machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// How much of each log is shown when something went wrong.
const TAIL_LINES: usize = 25;

/// The node of this test binary.
pub struct Node {
    cluster: Cluster,
    operator: Operator,
}

impl Node {
    /// The first to ask waits until node and operator are ready.
    async fn shared() -> &'static Self {
        static SHARED: OnceCell<Node> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async {
                let cluster = Cluster::start("node").await;
                let operator = Operator::start(&cluster, "operator").await;
                Self { cluster, operator }
            })
            .await
    }
}

/// A world on the node, with an account of its own and a repository in it.
pub struct Place {
    pub world: World,
    node: &'static Node,
    /// The registry's name in images and secrets.
    host: String,
}

impl Place {
    pub async fn new(name: &str) -> Self {
        Self::at(name, 0).await
    }

    /// The same, with the ECR at a port of the machine's: at 80 it is found by its true host name alone.
    pub async fn at(name: &str, port: u16) -> Self {
        static ACCOUNT: AtomicU64 = AtomicU64::new(123_456_789_012);
        let node = Node::shared().await;
        let mut config = Config::default();
        config.account = ACCOUNT.fetch_add(1, Ordering::Relaxed).to_string();
        config.listen = vec![SocketAddr::new(node.cluster.told("host-ip").parse().unwrap(), port)];
        config.layers = Layers::DockerRegistry { directory: None };
        let host = format!("{}.dkr.ecr.{REGION}.amazonaws.com", config.account);
        let place = Self { world: World::bare(&node.cluster, name, config).await, node, host };
        let directory = node.cluster.directory().to_str().unwrap();
        let mapping = format!("{}={}", place.host, place.world.ecr.registry_url());
        place.run(SCRIPT, &["map-registry", "--dir", directory, &mapping]).await;
        place.world.register(json!({})).await;
        place.world.registry_says("True", "Ready").await;
        place.world.repository("hello", json!({"name": REPOSITORY})).await;
        place.world.repository_says("hello", "True", "Ready").await;
        place
    }

    /// The name of the image with a tag.
    pub fn image(&self, tag: &str) -> String {
        format!("{}/{REPOSITORY}:{tag}", self.host)
    }

    /// Builds an image that differs from those with other tags; returns where it lies, in skopeo's words.
    async fn build(&self, tag: &str) -> String {
        let image = self.image(tag);
        let program = self.node.cluster.tools().join("hello");
        let archive = self.file(&format!("{tag}.tar"));
        let archive = archive.to_str().unwrap();
        let label = format!("tag={tag}");
        let build =
            ["build", "--binary", program.to_str().unwrap(), "--name", &image, "--label", &label, "--out", archive];
        self.run(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/local/image"), &build).await;
        format!("oci-archive:{archive}")
    }

    /// Pushes such an image with a token; returns its name.
    pub async fn push(&self, tag: &str) -> String {
        let from = self.build(tag).await;
        let registry = self.world.ecr.registry();
        let credentials = self.file("auth.json");
        let file =
            std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&credentials).unwrap();
        serde_json::to_writer(file, &json!({"auths": {&registry: {"auth": self.token().await.expose()}}})).unwrap();
        let to = format!("docker://{registry}/{REPOSITORY}:{tag}");
        let credentials = credentials.to_str().unwrap();
        self.run("skopeo", &["copy", "--dest-tls-verify=false", "--authfile", credentials, &from, &to]).await;
        self.image(tag)
    }

    /// A token as `aws ecr get-authorization-token` gives it.
    pub async fn token(&self) -> Secret {
        let admin = Config::default();
        let key = StaticKey {
            access_key_id: admin.access_key,
            secret_access_key: Secret::new(admin.secret_key),
            session_token: None,
        };
        let endpoint = Endpoint { url: Some(self.world.ecr.url()), ..Endpoint::default() };
        let region = Region::parse(REGION).unwrap();
        let session = Session::new(&Credentials::AccessKey(key), &region, &endpoint, &SessionOptions::default()).await;
        let account = session.caller().await.unwrap().account;
        session.mint(&account, Service::Private, &Scope::Identity).await.unwrap().auth
    }

    /// Makes a pull secret by hand.
    pub async fn secret(&self, namespace: &str, name: &str, auth: &str) {
        let document = json!({"auths": {&self.host: {"auth": auth}}}).to_string();
        self.world
            .apply(&json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
                "metadata": {"name": name, "namespace": namespace}, "stringData": {".dockerconfigjson": document},
            }))
            .await;
    }

    /// Starts a pod that names these pull secrets.
    pub async fn pod(&self, namespace: &str, name: &str, image: &str, secrets: &[&str]) {
        let secrets = secrets.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        self.world
            .apply(&json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "automountServiceAccountToken": false,
                    "dnsPolicy": "Default",
                    "imagePullSecrets": secrets,
                    "containers": [{"name": "hello", "image": image, "imagePullPolicy": "Always"}],
                },
            }))
            .await;
    }

    /// Waits until the pod runs.
    pub async fn runs(&self, namespace: &str, name: &str) -> Pod {
        match self.outcome(namespace, name).await {
            (pod, None) => pod,
            (_, Some(refusal)) => panic!("{name} doesn't run: {refusal}{}", self.explain(namespace).await),
        }
    }

    /// Waits until the kubelet says that it can't pull the pod's image, and why.
    pub async fn is_refused(&self, namespace: &str, name: &str, why: &str) {
        let (_, refusal) = self.outcome(namespace, name).await;
        let told = refusal.as_ref().is_some_and(|refusal| refusal.contains(why));
        assert!(told, "{name} is not refused with {why}, but: {refusal:?}{}", self.explain(namespace).await);
    }

    /// Lets a pod that runs `image` push such an image; all it has is this one secret. Waits for its end, and returns
    /// its phase and what it complained of.
    pub async fn push_from_pod(&self, secret: &str, image: &str, tag: &str) -> (String, String) {
        let namespace = &self.world.namespace;
        let directory = self.node.cluster.directory().to_str().unwrap();
        let (from, to) = (self.build(tag).await, format!("docker://{}", self.image(tag)));
        // The machine's own skopeo: no image here has a tool in it.
        let machine = ["/usr", "/lib", "/lib64", directory];
        let machine = || machine.iter().enumerate().map(|(index, path)| (format!("machine-{index}"), path));
        let mut volumes =
            machine().map(|(name, path)| json!({"name": name, "hostPath": {"path": path}})).collect::<Vec<_>>();
        let mut mounts = machine()
            .map(|(name, path)| json!({"name": name, "mountPath": path, "readOnly": true}))
            .collect::<Vec<_>>();
        volumes.push(json!({"name": "secret", "secret": {"secretName": secret}}));
        mounts.push(json!({"name": "secret", "mountPath": "/secret", "readOnly": true}));
        self.world
            .apply(&json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": secret, "namespace": namespace},
                "spec": {
                    "automountServiceAccountToken": false,
                    "dnsPolicy": "Default",
                    "hostAliases": [{"ip": self.node.cluster.told("host-ip"), "hostnames": [self.host]}],
                    "imagePullSecrets": [{"name": secret}],
                    "restartPolicy": "Never",
                    "volumes": volumes,
                    "containers": [{
                        "name": "push", "image": image, "imagePullPolicy": "Always", "volumeMounts": mounts,
                        "command": ["/usr/bin/skopeo", "--insecure-policy", "--tmpdir", "/tmp", "copy", "--dest-tls-verify=false"],
                        "args": ["--authfile", "/secret/.dockerconfigjson", from, to],
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                    }],
                },
            }))
            .await;
        let api = self.world.api::<Pod>();
        let ended = |pod: Option<&Pod>| pod.is_some_and(|pod| matches!(phase(pod), Some("Succeeded" | "Failed")));
        let Ok(pod) = timeout(PATIENCE, await_condition(api, secret, ended)).await else {
            panic!("{secret} doesn't end{}", self.explain(namespace).await);
        };
        let pod = pod.unwrap().unwrap();
        let containers = pod.status.as_ref().unwrap().container_statuses.iter().flatten();
        let words = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.message.clone());
        (phase(&pod).unwrap().to_owned(), words.collect())
    }

    /// Waits until the pod runs, or its image can't be pulled: then with the kubelet's words.
    async fn outcome(&self, namespace: &str, name: &str) -> (Pod, Option<String>) {
        let api = Api::<Pod>::namespaced(self.world.client.clone(), namespace);
        let settled = |pod: Option<&Pod>| pod.is_some_and(|pod| is_running(pod) || refusal(pod).is_some());
        let Ok(pod) = timeout(PATIENCE, await_condition(api, name, settled)).await else {
            panic!("{name} neither runs nor fails to pull{}", self.explain(namespace).await);
        };
        let pod = pod.unwrap().unwrap();
        let refusal = refusal(&pod);
        (pod, refusal)
    }

    /// All that helps to find out why.
    async fn explain(&self, namespace: &str) -> String {
        let pods = self.node.cluster.kubectl(&["describe", "pods", "--namespace", namespace], "").await;
        let mut text = format!("\n\n{}", pods.text);
        let logs = self.node.cluster.directory().join("logs");
        for log in [logs.join("kubelet.log"), logs.join("containerd.log"), self.node.operator.log.clone()] {
            let lines = std::fs::read_to_string(&log).unwrap_or_else(|error| error.to_string());
            let lines = lines.lines().collect::<Vec<_>>();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            write!(text, "\n== {} ==\n{}\n", log.display(), tail.join("\n")).unwrap();
        }
        text
    }

    /// A file that goes with the node.
    fn file(&self, name: &str) -> PathBuf {
        self.node.cluster.directory().join(format!("{}-{name}", self.world.namespace))
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        let ran = self.node.cluster.run(program, arguments, "").await;
        assert!(ran.ok, "{program} {arguments:?}: {}", ran.text);
    }
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn is_running(pod: &Pod) -> bool {
    phase(pod) == Some("Running")
}

/// Why the image can't be pulled. The second reason is the first one told again, between two tries.
fn refusal(pod: &Pod) -> Option<String> {
    let containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    let mut waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let refused =
        waiting.find(|waiting| matches!(waiting.reason.as_deref(), Some("ErrImagePull" | "ImagePullBackOff")))?;
    refused.message.clone()
}
