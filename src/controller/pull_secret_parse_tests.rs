//! Whatever is asked, no namespace is given more than a registry's `allow` gives it, nor more than it asked for.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::core::glob;

const GLOBS: [&str; 7] = ["*", "team-a/*", "team-b/*", "team-a/app", "*/app", "shared/**", "{namespace}/*"];
const NAMES: [&str; 7] = ["team-a/app", "team-a/web", "team-b/app", "team-b/web", "shared/x", "shared/x/app", "app"];

fn globs() -> impl Strategy<Value = Vec<&'static str>> {
    vec(prop::sample::select(&GLOBS[..]), 1..3)
}

/// What is meant by a glob of a rule, in a namespace.
fn fits(globs: &[&str], name: &str) -> bool {
    globs.iter().any(|glob| glob::matches(&glob.replace("{namespace}", "team-a"), name))
}

proptest! {
    #[test]
    fn a_namespace_is_given_what_is_both_allowed_and_asked_for_and_never_more(
        (pull, push, asked) in (globs(), globs(), prop::option::of(globs())),
        (selected, has_push, is_scoped, is_push) in any::<(bool, bool, bool, bool)>(),
    ) {
        let namespaces = if selected { "team-*" } else { "others" };
        let rule = json!({"namespaces": {"matchNames": [namespaces]}, "pull": pull, "push": push});
        let scope = if is_scoped { "Required" } else { "Never" };
        let mut spec = json!({"region": "eu-west-1", "allow": [rule], "pull": {"scopeTokens": scope}});
        if has_push {
            spec["push"] = json!({"identity": {"assumeRole": {"roleArn": "arn:aws:iam::123456789012:role/pusher"}}});
        }
        let asked: Option<Vec<_>> =
            asked.map(|asked| asked.into_iter().filter(|glob| !glob.contains('{')).map(ToOwned::to_owned).collect());
        let asked = asked.filter(|asked| !asked.is_empty());
        let registry = EcrRegistry::new("default", serde_json::from_value(spec).unwrap());
        let entry = RegistryEntry { repositories: asked.clone(), ..RegistryEntry::default() };
        let of = Asked { entry, declared: Some(Arc::new(registry)), offer: None };
        let access = if is_push { TokenAccess::Push } else { TokenAccess::Pull };
        let view = NamespaceView { name: "team-a", labels: &BTreeMap::new() };
        let given = ceiling_of(&of, access, view).unwrap();

        let allowed = if is_push { &push } else { &pull };
        let may = selected && (!is_push || has_push);
        let wants = |name: &str| {
            asked.as_ref().is_none_or(|asked| asked.iter().any(|glob| glob::matches(glob, name)))
        };
        match given {
            Ceiling::None => prop_assert!(!may || !NAMES.iter().any(|name| fits(allowed, name) && wants(name))),
            Ceiling::Repositories(globs) => {
                prop_assert!(may && (is_push || is_scoped));
                for name in NAMES {
                    let is_given = globs.iter().any(|glob| glob::matches(glob, name));
                    prop_assert_eq!(is_given, fits(allowed, name) && wants(name), "{} by {:?}", name, globs);
                }
            }
            Ceiling::Whole => prop_assert!(may && !is_push && !is_scoped),
            Ceiling::Unknown => prop_assert!(false, "there is such a registry"),
        }
    }
}
