//! Two operators, of which the first works: whichever request it is struck at, the second ends the work, and never do both.
//!
//! The first is killed before or after a request, or stopped for so long that the second takes over, and then goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use crate::plans::{CONVERGENCE, Outcome, QUIET, certain, converged, drawn, excess, strike};
use crate::story::Story;
use crate::support::faults::state::{State, differences, effects, state};
use crate::support::faults::{Fault, Process, Rule, Scope, Upstream, Wire, cluster, side};
use crate::support::operator::NAMESPACE;
use crate::support::world::World;

/// How ids of these plans begin.
pub const STORY: &str = "hand-over/";
/// What the first is in the middle of: what makes something, what replaces it, and what takes it away.
const STORIES: [Story; 3] = [Story::Create, Story::Renew, Story::Delete];
const AT_ONCE: usize = 4;
const SAMPLE: usize = 15;
/// Long enough for a busy machine, short enough to be waited for.
const TERMS: [(&str, &str); 4] = [
    ("ECR_OPERATOR_LEADER_ELECT", "true"),
    ("ECR_OPERATOR_LEASE_DURATION", "4s"),
    ("ECR_OPERATOR_LEASE_RENEW_DEADLINE", "3s"),
    ("ECR_OPERATOR_LEASE_RETRY_PERIOD", "300ms"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    KilledBefore,
    KilledAfter,
    Stopped,
}

const BLOWS: [(&str, Blow); 3] =
    [("before", Blow::KilledBefore), ("after", Blow::KilledAfter), ("stopped", Blow::Stopped)];

#[derive(Debug, Clone)]
struct Plan {
    story: Story,
    blow: Blow,
    request: String,
    earlier: usize,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blow = BLOWS.iter().find(|(_, blow)| *blow == self.blow).unwrap().0;
        write!(f, "{STORY}{}/{blow}/{}#{}", self.story.name(), self.request, self.earlier)
    }
}

struct End {
    plans: Vec<Plan>,
    state: State,
    effects: BTreeMap<String, usize>,
    outcome: Outcome,
}

/// The rights to a Lease of this world's own, which the chart gives for the installation's.
async fn lease(world: &World) -> Api<Lease> {
    let name = &world.namespace;
    let rules = json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [name], "verbs": ["get", "update"]}]);
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    let role =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "ecr-operator", "namespace": NAMESPACE}],
    });
    for manifest in [role, binding] {
        let applied = cluster().await.kubectl(&["apply", "-f", "-"], &manifest.to_string()).await;
        assert!(applied.ok, "{}", applied.text);
    }
    Api::namespaced(world.client.clone(), NAMESPACE)
}

fn operator(wire: &Wire, world: &World, name: &str) -> Process {
    let own = [("ECR_OPERATOR_LEASE_NAME", world.namespace.as_str()), ("POD_NAME", name)];
    wire.operator_with(&[&TERMS[..], &own].concat())
}

async fn until_leads(leases: &Api<Lease>, world: &World, name: &str) {
    let leads = || async {
        let lease = leases.get_opt(&world.namespace).await.unwrap()?;
        lease.spec?.holder_identity?.starts_with(name).then_some(())
    };
    world.eventually(&format!("{name} leads"), leads).await;
}

