//! Starts everything: the watches, the queues and their workers, and waits for the end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{ClusterEcrPullSecret, EcrPullSecret, EcrRegistry, EcrRepository};
use crate::aws::{Clocks, RegistryClient, SessionOptions, Snapshots, Tokens};
use crate::cluster::{AccessKeys, Events, Gone, MergedSecrets, Pods, Statuses};
use crate::controller::checks::Checks;
use crate::controller::contests::Contests;
use crate::controller::context::{Attempts, Changes, Context, FailingNamespaces, RegistryChange, Renewals};
use crate::controller::pull_secret_verify::Verified;
use crate::controller::queue::{Input, drive};
use crate::controller::registries::Registries;
use crate::controller::stuck_pods::{StuckPods, restart};
use crate::controller::triggers::{Dependants, Triggers, ask};
use crate::controller::watches::{all_read, stores};
use crate::controller::{pull_secret, registry, repository};
use crate::core::backoff::OBJECT;
use crate::core::token_slot::clocks_parted;
use crate::metrics::Metrics;
use crate::server::Health;

/// Between looks at whether the two clocks still agree.
const BETWEEN_CLOCKS: Duration = Duration::from_secs(30);
/// For what is under way at the end. The pod has half a minute, and letting go of the Lease takes up to ten seconds of it.
const DRAIN: Duration = Duration::from_secs(12);

/// What `run` is told on the command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// Marks what this cluster owns in AWS; absent: the UID of the kube-system namespace.
    pub owner_id: Option<String>,
    /// Where the operator runs: access keys are read here.
    pub namespace: String,
    /// This pod, in events.
    pub instance: String,
    /// Honour `endpoint.url`.
    pub allow_endpoint_override: bool,
    /// How sessions with AWS are made.
    pub sessions: SessionOptions,
}

/// How it came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is under way any more.
    Drained,
    /// What was under way took too long. What it sent may still arrive.
    CutOff,
}

