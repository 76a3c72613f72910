//! Drift: one snapshot of a registry's repositories an interval, compared with what each object declares. Those that
//! differ are looked at by name; nobody else is.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::api::EcrRepository;
use crate::controller::context::Context;
use crate::controller::registries::Registry;
use crate::controller::repository_parse::{applied, desired, held};
use crate::core::policy::WantedPolicy;
use crate::core::repository::{Aspect, Core, Desired, Digests, Wanted, check_every, core_steps};

/// Where `readBudgetPerHour` isn't set.
const READS_PER_HOUR: u32 = 3600;

/// Takes a snapshot if it is time for one, or if it is asked for `anew`, and brings the length of a round of checks up to date. Returns that length.
pub(super) async fn watch(registry: &Registry, context: &Context, anew: bool) -> Option<Duration> {
    let interval = context.registries.drift_interval(&registry.name);
    let due = context.registries.snapshot_due(&registry.name, interval, Timestamp::now());
    if !(due || anew) {
        return context.registries.check_every(&registry.name);
    }
    let objects = context.stores.repositories.state_filter(|object| object.spec.registry_ref.name == registry.name);
    let declared: Vec<_> =
        objects.iter().filter_map(|object| Some((object, desired(object, registry, context).ok()?))).collect();
    let reads = declared.iter().map(|(_, desired)| reads(desired)).fold(0, u32::saturating_add);
    let budget =
        registry.spec.read_budget_per_hour.and_then(|budget| u32::try_from(budget).ok()).unwrap_or(READS_PER_HOUR);
    let every = check_every(interval, budget, reads);
    context.registries.set_check_every(&registry.name, every);

    let held: Vec<_> = declared
        .iter()
        .filter_map(|(object, desired)| {
            let created = held(object, desired)?;
            // A change that is still on its way is no drift.
            let settled = !applied(object).stale(&Digests::of(desired)).contains(&Aspect::Core);
            settled.then_some((object, desired, created))
        })
        .collect();
    let ecr = registry.ecr();
    match ecr.registry_scanning().await {
        Ok(how) => context.registries.set_scanning(&registry.name, how),
        // It is for a message and to spare useless writes; without the permission things go on as they were.
        Err(error) => tracing::debug!(registry = registry.name, %error, "registry scanning isn't known"),
    }
    if held.is_empty() {
        return every;
    }
    let names = held.iter().map(|(_, desired, _)| desired.name.to_string()).collect();
    match context.snapshots.take(&registry.name, &ecr, names).await {
        Ok(all) => {
            let scans = context.registries.scanning(&registry.name).is_some();
            for (object, desired, created) in &held {
                if differs(desired, *created, all.get(desired.name.as_str()), scans) {
                    suspect(object, context);
                }
            }
        }
        Err(error) => {
            tracing::warn!(registry = registry.name, %error, "no snapshot");
            context.registries.snapshot_failed(&registry.name);
        }
    }
    every
}

/// The calls that a check of the repository takes: its tags, and each policy that is declared.
fn reads(desired: &Desired) -> u32 {
    1 + u32::from(desired.lifecycle != Wanted::Untouched) + u32::from(desired.policy != WantedPolicy::Untouched)
}

fn differs(desired: &Desired, created: Timestamp, there: Option<&Core>, registry_scans: bool) -> bool {
    let same = |core: &Core| core.created_at == created && core_steps(desired, core, registry_scans).is_empty();
    !there.is_some_and(same)
}

fn suspect(object: &EcrRepository, context: &Context) {
    if context.checks.suspect(&object.uid().unwrap_or_default()) {
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
