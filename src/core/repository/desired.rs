//! What an `EcrRepository` asks for, parsed: the spec over the registry's defaults, aspect by aspect.

use std::collections::BTreeSet;

use crate::api::RepositoryPolicy;
use crate::api::{AdoptionPolicy, Defaults, DeletionPolicy, EcrRegistrySpec, EcrRepositorySpec, LifecyclePolicy, Mode};
use crate::core::access::{Access, Ceilings};
use crate::core::hosts::repository_arn;
use crate::core::lifecycle::LifecycleDocument;
use crate::core::names::{AccountId, Region, RepositoryName};
use crate::core::ownership::{Owner, TAG_PREFIX, Tags};
use crate::core::policy::WantedPolicy;
use crate::core::reason::{Problem, Reason};
use crate::core::repository::{Aspect, Encryption, Mutability};

/// ECR keeps 50 tags on a repository; four are ours.
const MOST_TAGS: usize = 46;

/// One aspect of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted<T> {
    /// Not declared: whatever AWS holds is fine.
    Untouched,
    /// Declared as empty.
    Removed,
    /// Declared.
    Kept(T),
}

/// What must be known to parse a spec.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The registry that it names.
    pub registry: &'a EcrRegistrySpec,
    /// Its name.
    pub registry_name: &'a str,
    /// Its account.
    pub account: &'a AccountId,
    /// Its Region.
    pub region: &'a Region,
    /// What the CR's namespace may do there.
    pub access: &'a Access,
    /// The CR.
    pub owner: &'a Owner,
}

/// A repository as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Its name.
    pub name: RepositoryName,
    /// Its ARN.
    pub arn: String,
    /// The CR.
    pub owner: Owner,
    /// Mutability and exclusions; absent = untouched.
    pub mutability: Option<Mutability>,
    /// Scan on push; absent = untouched.
    pub scan_on_push: Option<bool>,
    /// Encryption at creation; absent = ECR's default, and never compared.
    pub encryption: Option<Encryption>,
    /// Whether the spec itself (not a default) declares the encryption: then a difference is told.
    pub encryption_declared: bool,
    /// The lifecycle policy.
    pub lifecycle: Wanted<LifecycleDocument>,
    /// The repository policy.
    pub policy: WantedPolicy,
    /// Tags besides ours.
    pub tags: Tags,
    /// What to do with the repository when the CR goes.
    pub deletion: DeletionPolicy,
    /// Whether one that exists may be taken.
    pub adoption: AdoptionPolicy,
    /// How far the registry lets both go.
    pub ceilings: Ceilings,
    /// Only say what would be done.
    pub plan_only: bool,
    /// Aspects whose declaration makes no sense: they are left alone, and hold back no other.
    pub invalid: Vec<(Aspect, Problem)>,
}

pub(super) fn name(spec: &EcrRepositorySpec, owner: &Owner) -> Result<RepositoryName, Problem> {
    let name = spec.name.as_deref().unwrap_or(&owner.name);
    RepositoryName::parse(name).map_err(|error| Problem::new(Reason::Invalid, format!("spec.name: {error}")))
}

pub(super) fn defaults<'a>(spec: &EcrRepositorySpec, registry: &'a EcrRegistrySpec) -> Option<&'a Defaults> {
    registry.defaults.as_ref().filter(|_| spec.inherit_defaults.unwrap_or(true))
}

pub(super) fn deletion(spec: &EcrRepositorySpec, defaults: Option<&Defaults>) -> DeletionPolicy {
    spec.deletion_policy.or(defaults.and_then(|defaults| defaults.deletion_policy)).unwrap_or(DeletionPolicy::Retain)
}

fn plan_only(spec: &EcrRepositorySpec, registry: &EcrRegistrySpec) -> bool {
    spec.mode == Mode::Plan || registry.mode == Mode::Plan
}

