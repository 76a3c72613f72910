//! `ecr-operator run`.

use std::net::SocketAddr;

use clap::Args;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::aws::{PodIdentity, SessionOptions};
use crate::controller::{self, Options};
use crate::metrics::Metrics;
use crate::server::{self, Health};
use crate::telemetry::{self, LogFormat};

/// Options of `ecr-operator run`. Each can also be given in the environment.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Marks, in AWS tags, what this installation owns. Default: the UID of the cluster's kube-system namespace.
    #[arg(long, env = "ECR_OPERATOR_OWNER_ID", value_name = "ID")]
    owner_id: Option<String>,
    /// The namespace the operator runs in; Secrets with access keys are read here.
    #[arg(long, env = "ECR_OPERATOR_NAMESPACE", value_name = "NAMESPACE", default_value = "ecr-operator-system")]
    namespace: String,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "ECR_OPERATOR_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Let ambient identities be the node's own (EC2 instance metadata).
    #[arg(long, env = "ECR_OPERATOR_ALLOW_IMDS")]
    allow_imds: bool,
    /// Honour spec.endpoint.url of an EcrRegistry: for tests, it sends signed requests to that place.
    #[arg(long, env = "ECR_OPERATOR_ALLOW_ENDPOINT_OVERRIDE")]
    allow_endpoint_override: bool,
    /// How logs are written: auto is text on a terminal and JSON elsewhere.
    #[arg(long, env = "ECR_OPERATOR_LOG_FORMAT", value_name = "FORMAT", default_value = "auto")]
    log_format: LogFormat,
    /// Which logs are written, as in `info` or `info,ecr_operator=debug`.
    #[arg(long, env = "ECR_OPERATOR_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// The name of this pod, in events.
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "ecr-operator")]
    pod_name: String,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunFailure {
    /// `--log` is no filter.
    #[error("--log: {0}")]
    Log(#[from] telemetry::FilterError),
    /// No cluster.
    #[error("no access to a Kubernetes cluster, neither as a pod nor by a kubeconfig: {0}")]
    Config(#[source] kube::config::InferConfigError),
    /// A client can't be made of it.
    #[error("the Kubernetes client can't be set up: {0}")]
    Client(#[source] kube::Error),
    /// The port.
    #[error("--listen {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// No signal handler.
    #[error("signals can't be handled: {0}")]
    Signal(#[source] std::io::Error),
    /// The operator itself.
    #[error(transparent)]
    Run(#[from] controller::RunError),
}

impl RunArgs {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// Where it can't start, or breaks down.
    pub async fn run(self) -> Result<(), RunFailure> {
        telemetry::init(self.log_format, &self.log)?;
        let stop = stop_on_signals().map_err(RunFailure::Signal)?;
        let config = kube::Config::infer().await.map_err(RunFailure::Config)?;
        let client = Client::try_from(config).map_err(RunFailure::Client)?;
        let (metrics, health) = (Metrics::default(), Health::default());
        let listener = server::bind(self.listen).await.map_err(|error| RunFailure::Listen(self.listen, error))?;
        tokio::spawn(server::serve(listener, health.clone(), metrics.clone()));
        let options = Options {
            owner_id: self.owner_id.filter(|id| !id.is_empty()),
            namespace: self.namespace,
            instance: self.pod_name,
            allow_endpoint_override: self.allow_endpoint_override,
            sessions: SessionOptions {
                allow_imds: self.allow_imds,
                pod: PodIdentity::read(|name| std::env::var(name).ok()),
                http_client: None,
            },
        };
        controller::run(client, options, metrics, health, stop).await?;
        tracing::info!("stopped");
        Ok(())
    }
}

fn stop_on_signals() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        token.cancel();
    });
    Ok(stop)
}
