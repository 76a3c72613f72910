//! `ecr-operator run`.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Args};
use jiff::SignedDuration;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::aws::{Calls, PodIdentity, SessionOptions};
use crate::cluster::{self, Election, Lost};
use crate::controller::{self, Ended, Options};
use crate::core::lease::{Terms, TermsError};
use crate::metrics::Metrics;
use crate::server::{self, Health};
use crate::telemetry::{self, LogFormat};
use crate::tenure::Tenure;

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
    /// A connection to the API server on which nothing came for so long is taken for broken. A watch on which nothing
    /// happens is sent a sign of life about once a minute.
    #[arg(long, env = "ECR_OPERATOR_API_SERVER_SILENCE", value_name = "DURATION", default_value = "3m", value_parser = duration)]
    api_server_silence: Duration,
    #[command(flatten)]
    leader: LeaderArgs,
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

/// Of several operators one works. The others hold all objects in memory, and take over.
#[derive(Debug, Args)]
struct LeaderArgs {
    /// Work only as the holder of a Lease in the operator's namespace. `false` where there is never more than one.
    #[arg(
        long, env = "ECR_OPERATOR_LEADER_ELECT", value_name = "BOOL", default_value_t = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set
    )]
    leader_elect: bool,
    /// The name of the Lease.
    #[arg(long, env = "ECR_OPERATOR_LEASE_NAME", value_name = "NAME", default_value = "ecr-operator")]
    lease_name: String,
    /// A Lease that wasn't renewed for so long, by the clock of whoever waits, is taken over. Whole seconds.
    #[arg(long, env = "ECR_OPERATOR_LEASE_DURATION", value_name = "DURATION", default_value = "15s", value_parser = duration)]
    lease_duration: Duration,
    /// A leader that couldn't renew the Lease for so long writes nothing, until it can.
    #[arg(long, env = "ECR_OPERATOR_LEASE_RENEW_DEADLINE", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    lease_renew_deadline: Duration,
    /// Between renewals, and between looks at somebody else's Lease.
    #[arg(long, env = "ECR_OPERATOR_LEASE_RETRY_PERIOD", value_name = "DURATION", default_value = "2s", value_parser = duration)]
    lease_retry_period: Duration,
}

impl LeaderArgs {
    /// `None` where nobody is elected.
    fn terms(&self) -> Result<Option<Terms>, TermsError> {
        let parse = || Terms::parse(self.lease_duration, self.lease_renew_deadline, self.lease_retry_period);
        self.leader_elect.then(parse).transpose()
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().map_err(|error| error.to_string())?;
    Duration::try_from(parsed).map_err(|_| "it must not be negative".to_owned())
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
    /// Terms that can't be kept.
    #[error("--lease-duration, --lease-renew-deadline and --lease-retry-period don't fit together: {0}")]
    Terms(#[from] TermsError),
    /// Another process took over.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The election is over, and should go on as long as the process does.
    #[error("the election ended unexpectedly")]
    Election,
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
        let (metrics, health) = (Metrics::default(), Health::default());
        let listener = server::bind(self.listen).await.map_err(|error| RunFailure::Listen(self.listen, error))?;
        tokio::spawn(server::serve(listener, health.clone(), metrics.clone()));
        let terms = self.leader.terms()?;
        let tenure = terms.map_or_else(Tenure::unlimited, |terms| Tenure::none(terms.connect_within()));
        let client =
            cluster::client(config.clone(), self.api_server_silence, tenure.clone()).map_err(RunFailure::Client)?;
        let release = CancellationToken::new();
        let mut election = self.election(config, terms, &tenure, &metrics, release.clone())?;
        let options = Options {
            owner_id: self.owner_id.filter(|id| !id.is_empty()),
            namespace: self.namespace,
            instance: self.pod_name,
            allow_endpoint_override: self.allow_endpoint_override,
            sessions: SessionOptions {
                allow_imds: self.allow_imds,
                pod: PodIdentity::read(|name| std::env::var(name).ok()),
                http_client: None,
                tenure,
                calls: Calls::new(metrics.clone(), stop.clone()),
            },
        };
        tokio::select! {
            outcome = controller::run(client, options, metrics, health, stop) => {
                match outcome? {
                    // Nothing is under way: the next leader may begin at once.
                    Ended::Drained => {
                        release.cancel();
                        let _ = election.await;
                    }
                    Ended::CutOff => tracing::warn!("not all work ended in time: the next leader waits for the lease to run out"),
                }
            }
            ended = &mut election => {
                ended.map_err(|_| RunFailure::Election)??;
                return Err(RunFailure::Election);
            }
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// On a task of its own, until `release`.
    fn election(
        &self,
        config: kube::Config,
        terms: Option<Terms>,
        tenure: &Tenure,
        metrics: &Metrics,
        release: CancellationToken,
    ) -> Result<JoinHandle<Result<(), Lost>>, RunFailure> {
        let Some(terms) = terms else {
            metrics.leading(true);
            return Ok(tokio::spawn(async move {
                release.cancelled().await;
                Ok(())
            }));
        };
        let client = Client::try_from(config).map_err(RunFailure::Client)?;
        // A container that starts anew in the same pod is another process.
        let me = format!("{}_{:016x}", self.pod_name, RandomState::new().build_hasher().finish());
        let (name, tenure) = (self.leader.lease_name.clone(), tenure.clone());
        let election = Election::new(client, &self.namespace, name, me, terms, tenure, metrics.clone());
        Ok(tokio::spawn(election.run(release)))
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
