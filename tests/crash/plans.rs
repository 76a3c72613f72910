//! What plans of all kinds have in common: a sample of them is drawn, each is run, and its end held against that of a reference
//! run in which nobody was struck.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use futures::StreamExt as _;

use crate::support::faults::Seen;
use crate::support::faults::state::State;

/// Nothing was asked for so long: the operator is at rest.
pub const QUIET: Duration = Duration::from_millis(400);
/// Until what differs is what it should be.
pub const CONVERGENCE: Duration = Duration::from_secs(30);
/// A plan whose request doesn't come is tried so often: what is asked depends on timing, too.
const TRIES: usize = 3;
/// So many failures are told with their logs.
const MOST_LOGGED: usize = 5;

/// What a plan came to.
pub struct Outcome {
    /// Whether the request came that was to be struck.
    pub struck: bool,
    pub problems: Vec<String>,
    pub log: String,
}

/// So many of these plans, or all.
pub fn drawn<Plan: Display>(mut plans: Vec<Plan>, sample: usize) -> Vec<Plan> {
    if std::env::var("CRASH_PLANS").is_ok_and(|which| which == "all") {
        return plans;
    }
    let seed = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| std::process::id().into());
    println!("a sample of {sample} of {} plans, CRASH_SEED={seed}", plans.len());
    let rank = |plan: &Plan| {
        let mut hasher = DefaultHasher::new();
        (seed, plan.to_string()).hash(&mut hasher);
        hasher.finish()
    };
    plans.sort_by_cached_key(rank);
    plans.truncate(sample);
    plans
}

/// Runs all of them, so many at once, and tells of those that came to another end or panicked.
pub async fn strike<Plan, Running>(plans: Vec<Plan>, at_once: usize, run: impl Fn(&Plan) -> Running)
where
    Plan: Display,
    Running: Future<Output = Outcome> + Send + 'static,
{
    let run = &run;
    let (count, mut missed, mut failures) = (plans.len(), Vec::new(), Vec::new());
    let mut ends = futures::stream::iter(plans)
        .map(|plan| async move {
            let mut end = tokio::spawn(run(&plan)).await;
            for _ in 1..TRIES {
                if end.as_ref().is_ok_and(|outcome| !outcome.struck && outcome.problems.is_empty()) {
                    end = tokio::spawn(run(&plan)).await;
                }
            }
            (plan, end)
        })
        .buffer_unordered(at_once);
    while let Some((plan, end)) = ends.next().await {
        let (problems, log) = match end {
            Ok(Outcome { struck, problems, .. }) if problems.is_empty() => {
                missed.extend((!struck).then(|| plan.to_string()));
                continue;
            }
            Ok(Outcome { problems, log, .. }) => (problems.join("\n    "), log),
            Err(panicked) => (panicked.to_string(), String::new()),
        };
        println!("FAILED CRASH_PLAN='{plan}'\n    {problems}");
        let log = if failures.len() < MOST_LOGGED { log } else { String::new() };
        failures.push(format!("CRASH_PLAN='{plan}'\n    {problems}\n{log}"));
    }
    println!("{count} plans, {} not reached, {} failed", missed.len(), failures.len());
    println!("not reached: {missed:#?}");
    assert!(failures.is_empty(), "{} of {count} plans failed:\n{}", failures.len(), failures.join("\n"));
    missed.retain(|plan| !may_be_missed(plan));
    assert!(missed.is_empty(), "these requests of the reference runs never came: {missed:#?}");
}

/// Of some requests only the first is certain: a status is written again where something changed while the last one was under
/// way, and something is read again where the cache was behind.
fn may_be_missed(plan: &str) -> bool {
    let Some((request, earlier)) = plan.rsplit_once('#') else { return false };
    let is_chance = request.ends_with("/status") || ["/LIST ", "/GET "].iter().any(|read| request.contains(read));
    is_chance && earlier != "0"
}

/// The requests of a reference run that another run asks as well: each by its name, and how many of that name come before it.
/// A patch that is refused was too late, as another writer came first or the object was gone: which no other run need be.
pub fn certain(requests: &[Seen]) -> impl Iterator<Item = &Seen> {
    let refused = |seen: &&Seen| matches!(seen.answer, Some(404 | 409)) && seen.name.starts_with("PATCH ");
    let mut by_chance: HashMap<&str, usize> = HashMap::new();
    for seen in requests.iter().filter(refused) {
        *by_chance.entry(&seen.name).or_default() += 1;
    }
    let times = |name: &str| requests.iter().filter(|seen| seen.name == name).count();
    requests.iter().filter(move |seen| {
        let by_chance = by_chance.get(seen.name.as_str()).copied().unwrap_or_default();
        !seen.is_watch && seen.earlier + by_chance < times(&seen.name)
    })
}

/// What there is, once it is what was wanted; else whatever it is when time is over. A reference run leads anywhere.
pub async fn converged<Looking: Future<Output = State>>(wanted: Option<&State>, now: impl Fn() -> Looking) -> State {
    let begun = Instant::now();
    loop {
        let now = now().await;
        if wanted.is_none_or(|wanted| *wanted == now) || begun.elapsed() > CONVERGENCE {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// P3: what changed in AWS is what changes in the reference run, but that what is idempotent may happen twice.
pub fn excess(wanted: &BTreeMap<String, usize>, done: &BTreeMap<String, usize>, is_revoked: bool) -> Vec<String> {
    let mut problems = Vec::new();
    for (effect, times) in done {
        let reference = wanted.get(effect).copied().unwrap_or_default();
        let once = effect.starts_with("CreateRepository") || effect.starts_with("DeleteRepository");
        let most = if reference == 0 || once { reference } else { reference + 1 };
        if *times > most {
            problems.push(format!("AWS was changed {times} times, {reference} in the reference run: {effect}"));
        }
    }
    if !is_revoked {
        let missing = wanted.keys().filter(|effect| !done.contains_key(*effect));
        problems.extend(missing.map(|effect| format!("AWS was never changed by {effect}")));
    }
    problems
}
