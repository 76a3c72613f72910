//! From what is there to what is declared: the steps that are needed and no others, or why there are none.

use crate::api::{AdoptionPolicy, DeletionPolicy};
use crate::core::lifecycle::LifecycleDocument;
use crate::core::ownership::{Ownership, TAG_PREFIX, Tags};
use crate::core::policy::{self, PolicyDocument};
use crate::core::reason::{Problem, Reason};
use crate::core::repository::{Aspect, Core, Creation, Desired, Observed, Reading, Step, Wanted};

/// What decides whether steps may be taken.
#[derive(Debug, Clone)]
pub struct Guard<'a> {
    /// Whose it is; of no matter where nothing is there.
    pub ownership: Ownership,
    /// Keys of tags that we set before.
    pub managed_tags: &'a [String],
    /// How often our tags were put back.
    pub reclaims: i32,
    /// Whether the registry's own scanning configuration decides, and that of the repository is of no effect.
    pub registry_scans: bool,
    /// Whether all of the repository policy was set by us, without the marks of ours.
    pub policy_is_ours: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order; a gate that fails ends it, any other failure doesn't hold back the rest.
    pub steps: Vec<Step>,
    /// Where set, the steps must not be taken, only shown.
    pub blocked: Option<Problem>,
    /// What no step can mend, and which aspect it concerns.
    pub problems: Vec<(Option<Aspect>, Problem)>,
}

/// Decides it. `observed` is `None` where there is no such repository.
#[must_use]
pub fn plan(desired: &Desired, observed: Option<&Observed>, guard: &Guard<'_>) -> Plan {
    let mut plan = Plan { problems: standing_problems(desired), ..Plan::default() };
    match observed {
        None => {
            plan.steps.push(Step::Create(creation(desired)));
            plan.add_policies(desired, &Reading::Absent, &Reading::Absent, guard.policy_is_ours);
        }
        Some(observed) => {
            plan.blocked = blocked(desired, &guard.ownership).or_else(|| contested(desired, guard));
            plan.steps.extend(tag_steps(desired, observed, guard));
            if let Some(core) = observed.core.found() {
                plan.problems.extend(encryption_problem(desired, core).map(|problem| (Some(Aspect::Core), problem)));
                plan.steps.extend(core_steps(desired, core, guard.registry_scans));
            }
            plan.add_policies(desired, &observed.lifecycle, &observed.policy, guard.policy_is_ours);
        }
    }
    if desired.plan_only && plan.blocked.is_none() && !plan.steps.is_empty() {
        let message =
            format!("mode Plan: {} to do, see status.plan; set mode to Apply to have it done", count(plan.steps.len()));
        plan.blocked = Some(Problem::new(Reason::PlanPending, message));
    }
    plan
}

/// Whether the policies, as far as they were read, aren't as declared.
#[must_use]
pub fn policies_differ(
    desired: &Desired,
    lifecycle: &Reading<LifecycleDocument>,
    policy: &Reading<PolicyDocument>,
) -> bool {
    let mut plan = Plan::default();
    // What is no longer declared goes with the change of the spec, which is never only glanced at.
    plan.add_policies(desired, lifecycle, policy, false);
    plan != Plan::default()
}

impl Plan {
    fn add_policies(
        &mut self,
        desired: &Desired,
        lifecycle: &Reading<LifecycleDocument>,
        policy: &Reading<PolicyDocument>,
        policy_is_ours: bool,
    ) {
        self.steps.extend(lifecycle_step(desired, lifecycle));
        match policy_step(desired, policy, policy_is_ours) {
            Ok(step) => self.steps.extend(step),
            Err(problem) => self.problems.push((Some(Aspect::Policy), problem)),
        }
    }
}

