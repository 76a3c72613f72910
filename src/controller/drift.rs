//! Drift: one snapshot of a registry's repositories and their tags an interval, compared with what each object declares.
//! Those that differ are looked at by name. What no snapshot shows is read repository by repository, in turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::api::EcrRepository;
use crate::aws::{AwsError, Priority};
use crate::controller::context::Context;
use crate::controller::registries::Registry;
use crate::controller::repository_parse::{applied, desired, held};
use crate::core::hosts::repository_arn;
use crate::core::policy::WantedPolicy;
use crate::core::reason::{Class, Problem};
use crate::core::repository::{Aspect, Core, Desired, Digests, Wanted, check_every, core_steps, missing_tags};

/// Where `readBudgetPerHour` isn't set.
const READS_PER_HOUR: u32 = 3600;

/// An object with what it declares.
type Declared = (Arc<EcrRepository>, Desired);

/// Takes a snapshot if it is time for one, or a person asks for one.
pub(super) async fn watch(registry: &Registry, context: &Context, anew: bool) {
    let interval = context.registries.drift_interval(&registry.name);
    if !context.registries.snapshot_due(&registry.name, interval, Timestamp::now()) && !anew {
        return;
    }
    ask_how_it_scans(registry, context).await;
    if anew {
        context.snapshots.try_again(&registry.name);
    }
    compare(registry, context, &declared(registry, context)).await;
    set_rounds(registry, context);
}

/// Brings the length of a round of checks up to date, for what is declared and what snapshots show.
pub(super) fn set_rounds(registry: &Registry, context: &Context) {
    let interval = context.registries.drift_interval(&registry.name);
    let reads = declared(registry, context).into_iter().map(|(object, desired)| {
        let tags_seen = context.checks.tags_seen(&object.uid().unwrap_or_default());
        reads(&desired, tags_seen)
    });
    let budget =
        registry.spec.read_budget_per_hour.and_then(|budget| u32::try_from(budget).ok()).unwrap_or(READS_PER_HOUR);
    let every = check_every(interval, budget, reads.fold(0, u32::saturating_add));
    context.registries.set_check_every(&registry.name, every);
}

fn declared(registry: &Registry, context: &Context) -> Vec<Declared> {
    let objects = context.stores.repositories.state_filter(|object| object.spec.registry_ref.name == registry.name);
    let declared = objects.into_iter().filter_map(|object| {
        let desired = desired(&object, registry, context).ok()?;
        Some((object, desired))
    });
    declared.collect()
}

async fn ask_how_it_scans(registry: &Registry, context: &Context) {
    match registry.ecr().at(Priority::Background).registry_scanning().await {
        Ok(how) => context.registries.set_scanning(&registry.name, how),
        // It is for a message and to spare useless writes; without the permission things go on as they were.
        Err(error) => tracing::debug!(registry = registry.name, %error, "registry scanning isn't known"),
    }
}

/// Compares what is declared with a snapshot, and has those that differ looked at.
async fn compare(registry: &Registry, context: &Context, declared: &[Declared]) {
    let held: Vec<_> =
        declared.iter().filter_map(|(object, desired)| Some((object, desired, held(object, desired)?))).collect();
    if held.is_empty() {
        return;
    }
    let names = held.iter().map(|(_, desired, _)| desired.name.to_string()).collect();
    let arns: Vec<_> = held.iter().map(|(_, desired, _)| desired.arn.clone()).collect();
    let (ecr, tagging, now) = (registry.ecr().at(Priority::Background), registry.tagging(), Timestamp::now());
    let (cores, tags) = futures::join!(
        context.snapshots.take(&registry.name, &ecr, names, now),
        context.snapshots.tags(&registry.name, &tagging, &arns, now)
    );
    let cores = cores.inspect_err(|error| {
        tracing::warn!(registry = registry.name, %error, "no snapshot");
        context.registries.snapshot_failed(&registry.name);
    });
    context.registries.set_blindness(&registry.name, cores.as_ref().err().and_then(|error| blindness(registry, error)));
    let cores = cores.ok();
    let tags = tags
        .inspect_err(|error| tracing::info!(registry = registry.name, %error, "tags are read one by one, in turns"))
        .unwrap_or_default();
    let scans = context.registries.scanning(&registry.name).is_some();
    for (object, desired, created) in held {
        let tags = tags.get(&desired.arn);
        context.checks.set_tags_seen(&desired.owner.uid, tags.is_some());
        // A change that is still on its way is no drift.
        let stale = applied(object).stale(&Digests::of(desired));
        let is_settled = |aspect| !stale.contains(&aspect);
        let core = |all: &HashMap<_, _>| differs(desired, created, all.get(desired.name.as_str()), scans);
        if is_settled(Aspect::Core) && cores.as_ref().is_some_and(core) {
            suspect(object, context, &Aspect::ALL);
        } else if is_settled(Aspect::Tags) && tags.is_some_and(|tags| !missing_tags(desired, tags).is_empty()) {
            suspect(object, context, &[Aspect::Tags]);
        }
    }
}

/// A permission that is missing is told: what only snapshots show of repositories that change behind our back goes unseen.
fn blindness(registry: &Registry, error: &AwsError) -> Option<Problem> {
    let problem = error.problem(&repository_arn(&registry.region, &registry.account, "*"));
    (problem.reason.class() == Class::Stalled).then(|| {
        let message = format!(
            "nobody sees what others change in the mutability and scanning of repositories, nor whether they are still there: {}",
            problem.message
        );
        Problem::new(problem.reason, message)
    })
}

/// The calls that a check of the repository takes: its tags, where no snapshot shows them, and each policy that is declared.
fn reads(desired: &Desired, tags_seen: bool) -> u32 {
    u32::from(!tags_seen)
        + u32::from(desired.lifecycle != Wanted::Untouched)
        + u32::from(desired.policy != WantedPolicy::Untouched)
}

fn differs(desired: &Desired, created: Timestamp, there: Option<&Core>, registry_scans: bool) -> bool {
    let same = |core: &Core| core.created_at == created && core_steps(desired, core, registry_scans).is_empty();
    !there.is_some_and(same)
}

fn suspect(object: &EcrRepository, context: &Context, aspects: &[Aspect]) {
    if context.checks.suspect(&object.uid().unwrap_or_default(), aspects) {
        // A closed queue means that the process is ending.
        let _ = context.repositories.send(ObjectRef::from_obj(object));
    }
}

/// The interval in the spelling of the spec.
#[must_use]
pub(super) fn spelled(interval: Duration) -> Option<String> {
    let rounded = SignedDuration::from_secs(i64::try_from(interval.as_secs()).ok()?);
    Some(format!("{rounded:#}").replace(' ', ""))
}
