//! What a registry's `allow` rules give a namespace. Rules add up; what no rule gives is denied.

use crate::api::{AdoptionPolicy, Allow, DeletionPolicy};
use crate::core::glob;
use crate::core::selector::{NamespaceView, selects};

/// The rights of one namespace with one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    manage: Vec<Managed>,
    /// Globs over what its tokens may pull, sorted.
    pub pull: Vec<String>,
    /// Globs over what its tokens may push, sorted.
    pub push: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Managed {
    glob: String,
    ceilings: Ceilings,
}

/// How far a rule lets a CR go with the repositories that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    /// For `adoptionPolicy`.
    pub adoption: AdoptionPolicy,
    /// For `deletionPolicy`.
    pub deletion: DeletionPolicy,
}

impl Access {
    /// What `rules` give `namespace`.
    #[must_use]
    pub fn of(rules: &[Allow], namespace: NamespaceView<'_>) -> Self {
        let mut access = Self::default();
        for rule in rules.iter().filter(|rule| selects(&rule.namespaces, namespace)) {
            let globs = |listed: &Option<Vec<String>>| -> Vec<String> {
                listed.iter().flatten().map(|glob| glob.replace("{namespace}", namespace.name)).collect()
            };
            let ceilings = Ceilings {
                adoption: rule.max_adoption.unwrap_or(AdoptionPolicy::Adopt),
                deletion: rule.max_deletion.unwrap_or(DeletionPolicy::Delete),
            };
            access.manage.extend(globs(&rule.manage).into_iter().map(|glob| Managed { glob, ceilings }));
            access.pull.extend(globs(&rule.pull));
            access.push.extend(globs(&rule.push));
        }
        for list in [&mut access.pull, &mut access.push] {
            list.sort();
            list.dedup();
        }
        access
    }

    /// Whether, and how far, it may declare the repository `name`: the widest of the rules that name it.
    #[must_use]
    pub fn manages(&self, name: &str) -> Option<Ceilings> {
        let fitting =
            self.manage.iter().filter(|managed| glob::matches(&managed.glob, name)).map(|managed| managed.ceilings);
        fitting.reduce(|a, b| Ceilings { adoption: a.adoption.max(b.adoption), deletion: a.deletion.max(b.deletion) })
    }

    /// The globs it may declare repositories under, for a message.
    #[must_use]
    pub fn manageable(&self) -> String {
        let globs: Vec<_> = self.manage.iter().map(|managed| managed.glob.as_str()).collect();
        if globs.is_empty() { "nothing".to_owned() } else { globs.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::NamespaceSelector;

    fn rule(names: &[&str], manage: &[&str], max_deletion: Option<DeletionPolicy>) -> Allow {
        let own = |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        Allow {
            namespaces: NamespaceSelector { match_names: own(names), ..NamespaceSelector::default() },
            manage: own(manage),
            pull: own(manage),
            push: None,
            max_adoption: None,
            max_deletion,
        }
    }

    fn access(rules: &[Allow], name: &str) -> Access {
        Access::of(rules, NamespaceView { name, labels: &BTreeMap::new() })
    }

    #[test]
    fn nothing_listed_is_nothing_allowed() {
        assert_eq!(access(&[], "team-a").manages("team-a/app"), None);
        assert_eq!(access(&[rule(&["team-*"], &["{namespace}/*"], None)], "other").manages("other/app"), None);
    }

    #[test]
    fn the_namespace_is_put_into_the_glob() {
        let rules = [rule(&["team-*"], &["{namespace}/*"], None)];
        assert!(access(&rules, "team-a").manages("team-a/app").is_some());
        assert_eq!(access(&rules, "team-a").manages("team-b/app"), None);
        assert_eq!(access(&rules, "team-a").pull, ["team-a/*"]);
    }

    #[test]
    fn rules_add_up_and_a_ceiling_holds_for_what_its_rule_names() {
        let rules = [
            rule(&["*"], &["{namespace}/*"], Some(DeletionPolicy::Retain)),
            rule(&["team-a"], &["team-a/tmp/*"], Some(DeletionPolicy::DeleteWithImages)),
        ];
        let access = access(&rules, "team-a");
        assert_eq!(access.manages("team-a/app").unwrap().deletion, DeletionPolicy::Retain);
        assert_eq!(access.manages("team-a/tmp/x").unwrap().deletion, DeletionPolicy::DeleteWithImages);
    }
}