impl Desired {
    /// Parses a spec.
    ///
    /// # Errors
    /// `Invalid` for what the schema let through and ECR wouldn't, `NotAllowed` for a name that no rule gives.
    pub fn parse(spec: &EcrRepositorySpec, context: Context<'_>) -> Result<Self, Problem> {
        let name = name(spec, context.owner)?;
        let ceilings = context.access.manages(name.as_str()).ok_or_else(|| not_allowed(&name, context))?;

        let none = Defaults::default();
        let defaults = defaults(spec, context.registry).unwrap_or(&none);

        // Mutability and its filters are one aspect: a spec that sets one doesn't inherit the other.
        let (mode, filters) = match spec.image_tag_mutability {
            Some(mode) => (Some(mode), &spec.image_tag_mutability_exclusion_filters),
            None => (defaults.image_tag_mutability, &defaults.image_tag_mutability_exclusion_filters),
        };
        let filters = filters.iter().flatten().map(|filter| filter.filter.clone()).collect();
        let mutability = mode.map(|mode| Mutability::new(mode.as_str(), filters));
        let scan = spec.image_scanning_configuration.as_ref().or(defaults.image_scanning_configuration.as_ref());
        let encryption = spec.encryption_configuration.as_ref().or(defaults.encryption_configuration.as_ref());
        let lifecycle = spec.lifecycle_policy.as_ref().or(defaults.lifecycle_policy.as_ref());
        let policy = spec.repository_policy.as_ref().or(defaults.repository_policy.as_ref());

        let mut invalid = Vec::new();
        let parse_policy = |policy: &RepositoryPolicy| {
            let parsed = WantedPolicy::parse(policy, context.region);
            parsed.map_err(|error| Problem::new(Reason::Invalid, format!("spec.{error}")))
        };
        let tags = effective_tags(spec, defaults, context);
        Ok(Self {
            arn: repository_arn(context.region, context.account, name.as_str()),
            name,
            owner: context.owner.clone(),
            mutability,
            scan_on_push: scan.map(|scan| scan.scan_on_push),
            encryption: encryption.map(|encryption| Encryption {
                kind: encryption.encryption_type.as_str().to_owned(),
                key: encryption.kms_key.clone(),
            }),
            encryption_declared: spec.encryption_configuration.is_some(),
            lifecycle: aspect(Aspect::Lifecycle, lifecycle.map(parse_lifecycle), &mut invalid, Wanted::Untouched),
            policy: aspect(Aspect::Policy, policy.map(parse_policy), &mut invalid, WantedPolicy::Untouched),
            tags: aspect(Aspect::Tags, Some(tags), &mut invalid, Tags::new()),
            deletion: deletion(spec, Some(defaults)),
            adoption: spec.adoption_policy,
            ceilings,
            plan_only: plan_only(spec, context.registry),
            invalid,
        })
    }

    /// Whether the declaration of this aspect makes no sense.
    #[must_use]
    pub fn is_invalid(&self, aspect: Aspect) -> bool {
        self.invalid.iter().any(|(invalid, _)| *invalid == aspect)
    }

    /// All tags that the repository is to have from us.
    #[must_use]
    pub fn all_tags(&self) -> Tags {
        let mut tags = self.tags.clone();
        tags.extend(self.owner.tags());
        tags
    }
}

/// An aspect as declared; one that makes no sense is `left_alone`, and told.
fn aspect<T>(
    aspect: Aspect,
    parsed: Option<Result<T, Problem>>,
    invalid: &mut Vec<(Aspect, Problem)>,
    left_alone: T,
) -> T {
    match parsed {
        Some(Ok(wanted)) => wanted,
        Some(Err(problem)) => {
            invalid.push((aspect, problem));
            left_alone
        }
        None => left_alone,
    }
}

fn not_allowed(name: &RepositoryName, context: Context<'_>) -> Problem {
    Problem::new(
        Reason::NotAllowed,
        format!(
            "namespace {} may not declare repository {name} with EcrRegistry {}: its `allow` rules let it manage {}; add a rule there, or choose another name",
            context.owner.namespace,
            context.registry_name,
            context.access.manageable()
        ),
    )
}

fn parse_lifecycle(policy: &LifecyclePolicy) -> Result<Wanted<LifecycleDocument>, Problem> {
    match LifecycleDocument::declared(policy) {
        Ok(Some(document)) => Ok(Wanted::Kept(document)),
        Ok(None) => Ok(Wanted::Removed),
        Err(error) => Err(Problem::new(Reason::Invalid, format!("spec.{error}"))),
    }
}

/// Defaults, then the spec over them, then what the registry requires over both.
fn effective_tags(spec: &EcrRepositorySpec, defaults: &Defaults, context: Context<'_>) -> Result<Tags, Problem> {
    let expand =
        |text: &str| text.replace("{namespace}", &context.owner.namespace).replace("{name}", &context.owner.name);
    let mut tags: Tags = defaults.tags.clone().unwrap_or_default();
    tags.extend(spec.tags.clone().unwrap_or_default());
    let required = context.registry.required_tags.iter().flatten();
    tags.extend(required.map(|(key, value)| (key.clone(), expand(value))));
    if tags.len() > MOST_TAGS {
        return Err(Problem::new(
            Reason::Invalid,
            format!(
                "spec.tags with the registry's defaults and requiredTags make {} tags; {MOST_TAGS} fit beside the operator's own",
                tags.len()
            ),
        ));
    }
    let reserved: BTreeSet<_> = tags.keys().filter(|key| key.starts_with(TAG_PREFIX)).cloned().collect();
    if let Some(key) = reserved.first() {
        return Err(Problem::new(Reason::Invalid, format!("spec.tags: {key} is the operator's own")));
    }
    Ok(tags)
}
