//! What ECR holds of the aspects that a pass looks at.

use crate::api::EcrRepository;
use crate::aws::{AwsError, Ecr};
use crate::controller::repository_parse::held;
use crate::controller::repository_status::POLICY;
use crate::core::lifecycle::LifecycleDocument;
use crate::core::ownership::Owner;
use crate::core::policy::{PolicyDocument, WantedPolicy};
use crate::core::reason::Problem;
use crate::core::repository::{Aspect, Desired, Observed, Reading, Wanted, policies_differ};

/// What was seen, and what couldn't be.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// `None` where there is no such repository.
    pub observed: Option<Observed>,
    /// Aspects that couldn't be read: they hold back no other.
    pub unseen: Vec<(Aspect, AwsError)>,
}

impl Seen {
    /// What is seen where nobody looked.
    pub(super) fn nothing() -> Self {
        Self::default()
    }
}

/// Looks at these aspects, as far as they are declared. Tags are always read: they say whose it is.
///
/// # Errors
/// Where it can't be told whether there is such a repository, and whose it is.
pub(super) async fn observe(
    object: &EcrRepository,
    ecr: &Ecr,
    desired: &Desired,
    aspects: &[Aspect],
) -> Result<Seen, Problem> {
    let name = desired.name.as_str();
    let told = |error: AwsError| error.problem(&desired.arn);
    // Where nothing was there so far, the tags tell whether there is anything to look at.
    let first = if held(object, desired).is_none() {
        let Some(tags) = ecr.tags(&desired.arn).await.map_err(told)? else {
            return Ok(Seen::nothing());
        };
        Some(tags)
    } else {
        None
    };
    let tags = async { if first.is_some() { Ok(first) } else { ecr.tags(&desired.arn).await } };
    let core = async { if aspects.contains(&Aspect::Core) { Some(ecr.describe(name).await) } else { None } };
    let policies = policies(object, ecr, desired, aspects);
    let (tags, core, (lifecycle, policy)) = futures::join!(tags, core, policies);
    let mut seen = Seen::default();
    let Some(tags) = tags.map_err(told)? else {
        return Ok(seen);
    };
    let core = match core {
        // Where the tags name nobody, the creation time tells whether it is still the same repository.
        None | Some(Err(_)) if !Owner::is_told(&tags) => Some(ecr.describe(name).await.map_err(told)?),
        Some(Ok(core)) => Some(core),
        Some(Err(error)) => {
            seen.unseen.push((Aspect::Core, error));
            None
        }
        None => None,
    };
    let core = match core {
        Some(Some(core)) => Reading::Found(core),
        Some(None) => return Ok(seen),
        None => Reading::Unread,
    };
    let lifecycle = seen.note(Aspect::Lifecycle, lifecycle);
    let policy = seen.note(Aspect::Policy, policy);
    seen.observed = Some(Observed { core, tags, lifecycle, policy });
    Ok(seen)
}

/// What a look at the policies alone tells. Nothing may be written on the strength of it: whose the repository is
/// wasn't asked.
#[derive(Debug)]
pub(super) struct Glance {
    /// Whether they aren't as declared.
    pub differs: bool,
    /// What couldn't be read.
    pub unseen: Vec<(Aspect, AwsError)>,
}

/// Looks at the policies alone.
pub(super) async fn glance(object: &EcrRepository, ecr: &Ecr, desired: &Desired) -> Glance {
    let (lifecycle, policy) = policies(object, ecr, desired, &Aspect::ALL).await;
    let mut seen = Seen::nothing();
    let lifecycle = seen.note(Aspect::Lifecycle, lifecycle);
    let policy = seen.note(Aspect::Policy, policy);
    Glance { differs: policies_differ(desired, &lifecycle, &policy), unseen: seen.unseen }
}

type Read<T> = Result<Reading<T>, AwsError>;

async fn policies(
    object: &EcrRepository,
    ecr: &Ecr,
    desired: &Desired,
    aspects: &[Aspect],
) -> (Read<LifecycleDocument>, Read<PolicyDocument>) {
    let name = desired.name.as_str();
    let had_policy = object.status.as_ref().is_some_and(|status| status.managed_policies.iter().any(|it| it == POLICY));
    let reads = |aspect| aspects.contains(&aspect) && !desired.is_invalid(aspect);
    let lifecycle = async {
        let concerns = desired.lifecycle != Wanted::Untouched;
        if concerns && reads(Aspect::Lifecycle) { ecr.lifecycle_policy(name).await } else { Ok(Reading::Unread) }
    };
    // A policy of ours that is no longer declared is taken back; one that never was isn't even read.
    let policy = async {
        let concerns = desired.policy != WantedPolicy::Untouched || had_policy;
        if concerns && reads(Aspect::Policy) { ecr.repository_policy(name).await } else { Ok(Reading::Unread) }
    };
    futures::join!(lifecycle, policy)
}

impl Seen {
    fn note<T>(&mut self, aspect: Aspect, read: Read<T>) -> Reading<T> {
        read.unwrap_or_else(|error| {
            self.unseen.push((aspect, error));
            Reading::Unread
        })
    }
}
