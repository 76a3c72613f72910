//! A real cluster with our kinds installed, one for a whole test binary: a control plane, or a node with all of it.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use ecr_operator::api::all_crds;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ObjectMeta;
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Client, Config, ResourceExt as _};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// Building the tools on a bare machine is slow; a control plane that fails says so at once.
const UNTIL_READY: Duration = Duration::from_mins(20);
/// For anything the API server does.
const PATIENCE: Duration = Duration::from_secs(30);
/// Ends with its standard input, whatever becomes of us, and takes its directory along.
const CLUSTER: &str = r#"trap : INT TERM HUP; "$0" "$1" --dir "$2"; rm -rf "$2""#;
/// What starts it.
pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/local/cluster");

/// So many were started by this process.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// A control plane, or a whole node.
pub struct Cluster {
    /// The line that it said when it was ready.
    ready: String,
    kubeconfig: PathBuf,
    /// The directory of kubectl and helm.
    tools: PathBuf,
    /// Ends with this process, and the control plane with it.
    orders: Mutex<ChildStdin>,
    _process: Child,
}

/// What a run of a tool came to.
pub struct Ran {
    /// Whether it succeeded.
    pub ok: bool,
    /// All that it printed.
    pub text: String,
}

impl Cluster {
    /// The control plane of this test binary; the first to ask waits until it is up.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start("control-plane")).await
    }

    /// Starts what the script knows by this name, with our kinds.
    pub async fn start(command: &'static str) -> Self {
        let cluster = spawn_blocking(|| Self::spawn(command)).await.unwrap();
        cluster.install_crds().await;
        cluster
    }

    fn spawn(command: &str) -> Self {
        // Only the first installation counts, and all are the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // Short: socket files lie below it.
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("ecr-operator-e2e-{}-{number}", std::process::id()));
        let mut process = Command::new("sh")
            .args(["-c", CLUSTER, SCRIPT, command])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = first_line(process.stdout.take().unwrap());
        let kubeconfig = word(&ready, "kubeconfig").into();
        let tools = Command::new(SCRIPT).args(["tools", "--control-plane-only"]).output().unwrap();
        let tools = PathBuf::from(String::from_utf8(tools.stdout).unwrap().trim());
        let orders = Mutex::new(process.stdin.take().unwrap());
        Self { ready, kubeconfig, tools, orders, _process: process }
    }

    /// What it said about itself when it was ready.
    pub fn told(&self, key: &str) -> &str {
        word(&self.ready, key)
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.kubeconfig.parent().unwrap()
    }

    /// Where kubectl, helm and all the other programs are.
    pub fn tools(&self) -> &Path {
        &self.tools
    }

    /// For programs that take one.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// As the cluster's administrator. A client belongs to the runtime of one test.
    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// A new namespace.
    pub async fn namespace(&self, prefix: &str) -> String {
        let metadata = ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let api = Api::<Namespace>::all(self.client().await);
        api.create(&PostParams::default(), &namespace).await.unwrap().name_any()
    }

    /// Runs kubectl as the cluster's administrator, with `stdin` to read.
    pub async fn kubectl(&self, arguments: &[&str], stdin: &str) -> Ran {
        self.run(self.tools.join("kubectl"), &[&["--request-timeout=30s"], arguments].concat(), stdin).await
    }

    /// Runs helm as the cluster's administrator; returns what it prints.
    pub async fn helm(&self, arguments: &[&str]) -> String {
        let ran = self.run(self.tools.join("helm"), arguments, "").await;
        assert!(ran.ok, "helm {arguments:?}: {}", ran.text);
        ran.text
    }

    /// Runs a program that may want to be the cluster's administrator, with `stdin` to read.
    pub async fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str], stdin: &str) -> Ran {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let stdin = stdin.to_owned();
        let run = move || {
            let mut process = command.spawn().unwrap();
            process.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
            process.wait_with_output().unwrap()
        };
        let output = spawn_blocking(run).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        Ran { ok: output.status.success(), text: String::from_utf8(text).unwrap() }
    }

    /// Kills the API server and starts it again; returns when it answers.
    pub async fn restart_api_server(&self) {
        let client = self.client().await;
        writeln!(self.orders.lock().unwrap(), "restart kube-apiserver").unwrap();
        for is_there in [false, true] {
            let reached = async {
                while client.apiserver_version().await.is_ok() != is_there {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("answers: not {is_there} in time"));
        }
    }

    /// Installs all kinds, as they are.
    pub async fn install_crds(&self) {
        let client = self.client().await;
        let api = Api::<CustomResourceDefinition>::all(client.clone());
        for crd in all_crds().unwrap() {
            let name = crd.name_any();
            api.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(&crd)).await.unwrap();
            let established = await_condition(api.clone(), &name, is_crd_established());
            timeout(PATIENCE, established).await.expect("established in time").unwrap();
            timeout(PATIENCE, served(&client, &crd)).await.expect("served in time");
        }
    }
}

/// Established is said a little before the API server answers.
async fn served(client: &Client, crd: &CustomResourceDefinition) {
    let kind = super::api::resource(&crd.spec.names.kind);
    let api = Api::<kube::core::DynamicObject>::all_with(client.clone(), &kind);
    while api.list(&ListParams::default().limit(1)).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for it, and goes on reading so that nobody blocks on a full pipe.
fn first_line(stdout: ChildStdout) -> String {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    receive.recv_timeout(UNTIL_READY).expect("a cluster; what went wrong is told above")
}

/// The value of KEY=VALUE in a line of words.
fn word<'a>(line: &'a str, key: &str) -> &'a str {
    let value = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key} in: {line}"))
}
