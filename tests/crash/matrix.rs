//! Whatever the operator is doing, and wherever it dies: the next one brings everything to the same end.
//!
//! A reference run of each story names every request to the API server and to AWS. Then, for each of them, the operator is
//! killed before it is sent, or after it was served; or only the answer is lost. `CRASH_PLANS=all` runs all of these plans,
//! otherwise a sample is drawn by `CRASH_SEED`; `CRASH_PLAN=ID` runs one again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::json;

use crate::hand_over;
use crate::plans::{Outcome, QUIET, certain, converged, drawn, excess, strike};
use crate::story::{self, Story};
use crate::support::faults::state::{MARKER, State, dead_secrets, differences, effects, state};
use crate::support::faults::{Fault, Process, Rule, Scope, Seen, Upstream, Wire, cluster, side};
use crate::support::world::World;

/// So many run at once: most of the time each waits.
const AT_ONCE: usize = 8;
/// So many are drawn for a sample.
const SAMPLE: usize = 60;
/// Of a log, where a plan failed.
const LOG_LINES: usize = 60;

/// How a request is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Blow {
    Before,
    After,
    Lost,
}

const BLOWS: [(&str, Blow); 3] = [("before", Blow::Before), ("after", Blow::After), ("lost", Blow::Lost)];

/// One way to strike one request of one story.
#[derive(Debug, Clone)]
struct Plan {
    story: Story,
    blow: Blow,
    request: String,
    /// So many of the same name come before it.
    earlier: usize,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blow = BLOWS.iter().find(|(_, blow)| *blow == self.blow).unwrap().0;
        write!(f, "{}/{blow}/{}#{}", self.story.name(), self.request, self.earlier)
    }
}

impl Plan {
    fn parse(id: &str) -> Option<Self> {
        let mut parts = id.splitn(3, '/');
        let (story, blow, request) = (parts.next()?, parts.next()?, parts.next()?);
        let (request, earlier) = request.rsplit_once('#')?;
        Some(Self {
            story: story::ALL.into_iter().find(|it| it.name() == story)?,
            blow: BLOWS.iter().find(|(name, _)| *name == blow)?.1,
            request: request.to_owned(),
            earlier: earlier.parse().ok()?,
        })
    }

    fn rule(&self) -> Rule {
        let side = side(&self.request);
        let fault = match self.blow {
            Blow::Before => Fault::DieBefore,
            Blow::After => Fault::DieAfter,
            Blow::Lost => Fault::Lost,
        };
        Rule::exactly(side, &self.request, fault).after(self.earlier)
    }
}

/// What a run came to.
struct End {
    requests: Vec<Seen>,
    state: State,
    effects: BTreeMap<String, usize>,
    outcome: Outcome,
}

/// All plans that a reference run gives rise to. Dying after a read is dying before the next request.
fn plans(story: Story, reference: &End) -> Vec<Plan> {
    let mut plans = Vec::new();
    for seen in certain(&reference.requests) {
        for (_, blow) in BLOWS {
            let same_as_another = blow == Blow::After && !seen.writes;
            let nobody_dies = blow == Blow::Lost && story.is_revoked();
            if !same_as_another && !nobody_dies {
                plans.push(Plan { story, blow, request: seen.name.clone(), earlier: seen.earlier });
            }
        }
    }
    plans
}

