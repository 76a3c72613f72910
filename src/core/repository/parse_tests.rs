//! What a spec and a registry's defaults ask for together.

use serde_json::{Value, json};

use super::*;
use crate::api::{DeletionPolicy, EcrRegistrySpec, EcrRepositorySpec};
use crate::core::access::Access;
use crate::core::names::{AccountId, Region};
use crate::core::ownership::Owner;
use crate::core::policy::WantedPolicy;
use crate::core::reason::{Problem, Reason};
use crate::core::selector::NamespaceView;

const LIFECYCLE: &str = r#"{"rules":[{"rulePriority":1}]}"#;

fn parse(spec: Value, registry: &Value) -> Result<Desired, Problem> {
    let spec: EcrRepositorySpec = serde_json::from_value(spec).unwrap();
    let mut whole = json!({"region": "eu-west-1", "allow": [{"namespaces": {}, "manage": ["{namespace}/*", "app"]}]});
    whole.as_object_mut().unwrap().extend(registry.as_object().unwrap().clone());
    let registry: EcrRegistrySpec = serde_json::from_value(whole).unwrap();
    let owner = Owner { id: "c".into(), namespace: "team-a".into(), name: "app".into(), uid: "u".into() };
    let rules = registry.allow.clone().unwrap();
    let access = Access::of(&rules, NamespaceView { name: "team-a", labels: &[].into() });
    Desired::parse(
        &spec,
        Context {
            registry: &registry,
            registry_name: "default",
            account: &AccountId::parse("123456789012").unwrap(),
            region: &Region::parse("eu-west-1").unwrap(),
            access: &access,
            owner: &owner,
        },
    )
}

#[test]
fn absent_and_empty_are_not_the_same() {
    let none = parse(json!({}), &json!({})).unwrap();
    assert_eq!((none.lifecycle, none.policy), (Wanted::Untouched, WantedPolicy::Untouched));
    let empty =
        parse(json!({"lifecyclePolicy": {"rules": []}, "repositoryPolicy": {"grants": []}}), &json!({})).unwrap();
    assert_eq!(empty.lifecycle, Wanted::Removed);
    assert_eq!(empty.policy, WantedPolicy::Statements { ours: vec![], keep_foreign: true });
}

#[test]
fn what_is_empty_in_the_spec_is_not_filled_by_a_default() {
    let defaults = json!({"defaults": {"lifecyclePolicy": {"policyText": LIFECYCLE}, "deletionPolicy": "Delete"}});
    let inherited = parse(json!({}), &defaults).unwrap();
    assert!(matches!(inherited.lifecycle, Wanted::Kept(_)));
    assert_eq!(inherited.deletion, DeletionPolicy::Delete);
    assert_eq!(parse(json!({"lifecyclePolicy": {"rules": []}}), &defaults).unwrap().lifecycle, Wanted::Removed);
    let alone = parse(json!({"inheritDefaults": false}), &defaults).unwrap();
    assert_eq!((alone.lifecycle, alone.deletion), (Wanted::Untouched, DeletionPolicy::Retain));
}

#[test]
fn mutability_and_its_filters_are_inherited_together_or_not_at_all() {
    let filters = json!([{"filterType": "WILDCARD", "filter": "dev-*"}]);
    let defaults = json!({"defaults": {"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION", "imageTagMutabilityExclusionFilters": filters}});
    let inherited = parse(json!({}), &defaults).unwrap().mutability.unwrap();
    assert_eq!(inherited, Mutability::new("IMMUTABLE_WITH_EXCLUSION", vec!["dev-*".into()]));
    let own = parse(json!({"imageTagMutability": "MUTABLE"}), &defaults).unwrap().mutability.unwrap();
    assert_eq!(own, Mutability::new("MUTABLE", vec![]));
}

#[test]
fn tags_merge_key_by_key_and_what_is_required_wins() {
    let registry = json!({
        "defaults": {"tags": {"a": "default", "b": "default"}},
        "requiredTags": {"c": "{namespace}/{name}"},
    });
    let tags = parse(json!({"tags": {"a": "own", "c": "own"}}), &registry).unwrap().tags;
    let told: Vec<_> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(told, ["a=own", "b=default", "c=team-a/app"]);
}

#[test]
fn forty_six_tags_fit_and_one_more_does_not() {
    let tags = |count: usize| (0..count).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    assert!(parse(json!({"tags": tags(46)}), &json!({})).is_ok());
    let spec = json!({"tags": tags(46), "imageTagMutability": "IMMUTABLE"});
    let refused = parse(spec, &json!({"requiredTags": {"x": "y"}})).unwrap();
    let (aspect, told) = &refused.invalid[0];
    assert_eq!((*aspect, told.reason), (Aspect::Tags, Reason::Invalid));
    assert!(told.message.contains("47 tags"), "{told}");
    assert!(refused.mutability.is_some(), "it holds back nothing else");
}

#[test]
fn an_aspect_that_makes_no_sense_is_told_and_the_rest_is_parsed() {
    let spec = json!({"lifecyclePolicy": {"policyText": "{}"}, "imageTagMutability": "IMMUTABLE"});
    let parsed = parse(spec, &json!({})).unwrap();
    assert!(parsed.is_invalid(Aspect::Lifecycle) && !parsed.is_invalid(Aspect::Policy));
    assert_eq!(parsed.lifecycle, Wanted::Untouched, "what is there is left alone");
    assert!(parsed.mutability.is_some());
}

#[test]
fn a_name_that_no_rule_gives_is_refused_with_what_they_give() {
    let refused = parse(json!({"name": "team-b/app"}), &json!({})).unwrap_err();
    assert_eq!(refused.reason, Reason::NotAllowed);
    assert!(refused.message.contains("team-a/*, app"), "{refused}");
}
