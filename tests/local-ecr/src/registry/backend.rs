//! The registry that keeps the layers: Debian's `docker-registry` as a child process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http_body_util::Full;
use http_body_util::combinators::BoxBody;
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::api::nonce;

/// Where Debian puts it.
pub(crate) const BINARY: &str = "/usr/bin/docker-registry";
/// Kills the child when we die, however we die.
const DEATH_SIGNAL: &str = "/usr/bin/setpriv";

pub(crate) type RequestBody = BoxBody<Bytes, hyper::Error>;

/// Why the registry didn't come up.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The program is not installed.
    #[error("{BINARY} is missing: install Debian's package docker-registry, or start the local ECR without it")]
    Missing,
    /// It could not be started, or its files could not be written.
    #[error("can't start {BINARY}: {0}")]
    Start(#[from] std::io::Error),
    /// It doesn't answer.
    #[error("{BINARY} ended or did not listen within ten seconds")]
    NotListening,
}

pub(crate) struct Backend {
    client: Client<HttpConnector, RequestBody>,
    authority: String,
    /// First path component of this process's repositories: with a kept directory nothing of an earlier run shows.
    prefix: String,
    _child: Child,
    _directory: Directory,
}

/// A directory that goes with us, unless the user named it.
struct Directory {
    path: PathBuf,
    ours: bool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

impl Backend {
    /// Starts the registry on a free port of the loopback interface.
    pub async fn start(directory: Option<PathBuf>) -> Result<Self, BackendError> {
        if !Path::new(BINARY).exists() {
            return Err(BackendError::Missing);
        }
        let name = format!("local-ecr-{}", nonce());
        let directory = match directory {
            Some(path) => Directory { path, ours: false },
            None => Directory { path: std::env::temp_dir().join(name), ours: true },
        };
        std::fs::create_dir_all(&directory.path)?;
        // The port is free when it is chosen and may be taken when it is used: then the child ends and we choose again.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
            let authority = format!("127.0.0.1:{port}");
            let mut child = spawn(&directory.path, &authority)?;
            if listens(&mut child, &authority).await {
                let client = Client::builder(TokioExecutor::new()).build_http();
                return Ok(Self {
                    client,
                    authority,
                    prefix: format!("x{}", nonce()),
                    _child: child,
                    _directory: directory,
                });
            }
        }
        Err(BackendError::NotListening)
    }

    /// Where the layers of one incarnation of a repository are: after `/v2/`.
    pub fn path_of(&self, incarnation: u64) -> String {
        format!("{}/r{incarnation}", self.prefix)
    }

    /// Sends a request on; the URI is the path and query alone.
    pub async fn send(
        &self,
        mut request: http::Request<RequestBody>,
    ) -> Result<http::Response<Incoming>, hyper_util::client::legacy::Error> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        if let Ok(uri) = format!("http://{}{path}", self.authority).parse() {
            *request.uri_mut() = uri;
        }
        self.client.request(request).await
    }
}

pub(crate) fn full(bytes: Bytes) -> RequestBody {
    use http_body_util::BodyExt as _;
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn spawn(directory: &Path, authority: &str) -> Result<Child, BackendError> {
    let config = directory.join("registry.json");
    // YAML is a superset of JSON.
    let text = serde_json::json!({
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": true}},
        "storage": {
            "filesystem": {"rootdirectory": directory.join("data")},
            "maintenance": {"uploadpurging": {"enabled": false}},
        },
        "http": {"addr": authority, "relativeurls": true},
    });
    std::fs::write(&config, text.to_string())?;
    let mut command = if Path::new(DEATH_SIGNAL).exists() {
        let mut command = Command::new(DEATH_SIGNAL);
        command.args(["--pdeathsig", "KILL", BINARY]);
        command
    } else {
        Command::new(BINARY)
    };
    command.arg("serve").arg(&config);
    command.env("OTEL_TRACES_EXPORTER", "none");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    Ok(command.spawn()?)
}

async fn listens(child: &mut Child, authority: &str) -> bool {
    let connects = async {
        while TcpStream::connect(authority).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = connects => true,
        _ = child.wait() => false,
        () = tokio::time::sleep(Duration::from_secs(10)) => false,
    }
}