/// The step that the repository policy asks for, given the one that is there.
///
/// # Errors
/// `Invalid` where it would be too long with the foreign statements.
pub fn policy_step(desired: &Desired, there: &Reading<PolicyDocument>, is_ours: bool) -> Result<Option<Step>, Problem> {
    if *there == Reading::Unread {
        return Ok(None);
    }
    let there = there.found();
    let target = policy::target(&desired.policy, there, is_ours)
        .map_err(|error| Problem::new(Reason::Invalid, format!("spec.{error}, foreign statements included")))?;
    if target.as_ref() == there {
        return Ok(None);
    }
    let changes = PolicyDocument::changes(there, target.as_ref());
    Ok(Some(match target {
        Some(document) => Step::SetRepositoryPolicy { document, changes },
        None => Step::DeleteRepositoryPolicy { changes },
    }))
}

fn count(steps: usize) -> String {
    if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") }
}

/// What can be said of a declaration without looking at anything.
#[must_use]
pub fn standing_problems(desired: &Desired) -> Vec<(Option<Aspect>, Problem)> {
    let invalid = desired.invalid.iter().map(|(aspect, problem)| (Some(*aspect), problem.clone()));
    over_the_ceiling(desired).map(|problem| (None, problem)).into_iter().chain(invalid).collect()
}

fn creation(desired: &Desired) -> Creation {
    Creation {
        mutability: desired.mutability.clone(),
        scan_on_push: desired.scan_on_push,
        encryption: desired.encryption.clone(),
        tags: desired.all_tags(),
    }
}

/// Whether a repository that exists may be touched at all.
fn blocked(desired: &Desired, ownership: &Ownership) -> Option<Problem> {
    let (needs, whose) = match ownership {
        Ownership::Ours | Ownership::Returning | Ownership::Stripped => return None,
        Ownership::Nobody => (AdoptionPolicy::Adopt, "nobody".to_owned()),
        // Whether that CR still exists was looked up by the caller, who else would have said Nobody.
        Ownership::Sibling(owner) => {
            let message = format!(
                "repository {} belongs to the EcrRepository {}/{} of this cluster; one repository has one owner: delete one of the two",
                desired.name, owner.namespace, owner.name
            );
            return Some(Problem::new(Reason::Conflict, message));
        }
        // A right to take over is for the first time: of two who both may, one has to yield.
        Ownership::Lost(why) => {
            let message = format!(
                "this object held repository {}, and {why}; nothing was changed. If it is to come back, delete this object (the repository stays) and create it anew with the adoptionPolicy that this takes",
                desired.name
            );
            return Some(Problem::new(Reason::Conflict, message));
        }
        Ownership::Other(whose) => (AdoptionPolicy::TakeOver, whose.clone()),
    };
    let name = &desired.name;
    if desired.adoption < needs {
        let (reason, asks) = match needs {
            AdoptionPolicy::TakeOver => (Reason::Conflict, "TakeOver (with the other's consent)"),
            _ => (Reason::AlreadyExists, "Adopt"),
        };
        let message = format!(
            "repository {name} exists and is owned by {whose}; nothing was changed. To take it, set spec.adoptionPolicy to {asks}, and spec.inheritDefaults to true (with the registry's defaults) or false (as declared here alone); status.plan shows what would be done"
        );
        return Some(Problem::new(reason, message));
    }
    (desired.ceilings.adoption < needs).then(|| {
        Problem::new(
            Reason::AdoptionDenied,
            format!(
                "repository {name} exists and is owned by {whose}; the registry's `allow` rules permit maxAdoption {}, this needs {}. status.plan shows what would be done",
                desired.ceilings.adoption.as_str(),
                needs.as_str()
            ),
        )
    })
}

/// Tags that somebody takes away again and again are put back three times; then a person has to find out who.
fn contested(desired: &Desired, guard: &Guard<'_>) -> Option<Problem> {
    const MOST_RECLAIMS: i32 = 3;
    (guard.ownership == Ownership::Stripped && guard.reclaims >= MOST_RECLAIMS).then(|| {
        Problem::new(
            Reason::Contested,
            format!(
                "somebody has taken this operator's tags off repository {} {MOST_RECLAIMS} times; find out who (CloudTrail: UntagResource), then set the annotation ecr-operator.dev/reconcile-at to a new value",
                desired.name
            ),
        )
    })
}