/// A task ended that never should.
#[derive(Debug, thiserror::Error)]
#[error("the {0} ended unexpectedly")]
pub struct RunError(&'static str);

/// Runs until `stop` is cancelled.
///
/// # Errors
/// Where a part of it ends that never should.
pub async fn run(
    client: Client,
    options: Options,
    metrics: Metrics,
    health: Health,
    stop: CancellationToken,
) -> Result<Ended, RunError> {
    tracing::info!(namespace = options.namespace, "starting");
    let (mut tasks, mut workers) = (JoinSet::new(), JoinSet::new());
    let (queues, gone, mut inputs) = queues();
    let (registry_changed, _) = broadcast::channel(1024);
    let (stores, dependants) = stores(&client, &queues, &registry_changed, &gone, &health, &mut tasks);
    let (key_sender, key_changes) = mpsc::unbounded_channel();
    let keys = AccessKeys::new(client.clone(), &options.namespace, key_sender);
    tasks.spawn(relay_registries(registry_changed.subscribe(), dependants.clone()));
    tasks.spawn(relay_keys(key_changes, stores.registries.clone(), queues.registries.clone()));

    let tenure = options.sessions.tenure.clone();
    let begin = async {
        let owner_id = match &options.owner_id {
            Some(id) => id.clone(),
            None => cluster_id(&client).await,
        };
        all_read(&stores).await;
        health.ready();
        metrics.ready();
        metrics.count(stores.repositories.clone());
        tracing::info!(owner_id, "all objects read");
        tenure.begun().await;
        owner_id
    };
    let begins = tokio::select! {
        owner_id = stand_by(begin, &mut inputs) => Some(owner_id),
        ended = until_stopped(&stop, &mut tasks, &mut workers) => ended.map(|()| None)?,
    };
    if let Some(owner_id) = begins {
        tracing::info!("working");
        ask(&queues.registries, stores.registries.state());
        dependants.all();
        let (stuck_pods, wishes) = StuckPods::new();
        let stuck_pods = Arc::new(stuck_pods);
        let context = Arc::new(Context {
            registries: Registries::new(
                stores.registries.clone(),
                keys,
                client.clone(),
                options.sessions,
                options.allow_endpoint_override,
            ),
            tokens: Tokens::new(owner_id.clone()),
            registry_client: RegistryClient::default(),
            clocks: Clocks::default(),
            health: health.clone(),
            verified: Verified::default(),
            merged_secrets: MergedSecrets::new(client.clone()),
            events: Events::new(client.clone(), options.instance),
            statuses: Statuses::default(),
            attempts: Attempts::default(),
            renewals: Renewals::default(),
            stuck_pods: stuck_pods.clone(),
            contests: Contests::default(),
            failing: FailingNamespaces::default(),
            checks: Checks::new(Timestamp::now()),
            snapshots: Snapshots::default(),
            repositories: queues.repositories,
            registry_seen: Changes::default(),
            registry_changed,
            stop: stop.clone(),
            stores: stores.clone(),
            client,
            owner_id,
            metrics,
        });
        tasks.spawn(forget(inputs.deletions, context.clone()));
        tasks.spawn(watch_clocks(context.clocks, dependants.clone()));
        tasks.spawn(relay_shortened(context.clone(), dependants.clone()));
        let pods = Pods::new(context.client.clone());
        let accounts = stores.service_accounts.clone();
        let events = context.events.clone();
        workers.spawn(restart(stuck_pods, wishes, pods, events, accounts, dependants, stop.clone()));
        begin_queues(inputs.queues, &context, &stop, &mut workers);
    }
    until_stopped(&stop, &mut tasks, &mut workers).await?;
    // Let what is under way come to its end; nothing new is begun.
    health.stopping();
    let drained = tokio::time::timeout(DRAIN, async { while workers.join_next().await.is_some() {} }).await;
    Ok(if drained.is_ok() { Ended::Drained } else { Ended::CutOff })
}

/// A queue for each kind.
fn begin_queues(
    inputs: QueueInputs,
    context: &Arc<Context>,
    stop: &CancellationToken,
    workers: &mut JoinSet<&'static str>,
) {
    let (known, stop, context) = (&context.stores, || stop.clone(), || context.clone());
    let (registries, repositories) = (known.registries.clone(), known.repositories.clone());
    let (ours, everywhere) = (known.pull_secrets.clone(), known.cluster_pull_secrets.clone());
    workers.spawn(drive(registries, inputs.registries, registry::reconcile, context(), stop()));
    workers.spawn(drive(repositories, inputs.repositories, repository::reconcile, context(), stop()));
    workers.spawn(drive(ours, inputs.pull_secrets, pull_secret::reconcile, context(), stop()));
    workers.spawn(drive(everywhere, inputs.cluster_pull_secrets, pull_secret::reconcile, context(), stop()));
}

/// Waits for work to `begin`. What changes until then is in the stores; what asks for work is forgotten, since all objects
/// are looked at then.
async fn stand_by<T>(begin: impl Future<Output = T>, inputs: &mut Inputs) -> T {
    let mut begin = pin!(begin);
    loop {
        let outcome = tokio::time::timeout(Duration::from_secs(1), &mut begin).await;
        inputs.clear();
        if let Ok(outcome) = outcome {
            return outcome;
        }
    }
}

/// Returns once `stop` is cancelled. Whoever has nothing under way ends at that very moment: the stop is looked at first.
async fn until_stopped(
    stop: &CancellationToken,
    tasks: &mut JoinSet<&'static str>,
    workers: &mut JoinSet<&'static str>,
) -> Result<(), RunError> {
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        Some(ended) = tasks.join_next() => ended,
        Some(ended) = workers.join_next() => ended,
        else => Ok("work"),
    };
    Err(RunError(ended.unwrap_or("task, by a panic,")))
}

/// An installation is known in AWS by the cluster it runs in, which no user has to name.
async fn cluster_id(client: &Client) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut failures = 0;
    loop {
        match namespaces.get_metadata("kube-system").await {
            Ok(system) => return system.uid().unwrap_or_default(),
            Err(error) => {
                failures += 1;
                tracing::warn!(error = crate::cluster::words(&error), "the UID of namespace kube-system can't be read");
                tokio::time::sleep(OBJECT.after(failures, "kube-system")).await;
            }
        }
    }
}

/// Who is to be looked at, of each kind.
struct QueueInputs {
    registries: Input<EcrRegistry>,
    repositories: Input<EcrRepository>,
    pull_secrets: Input<EcrPullSecret>,
    cluster_pull_secrets: Input<ClusterEcrPullSecret>,
}