/// Runs a story. `wanted` is where it should lead; the reference run leads anywhere.
async fn run(upstream: Upstream, story: Story, plan: Option<Plan>, wanted: Option<Arc<End>>) -> End {
    let cluster = cluster().await;
    let world = story.world(cluster).await;
    let more = story.more_namespaces(&world.namespace);
    let namespaces = [vec![world.namespace.clone()], more.clone()].concat();
    let scope = Scope::new(&world.namespace, more);
    let wire = Wire::start(&upstream, Upstream::aws(&world.ecr.url()), scope).await;
    world.registry_at(&wire.aws_url, json!({})).await;
    let mut running = None;
    if !story.begins_with_the_operator() || story == Story::Restart {
        let first = wire.operator();
        if story == Story::Restart {
            story.act(&world, &wire.aws_url).await;
            story.at_rest(&world, false).await;
        }
        story.before(&world).await;
        wire.quiet(QUIET).await;
        running = Some(first);
    }
    if story == Story::Restart {
        drop(running.take());
        wire.revive();
    }
    world.ecr.clear_calls();
    wire.begin();
    if let Some(plan) = &plan {
        wire.rule(plan.rule());
    }
    if story != Story::Restart {
        story.act(&world, &wire.aws_url).await;
    }
    let mut process = running.unwrap_or_else(|| wire.operator());
    let mut problems = Vec::new();
    let mut requests = Vec::new();
    // The reference of a story in which a user intervenes is the story without the blow, and then the intervention.
    let (mut revoked, mut kept) = (false, false);
    loop {
        tokio::select! {
            biased;
            () = wire.died() => {
                process.kill();
                let dead = dead_secrets(&world, &namespaces).await;
                problems.extend(dead.iter().map(|secret| format!("after the blow this Secret can't pull: {secret}")));
                story.meanwhile(&world).await;
                kept |= story == Story::DeleteRevoked && world.there("app").is_some();
                revoked = true;
                wire.revive();
                process = wire.operator();
            }
            () = keep_running(&mut process) => {}
            () = settle(story, &world, &wire, revoked) => {
                if requests.is_empty() {
                    requests = wire.seen();
                }
                if wire.is_dead() {
                    continue;
                }
                if story.is_revoked() && !revoked {
                    process.kill();
                    wire.revive();
                    story.meanwhile(&world).await;
                    revoked = true;
                    process = wire.operator();
                    continue;
                }
                prove_idle(&world, &wire).await;
                if !wire.is_dead() {
                    break;
                }
            }
        }
    }
    problems.extend(early_creation(&wire.seen()));
    if kept && world.there("app").is_none() {
        problems.push("the repository was deleted after Retain was said".to_owned());
    }
    let struck = wire.seen().iter().any(|seen| seen.fault.is_some());
    let now = converged(wanted.as_deref().map(|wanted| &wanted.state), || async {
        let mut now = state(&world, &namespaces, &wire.aws_url).await;
        now.retain(|what, _| !story.leaves_open(what));
        now
    });
    let now = now.await;
    if let Some(wanted) = &wanted {
        problems.extend(differences(&now, &wanted.state));
        problems.extend(excess(&wanted.effects, &effects(&world, &wire.aws_url), story.is_revoked()));
    }
    let logged = wire.logged();
    let from = logged.lines().count().saturating_sub(LOG_LINES);
    let log = logged.lines().skip(from).collect::<Vec<_>>().join("\n");
    End { requests, state: now, effects: effects(&world, &wire.aws_url), outcome: Outcome { struck, problems, log } }
}

/// Starts the operator anew whenever it ends by itself, as the kubelet does.
async fn keep_running(process: &mut Process) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        process.restart_if_ended();
    }
}

async fn settle(story: Story, world: &World, wire: &Wire, revoked: bool) {
    story.at_rest(world, revoked).await;
    wire.quiet(QUIET).await;
}

/// An object that costs nothing is worked on after everything that came before.
async fn prove_idle(world: &World, wire: &Wire) {
    let name = format!("{MARKER}-{}", wire.life());
    let marker = json!({
        "apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRepository", "spec": {},
        "metadata": {"name": name, "namespace": world.namespace, "annotations": {"ecr-operator.dev/suspend": "true"}},
    });
    world.apply(&marker).await;
    tokio::select! {
        () = wire.died() => {}
        _ = world.repository_says(&name, "Unknown", "Suspended") => wire.quiet(QUIET).await,
    }
}

/// P4: nothing is created before the finalizer is durable.
fn early_creation(seen: &[Seen]) -> Option<String> {
    let created = seen.iter().position(|seen| seen.name == "CreateRepository app")?;
    let durable =
        seen[..created].iter().any(|seen| seen.name == "PATCH ecrrepositories/app" && seen.answer == Some(200));
    (!durable).then(|| "the repository was created before the finalizer was there".to_owned())
}

async fn reference(upstream: &Upstream, story: Story) -> Arc<End> {
    let end = run(upstream.clone(), story, None, None).await;
    assert!(end.outcome.problems.is_empty(), "{}: {:#?}", story.name(), end.outcome.problems);
    Arc::new(end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_or_loses_an_answer_at_any_request_leaves_the_same_behind() {
    let began = Instant::now();
    let upstream = Upstream::kubernetes().await;
    let only = std::env::var("CRASH_PLAN").ok();
    if only.as_ref().is_some_and(|id| id.starts_with(hand_over::STORY)) {
        return;
    }
    let only = only.map(|id| Plan::parse(&id).unwrap_or_else(|| panic!("no plan: {id}")));
    let only_story = std::env::var("CRASH_STORY").ok();
    let stories = story::ALL.into_iter().filter(|story| {
        only.as_ref().is_none_or(|plan| plan.story == *story)
            && only_story.as_ref().is_none_or(|name| story.name() == name)
    });
    let references: BTreeMap<Story, Arc<End>> = futures::stream::iter(stories)
        .map(|story| {
            let upstream = upstream.clone();
            async move { (story, tokio::spawn(async move { reference(&upstream, story).await }).await.unwrap()) }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let plans = match only {
        Some(plan) => vec![plan],
        None => drawn(references.iter().flat_map(|(story, end)| plans(*story, end)).collect(), SAMPLE),
    };
    println!("{} stories, {} plans, after {:?}", references.len(), plans.len(), began.elapsed());
    let run = |plan: &Plan| {
        let run = run(upstream.clone(), plan.story, Some(plan.clone()), Some(references[&plan.story].clone()));
        async move { run.await.outcome }
    };
    strike(plans, AT_ONCE, run).await;
    println!("all in {:?}", began.elapsed());
}
