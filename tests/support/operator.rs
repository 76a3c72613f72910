//! The operator under test: the real binary as a process of its own, logged in as the chart's ServiceAccount with the
//! chart's rights.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::sync::OnceCell;

use super::cluster::Cluster;
use super::signals;

/// Where the chart is installed.
pub const NAMESPACE: &str = "ecr-operator-system";

/// Ends the operator, gracefully, when its own standard input ends: with this process, whatever becomes of it.
const OPERATOR: &str = r#"trap : INT; "$@" & operator=$!; echo "$operator"; cat >/dev/null; kill -TERM "$operator" 2>/dev/null; kill -CONT "$operator" 2>/dev/null; wait "$operator""#;

/// A running operator.
pub struct Operator {
    /// Its standard input ends with this process, and the operator with it.
    process: Child,
    /// The operator itself.
    pid: String,
    /// What it logs.
    pub log: PathBuf,
    /// Where it serves its health and metrics.
    pub address: String,
}

impl Operator {
    /// The operator of the shared cluster; the first to ask waits until it is ready.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Operator> = OnceCell::const_new();
        SHARED.get_or_init(|| async { Self::start(Cluster::shared().await, "operator").await }).await
    }

    /// One for `cluster`.
    pub async fn start(cluster: &Cluster, name: &str) -> Self {
        Self::start_with(cluster, name, &[]).await
    }

    /// The same, with this in its environment. It is ready, but another may be working.
    pub async fn start_with(cluster: &Cluster, name: &str, environment: &[(&str, &str)]) -> Self {
        let operator = Self::launch(cluster, name, environment).await;
        operator.until_ready().await;
        operator
    }

    /// The same, but nothing is waited for.
    pub async fn launch(cluster: &Cluster, name: &str, environment: &[(&str, &str)]) -> Self {
        let kubeconfig = install(cluster).await;
        let directory = kubeconfig.parent().unwrap();
        let log = directory.join(format!("{name}.log"));
        let address = free_address();
        let defaults = [("ECR_OPERATOR_LOG", "info,ecr_operator=debug"), ("POD_NAME", name)];
        let mut process = Command::new("sh")
            .args(["-c", OPERATOR, "operator", env!("CARGO_BIN_EXE_ecr-operator"), "run"])
            .args(["--allow-endpoint-override", "--listen", &address, "--namespace", NAMESPACE])
            .env("KUBECONFIG", &kubeconfig)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(defaults.into_iter().chain(environment.iter().copied()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        Self { process, pid: pid.trim().to_owned(), address, log }
    }

    /// Sends it a signal, as in `STOP`.
    pub fn signal(&self, name: &str) {
        signals::send(name, &self.pid);
    }

    /// Whether it says that it is the one that works.
    pub async fn leads(&self) -> bool {
        get(&self.address, "/metrics").await.is_some_and(|answer| answer.contains("\necr_operator_leader 1\n"))
    }

    /// Waits until it ended by itself.
    pub async fn until_gone(&self) {
        let gone = async {
            while Path::new("/proc").join(&self.pid).join("fd").read_dir().is_ok_and(|mut files| files.next().is_some())
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_mins(1), gone).await;
        assert!(in_time.is_ok(), "it goes on; it logged:\n{}", self.logged());
    }

    /// Waits until it is.
    pub async fn until_ready(&self) {
        self.until_readyz("200 OK").await;
    }

    /// Waits until what it answers about being ready contains this.
    pub async fn until_readyz(&self, wanted: &str) {
        let ready = async {
            while !get(&self.address, "/readyz").await.is_some_and(|answer| answer.contains(wanted)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_mins(1), ready).await;
        assert!(in_time.is_ok(), "/readyz never says {wanted:?}; it logged:\n{}", self.logged());
    }

    /// Ends it, gracefully, and waits for that.
    pub fn stop(mut self) {
        drop(self.process.stdin.take());
        let ended = self.process.wait().unwrap();
        assert!(ended.success(), "it ended badly:\n{}", self.logged());
    }

    /// All that it logged so far.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The answer to a GET, head and body; `None` where nobody listens.
pub async fn get(address: &str, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Installs the chart's ServiceAccount and rights, and nothing else of it; returns a kubeconfig that logs in so.
pub async fn install(cluster: &Cluster) -> PathBuf {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/ecr-operator");
    let rendered = cluster
        .helm(&[
            "template",
            "ecr-operator",
            chart.to_str().unwrap(),
            "--namespace",
            NAMESPACE,
            "--show-only",
            "templates/serviceaccount.yaml",
            "--show-only",
            "templates/rbac.yaml",
            "--set",
            "restartStuckPods.enabled=true",
        ])
        .await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}).to_string();
    for manifest in [namespace, rendered] {
        let applied = cluster.kubectl(&["apply", "-n", NAMESPACE, "-f", "-"], &manifest).await;
        assert!(applied.ok, "{}", applied.text);
    }
    let token = cluster.kubectl(&["create", "token", "ecr-operator", "-n", NAMESPACE, "--duration", "24h"], "").await;
    assert!(token.ok, "{}", token.text);
    let kubeconfig = cluster.kubeconfig().with_file_name("operator.kubeconfig");
    std::fs::copy(cluster.kubeconfig(), &kubeconfig).unwrap();
    let file = kubeconfig.to_str().unwrap();
    for arguments in [
        vec!["config", "set-credentials", "operator", "--token", token.text.trim()],
        vec!["config", "set-context", "--current", "--user", "operator"],
    ] {
        let set = cluster.kubectl(&[&["--kubeconfig", file][..], &arguments].concat(), "").await;
        assert!(set.ok, "{}", set.text);
    }
    kubeconfig
}