struct Inputs {
    queues: QueueInputs,
    deletions: mpsc::UnboundedReceiver<(String, Gone)>,
}

impl Inputs {
    fn clear(&mut self) {
        fn clear<T>(input: &mut mpsc::UnboundedReceiver<T>) {
            while input.try_recv().is_ok() {}
        }
        clear(&mut self.queues.registries);
        clear(&mut self.queues.repositories);
        clear(&mut self.queues.pull_secrets);
        clear(&mut self.queues.cluster_pull_secrets);
        clear(&mut self.deletions);
    }
}

fn queues() -> (Triggers, mpsc::UnboundedSender<(String, Gone)>, Inputs) {
    let (to_registries, registries) = mpsc::unbounded_channel();
    let (to_repositories, repositories) = mpsc::unbounded_channel();
    let (to_pull_secrets, pull_secrets) = mpsc::unbounded_channel();
    let (to_cluster_pull_secrets, cluster_pull_secrets) = mpsc::unbounded_channel();
    let (gone, deletions) = mpsc::unbounded_channel();
    let triggers = Triggers {
        registries: to_registries,
        repositories: to_repositories,
        pull_secrets: to_pull_secrets,
        cluster_pull_secrets: to_cluster_pull_secrets,
    };
    let queues = QueueInputs { registries, repositories, pull_secrets, cluster_pull_secrets };
    (triggers, gone, Inputs { queues, deletions })
}

/// What is kept in memory of an object goes with it, whether it had a finalizer or not.
async fn forget(mut deletions: mpsc::UnboundedReceiver<(String, Gone)>, context: Arc<Context>) -> &'static str {
    while let Some((kind, gone)) = deletions.recv().await {
        context.forget(&kind, &gone);
    }
    "watch for deletions"
}

async fn relay_registries(mut changes: broadcast::Receiver<RegistryChange>, dependants: Dependants) -> &'static str {
    loop {
        match changes.recv().await {
            Ok(change) => dependants.of_registry(&change),
            Err(broadcast::error::RecvError::Lagged(_)) => dependants.all(),
            Err(broadcast::error::RecvError::Closed) => return "relay of registry changes",
        }
    }
}

/// Queues wait by the monotonic clock: after a sleep, or where the wall clock was set, tokens may be due that nobody looks at.
async fn watch_clocks(clocks: Clocks, dependants: Dependants) -> &'static str {
    let mut before = clocks.now();
    loop {
        tokio::time::sleep(BETWEEN_CLOCKS).await;
        let now = clocks.now();
        if clocks_parted(before, now) {
            tracing::info!("the clock was set, or this machine slept: looking at all tokens");
            dependants.all_pull_secrets();
        }
        before = now;
    }
}

/// What was noted on Secrets says when to look at them, which is too late where their tokens end with their sessions.
async fn relay_shortened(context: Arc<Context>, dependants: Dependants) -> &'static str {
    loop {
        context.tokens.shortened().await;
        dependants.all_pull_secrets();
    }
}

async fn relay_keys(
    mut changes: mpsc::UnboundedReceiver<String>,
    registries: Store<EcrRegistry>,
    queue: mpsc::UnboundedSender<ObjectRef<EcrRegistry>>,
) -> &'static str {
    while changes.recv().await.is_some() {
        ask(&queue, registries.state());
    }
    "relay of access key changes"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn workers_that_end_because_of_the_stop_are_no_failure() {
        for _ in 0..50 {
            let (stop, mut tasks, mut workers) = (CancellationToken::new(), JoinSet::new(), JoinSet::new());
            stop.cancel();
            workers.spawn(async { "queue" });
            tokio::task::yield_now().await;
            assert!(until_stopped(&stop, &mut tasks, &mut workers).await.is_ok());
        }
    }

    #[tokio::test]
    async fn what_ends_by_itself_or_by_a_panic_ends_the_operator() {
        let (stop, mut tasks, mut workers) = (CancellationToken::new(), JoinSet::new(), JoinSet::new());
        workers.spawn(async { "queue" });
        let ended = until_stopped(&stop, &mut tasks, &mut workers).await.unwrap_err();
        assert_eq!(ended.to_string(), "the queue ended unexpectedly");
        tasks.spawn(async { panic!("planted") });
        assert!(until_stopped(&stop, &mut tasks, &mut workers).await.unwrap_err().to_string().contains("panic"));
    }
}
