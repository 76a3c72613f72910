//! What deletion has to know of a declaration: nothing that could be wrong with its aspects may stop it.

use crate::api::{DeletionPolicy, EcrRegistrySpec, EcrRepositorySpec, Mode};
use crate::core::hosts::repository_arn;
use crate::core::names::RepositoryName;
use crate::core::reason::Problem;
use crate::core::repository::desired::{Context, defaults, deletion, name};

/// A repository whose object goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Its name.
    pub name: RepositoryName,
    /// Its ARN.
    pub arn: String,
    /// What to do with the repository.
    pub deletion: DeletionPolicy,
    /// The most that the registry allows; `None`: the namespace may not manage it at all (any more).
    pub ceiling: Option<DeletionPolicy>,
}

impl Doomed {
    /// Parses a spec as far as deletion needs it.
    ///
    /// # Errors
    /// `Invalid` for a name that is none.
    pub fn parse(spec: &EcrRepositorySpec, context: Context<'_>) -> Result<Self, Problem> {
        let name = name(spec, context.owner)?;
        Ok(Self {
            arn: repository_arn(context.region, context.account, name.as_str()),
            deletion: deletion(spec, defaults(spec, context.registry)),
            ceiling: context.access.manages(name.as_str()).map(|ceilings| ceilings.deletion),
            name,
        })
    }
}

/// Why the repository stays when its object goes, if it does: nobody needs AWS then, nor a registry that works. Where
/// there is no `registry` any more to inherit a policy from, `told` counts: the one last known to be in force.
#[must_use]
pub fn stays(
    spec: &EcrRepositorySpec,
    registry: Option<&EcrRegistrySpec>,
    told: Option<DeletionPolicy>,
) -> Option<&'static str> {
    if spec.mode == Mode::Plan || registry.is_some_and(|registry| registry.mode == Mode::Plan) {
        return Some("it is in mode Plan, or its EcrRegistry is");
    }
    let inherits = spec.deletion_policy.is_none() && spec.inherit_defaults.unwrap_or(true);
    let policy = match registry {
        Some(registry) => Some(deletion(spec, defaults(spec, registry))),
        None if inherits => told,
        None => Some(deletion(spec, None)),
    };
    (policy == Some(DeletionPolicy::Retain)).then_some("deletionPolicy is Retain")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn stay(spec: Value, registry: Option<Value>, told: Option<DeletionPolicy>) -> bool {
        let spec = serde_json::from_value(spec).unwrap();
        let registry: Option<EcrRegistrySpec> = registry.map(|mut registry| {
            registry["region"] = json!("eu-west-1");
            serde_json::from_value(registry).unwrap()
        });
        stays(&spec, registry.as_ref(), told).is_some()
    }

    #[test]
    fn what_stays_is_known_without_aws_and_mostly_without_a_registry() {
        use DeletionPolicy::{Delete, Retain};
        let deletes = || Some(json!({"defaults": {"deletionPolicy": "Delete"}}));
        for (spec, registry, told, expected, why) in [
            (json!({}), Some(json!({})), None, true, "Retain is the default of defaults"),
            (json!({}), deletes(), Some(Retain), false, "the registry's default counts while there is a registry"),
            (json!({"inheritDefaults": false}), deletes(), None, true, "it inherits nothing"),
            (json!({"deletionPolicy": "Delete"}), Some(json!({})), Some(Retain), false, "its own word"),
            (json!({"deletionPolicy": "Retain"}), None, None, true, "its own word, without a registry"),
            (
                json!({"deletionPolicy": "Delete"}),
                None,
                Some(Retain),
                false,
                "its own word is newer than what was told",
            ),
            (json!({"inheritDefaults": false}), None, None, true, "it inherits nothing from nobody"),
            (json!({}), None, Some(Retain), true, "what was in force when the registry went"),
            (json!({}), None, Some(Delete), false, "the same"),
            (json!({}), None, None, false, "nobody knows what it inherited"),
            (
                json!({"deletionPolicy": "Delete", "mode": "Plan"}),
                Some(json!({})),
                None,
                true,
                "nothing is ever written",
            ),
            (json!({"deletionPolicy": "Delete", "mode": "Plan"}), None, None, true, "nor without a registry"),
            (
                json!({"deletionPolicy": "Delete"}),
                Some(json!({"mode": "Plan"})),
                None,
                true,
                "the registry's mode wins",
            ),
        ] {
            assert_eq!(stay(spec.clone(), registry.clone(), told), expected, "{why}: {spec} {registry:?} {told:?}");
        }
    }
}