/// A deletionPolicy beyond the registry's ceiling is said when it is declared, not when it is too late.
fn over_the_ceiling(desired: &Desired) -> Option<Problem> {
    let most = desired.ceilings.deletion;
    (desired.deletion > most).then(|| {
        Problem::new(
            Reason::NotAllowed,
            format!(
                "deletionPolicy {} is above the maxDeletion {} that the registry's `allow` rules give this namespace",
                desired.deletion.as_str(),
                most.as_str()
            ),
        )
    })
}

fn encryption_problem(desired: &Desired, core: &Core) -> Option<Problem> {
    let declared = desired.encryption.as_ref().filter(|_| desired.encryption_declared)?;
    declared.differs(&core.encryption).then(|| {
        Problem::new(
            Reason::Invalid,
            format!(
                "encryptionConfiguration: declared {}, in AWS {}; ECR can't change it after creation, and nothing is ever re-created. To declare what is there, delete this object with deletionPolicy Retain (the repository stays) and create it again",
                declared.describe(),
                core.encryption.describe()
            ),
        )
    })
}

/// The tags that a repository with the tags `there` lacks, or has with another value.
#[must_use]
pub fn missing_tags(desired: &Desired, there: &Tags) -> Tags {
    let mut wanted = desired.all_tags();
    wanted.retain(|key, value| there.get(key) != Some(value));
    wanted
}

fn tag_steps(desired: &Desired, observed: &Observed, guard: &Guard<'_>) -> Vec<Step> {
    let (marks, set): (Tags, Tags) =
        missing_tags(desired, &observed.tags).into_iter().partition(|(key, _)| key.starts_with(TAG_PREFIX));
    let dropped = |key: &&String| {
        !key.starts_with(TAG_PREFIX) && !desired.tags.contains_key(*key) && observed.tags.contains_key(*key)
    };
    let unset: Vec<String> = if desired.is_invalid(Aspect::Tags) {
        Vec::new()
    } else {
        guard.managed_tags.iter().filter(dropped).cloned().collect()
    };
    let claim = (!marks.is_empty()).then_some(Step::Claim(marks));
    let set = (!set.is_empty()).then_some(Step::TagResource(set));
    let unset = (!unset.is_empty()).then_some(Step::UntagResource(unset));
    // What makes room comes first; but nothing before the mark on what isn't marked as ours.
    let (first, second) = if guard.ownership == Ownership::Ours { (unset, claim) } else { (claim, unset) };
    first.into_iter().chain(second).chain(set).collect()
}

/// The steps that what one call tells of a repository asks for.
#[must_use]
pub fn core_steps(desired: &Desired, core: &Core, registry_scans: bool) -> Vec<Step> {
    let mutability = desired.mutability.as_ref().filter(|wanted| **wanted != core.mutability);
    let scanning = desired.scan_on_push.filter(|wanted| !registry_scans && *wanted != core.scan_on_push);
    let mutability = mutability.map(|wanted| Step::PutImageTagMutability(wanted.clone()));
    mutability.into_iter().chain(scanning.map(Step::PutImageScanningConfiguration)).collect()
}

fn lifecycle_step(desired: &Desired, there: &Reading<LifecycleDocument>) -> Option<Step> {
    match (&desired.lifecycle, there) {
        (Wanted::Untouched, _) | (_, Reading::Unread) | (Wanted::Removed, Reading::Absent) => None,
        (Wanted::Removed, Reading::Found(there)) => {
            Some(Step::DeleteLifecyclePolicy { changes: LifecycleDocument::changes(Some(there), None) })
        }
        (Wanted::Kept(document), there) => (there.found() != Some(document)).then(|| Step::PutLifecyclePolicy {
            document: document.clone(),
            changes: LifecycleDocument::changes(there.found(), Some(document)),
        }),
    }
}

/// Whether the repository goes with its CR.
#[must_use]
pub fn deletes(policy: DeletionPolicy) -> bool {
    policy != DeletionPolicy::Retain
}