async fn run(upstream: Upstream, story: Story, plan: Option<Plan>, wanted: Option<Arc<End>>) -> End {
    let world = story.world(cluster().await).await;
    let leases = lease(&world).await;
    let scope = || Scope::new(&world.namespace, Vec::new());
    let wire = Wire::start(&upstream, Upstream::aws(&world.ecr.url()), scope()).await;
    // The second's own way to the API server; that to AWS is said in the registry.
    let other = Wire::start(&upstream, Upstream::aws(&world.ecr.url()), scope()).await;
    world.registry_at(&wire.aws_url, json!({})).await;
    let mut first = operator(&wire, &world, "first");
    until_leads(&leases, &world, "first").await;
    let second = operator(&other, &world, "second");
    story.before(&world).await;
    other.asked("LIST serviceaccounts").await;
    wire.quiet(QUIET).await;
    world.ecr.clear_calls();
    wire.begin();
    if let Some(Plan { blow, request, earlier, .. }) = &plan {
        let fault = match blow {
            Blow::KilledBefore => Fault::DieBefore,
            Blow::KilledAfter => Fault::DieAfter,
            Blow::Stopped => Fault::Stop,
        };
        wire.rule(Rule::exactly(side(request), request, fault).after(*earlier));
    }
    story.act(&world, &wire.aws_url).await;
    let mut problems = Vec::new();
    let done = async {
        story.at_rest(&world, false).await;
        wire.quiet(QUIET).await;
    };
    let struck = tokio::select! {
        () = wire.died() => true,
        () = done => false,
    };
    let plans = plans(story, &wire);
    if struck {
        let early: Vec<_> = other.seen().into_iter().filter(|seen| seen.writes).collect();
        if !early.is_empty() {
            problems.push(format!("both wrote: {early:?}"));
        }
        let stopped = plan.as_ref().is_some_and(|plan| plan.blow == Blow::Stopped);
        if stopped {
            // Not between its last check and the network, which nothing could help.
            wire.unheard_and_quiet(QUIET).await;
            first.signal("STOP");
        } else {
            first.kill();
        }
        wire.revive();
        until_leads(&leases, &world, "second").await;
        story.at_rest(&world, false).await;
        wire.quiet(QUIET).await;
        other.quiet(QUIET).await;
        if stopped {
            problems.extend(gone_on(&mut first, &wire).await);
        }
    }
    let namespaces = [world.namespace.clone()];
    let now = || state(&world, &namespaces, &wire.aws_url);
    let now = converged(wanted.as_deref().map(|wanted| &wanted.state), now).await;
    let effects = effects(&world, &wire.aws_url);
    if let Some(wanted) = &wanted {
        problems.extend(differences(&now, &wanted.state));
        problems.extend(excess(&wanted.effects, &effects, false));
    }
    drop((first, second));
    leases.delete(&world.namespace, &DeleteParams::default()).await.unwrap();
    let log = format!("{}\n---- the second:\n{}", wire.logged(), other.logged());
    End { plans, state: now, effects, outcome: Outcome { struck, problems, log } }
}

/// A first that was stopped goes on, finds that another leads, and ends: without a single write.
async fn gone_on(first: &mut Process, wire: &Wire) -> Vec<String> {
    wire.begin();
    first.signal("CONT");
    let begun = Instant::now();
    while !first.has_ended() {
        if begun.elapsed() > CONVERGENCE {
            return vec!["the first goes on".to_owned()];
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let heard = wire.seen().into_iter().filter(|seen| seen.writes).map(|seen| seen.name);
    let late: Vec<_> = wire.unheard_writes().into_iter().chain(heard).collect();
    if late.is_empty() { Vec::new() } else { vec![format!("it wrote when another led: {late:?}")] }
}

fn plans(story: Story, wire: &Wire) -> Vec<Plan> {
    let seen = wire.seen();
    let plans = certain(&seen).flat_map(|seen| {
        let blows = BLOWS.iter().filter(|(_, blow)| seen.writes || *blow != Blow::KilledAfter);
        blows.map(|(_, blow)| Plan { story, blow: *blow, request: seen.name.clone(), earlier: seen.earlier })
    });
    plans.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_request_the_first_is_struck_at_the_second_ends_its_work_alone() {
    let only = std::env::var("CRASH_PLAN").ok();
    if only.as_ref().is_some_and(|id| !id.starts_with(STORY)) || std::env::var("CRASH_STORY").is_ok() {
        return;
    }
    let upstream = Upstream::kubernetes().await;
    let is_wanted = |story: &Story| only.as_ref().is_none_or(|id| id.starts_with(&format!("{STORY}{}/", story.name())));
    let references = STORIES.into_iter().filter(is_wanted).map(|story| {
        let running = run(upstream.clone(), story, None, None);
        async move { (story, Arc::new(tokio::spawn(running).await.unwrap())) }
    });
    let references: BTreeMap<Story, Arc<End>> = join_all(references).await.into_iter().collect();
    for (story, end) in &references {
        assert!(end.outcome.problems.is_empty(), "{}: {:#?}", story.name(), end.outcome.problems);
    }
    let mut plans: Vec<_> = references.values().flat_map(|end| end.plans.clone()).collect();
    match &only {
        Some(id) => plans.retain(|plan| plan.to_string() == *id),
        None => plans = drawn(plans, SAMPLE),
    }
    assert!(!plans.is_empty(), "there is no such plan");
    let run = |plan: &Plan| {
        let run = run(upstream.clone(), plan.story, Some(plan.clone()), Some(references[&plan.story].clone()));
        async move { run.await.outcome }
    };
    strike(plans, AT_ONCE, run).await;
}
