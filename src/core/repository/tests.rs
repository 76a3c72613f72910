//! What a plan promises, by example and by property.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::api::{AdoptionPolicy, DeletionPolicy};
use crate::core::access::Ceilings;
use crate::core::lifecycle::LifecycleDocument;
use crate::core::names::RepositoryName;
use crate::core::ownership::{Owner, Ownership, Tags};
use crate::core::policy::{PolicyDocument, Statement, WantedPolicy};
use crate::core::reason::{Problem, Reason};

const WIDE: Ceilings = Ceilings { adoption: AdoptionPolicy::TakeOver, deletion: DeletionPolicy::DeleteWithImages };

pub(super) fn owner() -> Owner {
    Owner { id: "cluster".into(), namespace: "team-a".into(), name: "app".into(), uid: "u1".into() }
}

pub(super) fn desired() -> Desired {
    Desired {
        name: RepositoryName::parse("team-a/app").unwrap(),
        arn: "arn:aws:ecr:eu-west-1:123456789012:repository/team-a/app".into(),
        owner: owner(),
        mutability: None,
        scan_on_push: None,
        encryption: None,
        encryption_declared: false,
        lifecycle: Wanted::Untouched,
        policy: WantedPolicy::Untouched,
        tags: Tags::new(),
        deletion: DeletionPolicy::Retain,
        adoption: AdoptionPolicy::Deny,
        ceilings: WIDE,
        plan_only: false,
        invalid: vec![],
    }
}

fn lifecycle(days: u8) -> LifecycleDocument {
    LifecycleDocument::parse(&format!(
        r#"{{"rules":[{{"rulePriority":1,"selection":{{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":{days}}},"action":{{"type":"expire"}}}}]}}"#
    ))
    .unwrap()
}

fn plain_core() -> Core {
    Core {
        arn: desired().arn,
        uri: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team-a/app".into(),
        registry_id: "123456789012".into(),
        created_at: Timestamp::UNIX_EPOCH,
        mutability: Mutability::new("MUTABLE", vec![]),
        scan_on_push: false,
        encryption: Encryption { kind: "AES256".into(), key: None },
    }
}

/// A repository with nothing but what ECR gives every new one, and these tags.
fn plain(tags: Tags) -> Observed {
    Observed { core: Reading::Found(plain_core()), tags, lifecycle: Reading::Absent, policy: Reading::Absent }
}

/// The same with another core.
fn with_core(there: Observed, change: impl FnOnce(&mut Core)) -> Observed {
    let mut core = there.core.found().unwrap().clone();
    change(&mut core);
    Observed { core: Reading::Found(core), ..there }
}

fn guard(ownership: Ownership) -> Guard<'static> {
    Guard { ownership, managed_tags: &[], reclaims: 0, registry_scans: false, policy_is_ours: false }
}

fn ours() -> Guard<'static> {
    guard(Ownership::Ours)
}

fn actions(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(Step::action).collect()
}

#[test]
fn creation_takes_everything_in_one_call_and_policies_follow() {
    let wanted = Desired {
        mutability: Some(Mutability::new("IMMUTABLE", vec![])),
        scan_on_push: Some(true),
        lifecycle: Wanted::Kept(lifecycle(14)),
        tags: [("team".to_owned(), "a".to_owned())].into(),
        ..desired()
    };
    let made = plan(&wanted, None, &guard(Ownership::Nobody));
    assert_eq!(actions(&made), ["CreateRepository", "PutLifecyclePolicy"]);
    let Step::Create(creation) = &made.steps[0] else { panic!("{made:?}") };
    assert_eq!(creation.tags.len(), 5);
    assert_eq!(creation.tags["ecr-operator.dev/uid"], "u1");
}

#[test]
fn an_aspect_that_is_not_declared_is_left_alone() {
    let rich = Observed { lifecycle: Reading::Found(lifecycle(3)), ..plain(owner().tags()) };
    let rich = with_core(rich, |core| {
        core.mutability = Mutability::new("IMMUTABLE", vec![]);
        core.scan_on_push = true;
    });
    assert_eq!(plan(&desired(), Some(&rich), &ours()), Plan::default());
}

#[test]
fn an_aspect_declared_as_empty_is_removed_once() {
    let wanted = Desired { lifecycle: Wanted::Removed, ..desired() };
    let there = Observed { lifecycle: Reading::Found(lifecycle(3)), ..plain(owner().tags()) };
    let made = plan(&wanted, Some(&there), &ours());
    assert_eq!(actions(&made), ["DeleteLifecyclePolicy"]);
    assert_eq!(made.steps[0].detail(), "remove rule 1 (expire untagged sinceImagePushed 3 days)");
    assert_eq!(plan(&wanted, Some(&plain(owner().tags())), &ours()), Plan::default());
}

#[test]
fn declaring_a_default_is_no_change() {
    let wanted = Desired {
        mutability: Some(Mutability::new("MUTABLE", vec![])),
        scan_on_push: Some(false),
        encryption: Some(Encryption { kind: "AES256".into(), key: None }),
        encryption_declared: true,
        ..desired()
    };
    assert_eq!(plan(&wanted, Some(&plain(owner().tags())), &ours()), Plan::default());
}

#[test]
fn tags_of_others_stay_and_ours_go_when_they_are_dropped() {
    let mut tags = owner().tags();
    tags.extend([("theirs".to_owned(), "x".to_owned()), ("old".to_owned(), "y".to_owned())]);
    let managed = ["old".to_owned(), "vanished".to_owned()];
    let made = plan(&desired(), Some(&plain(tags)), &Guard { managed_tags: &managed, ..ours() });
    assert_eq!(made.steps, [Step::UntagResource(vec!["old".to_owned()])]);
}

#[test]
fn the_mark_alone_is_a_gate_and_what_makes_room_comes_first_on_what_is_ours() {
    let managed = ["old".to_owned()];
    let wanted = Desired { tags: [("team".to_owned(), "a".to_owned())].into(), scan_on_push: Some(true), ..desired() };
    let made = plan(&wanted, Some(&plain(Tags::new())), &guard(Ownership::Nobody));
    let Step::Claim(marks) = &made.steps[0] else { panic!("{made:?}") };
    assert_eq!(*marks, owner().tags(), "a tag that ECR refuses must not hold back the adoption");
    assert_eq!(actions(&made), ["TagResource", "TagResource", "PutImageScanningConfiguration"]);

    let mut partly = owner().tags();
    partly.remove("ecr-operator.dev/namespace");
    partly.insert("old".to_owned(), "x".to_owned());
    let made = plan(&desired(), Some(&plain(partly)), &Guard { managed_tags: &managed, ..ours() });
    assert_eq!(actions(&made), ["UntagResource", "TagResource"]);
}

#[test]
fn tags_that_make_no_sense_leave_those_that_are_there() {
    let mut tags = owner().tags();
    tags.insert("old".to_owned(), "x".to_owned());
    let managed = ["old".to_owned()];
    let invalid = vec![(Aspect::Tags, Problem::new(Reason::Invalid, "too many"))];
    let wanted = Desired { invalid, scan_on_push: Some(true), ..desired() };
    let made = plan(&wanted, Some(&plain(tags)), &Guard { managed_tags: &managed, ..ours() });
    assert_eq!(actions(&made), ["PutImageScanningConfiguration"]);
}

#[test]
fn a_difference_in_encryption_is_told_and_nothing_is_re_created() {
    let kms = Encryption { kind: "KMS".into(), key: Some("alias/images".into()) };
    let wanted = Desired { encryption: Some(kms), encryption_declared: true, ..desired() };
    let told = plan(&wanted, Some(&plain(owner().tags())), &ours());
    assert!(told.steps.is_empty());
    assert_eq!(told.problems[0].1.reason, Reason::Invalid);
    let inherited = Desired { encryption_declared: false, ..wanted };
    assert_eq!(plan(&inherited, Some(&plain(owner().tags())), &ours()), Plan::default());
}

#[test]
fn who_may_take_what() {
    use AdoptionPolicy::{Adopt, Deny, TakeOver};
    let sibling = || Ownership::Sibling(owner());
    let other = || Ownership::Other("ACK".into());
    for (ownership, asked, ceiling, expected) in [
        (Ownership::Ours, Deny, Deny, None),
        (Ownership::Returning, Deny, Deny, None),
        (Ownership::Stripped, Deny, Deny, None),
        (Ownership::Nobody, Deny, TakeOver, Some(Reason::AlreadyExists)),
        (Ownership::Nobody, Adopt, Deny, Some(Reason::AdoptionDenied)),
        (Ownership::Nobody, Adopt, Adopt, None),
        (other(), Adopt, TakeOver, Some(Reason::Conflict)),
        (other(), TakeOver, Adopt, Some(Reason::AdoptionDenied)),
        (other(), TakeOver, TakeOver, None),
        (sibling(), TakeOver, TakeOver, Some(Reason::Conflict)),
        (Ownership::Lost("another took it over".into()), TakeOver, TakeOver, Some(Reason::Conflict)),
    ] {
        let wanted = Desired { adoption: asked, ceilings: Ceilings { adoption: ceiling, ..WIDE }, ..desired() };
        let made = plan(&wanted, Some(&plain(Tags::new())), &guard(ownership.clone()));
        assert_eq!(made.blocked.map(|problem| problem.reason), expected, "{ownership:?} {asked:?} {ceiling:?}");
        assert!(matches!(made.steps[0], Step::Claim(_)), "the mark comes first, and is shown when it is not allowed");
    }
}

#[test]
fn stripped_tags_are_put_back_three_times_and_then_a_person_is_asked() {
    for (reclaims, blocked) in [(0, None), (2, None), (3, Some(Reason::Contested))] {
        let guard = Guard { reclaims, ..guard(Ownership::Stripped) };
        let made = plan(&desired(), Some(&plain(Tags::new())), &guard);
        assert_eq!(made.blocked.map(|problem| problem.reason), blocked, "{reclaims}");
    }
}

#[test]
fn where_the_registry_decides_on_scanning_the_repository_is_left_alone() {
    let wanted = Desired { scan_on_push: Some(true), ..desired() };
    let made = plan(&wanted, Some(&plain(owner().tags())), &Guard { registry_scans: true, ..ours() });
    assert_eq!(made, Plan::default());
}

#[test]
fn mode_plan_shows_and_blocks() {
    let wanted = Desired { plan_only: true, ..desired() };
    let made = plan(&wanted, None, &guard(Ownership::Nobody));
    assert_eq!(made.blocked.unwrap().reason, Reason::PlanPending);
    assert_eq!(made.steps.len(), 1);
    assert_eq!(plan(&wanted, Some(&plain(owner().tags())), &ours()), Plan::default());
}

#[test]
fn a_deletion_policy_above_the_ceiling_is_told_at_once_and_holds_nothing_back() {
    let narrow = Ceilings { deletion: DeletionPolicy::Delete, ..WIDE };
    let wanted =
        Desired { deletion: DeletionPolicy::DeleteWithImages, ceilings: narrow, scan_on_push: Some(true), ..desired() };
    let made = plan(&wanted, Some(&plain(owner().tags())), &ours());
    assert_eq!(made.problems[0].1.reason, Reason::NotAllowed);
    assert_eq!(actions(&made), ["PutImageScanningConfiguration"]);
}

/// ECR as far as a plan can change it.
fn take(step: &Step, there: Option<Observed>) -> Observed {
    let there = || there.unwrap();
    match step {
        Step::Create(creation) => {
            let new = plain_core();
            let core = Core {
                mutability: creation.mutability.clone().unwrap_or(new.mutability.clone()),
                scan_on_push: creation.scan_on_push.unwrap_or(false),
                encryption: creation.encryption.clone().unwrap_or(new.encryption.clone()),
                ..new
            };
            Observed { core: Reading::Found(core), ..plain(creation.tags.clone()) }
        }
        Step::Claim(set) | Step::TagResource(set) => {
            let mut there = there();
            there.tags.extend(set.clone());
            there
        }
        Step::UntagResource(keys) => {
            let mut there = there();
            there.tags.retain(|key, _| !keys.contains(key));
            there
        }
        Step::PutImageTagMutability(mutability) => with_core(there(), |core| core.mutability = mutability.clone()),
        Step::PutImageScanningConfiguration(on) => with_core(there(), |core| core.scan_on_push = *on),
        Step::PutLifecyclePolicy { document, .. } => {
            Observed { lifecycle: Reading::Found(document.clone()), ..there() }
        }
        Step::DeleteLifecyclePolicy { .. } => Observed { lifecycle: Reading::Absent, ..there() },
        Step::SetRepositoryPolicy { document, .. } => Observed { policy: Reading::Found(document.clone()), ..there() },
        Step::DeleteRepositoryPolicy { .. } => Observed { policy: Reading::Absent, ..there() },
    }
}

fn any_tags() -> impl Strategy<Value = Tags> {
    prop::collection::btree_map("[a-d]", "[xy]", 0..4)
}

fn any_mutability() -> impl Strategy<Value = Mutability> {
    prop_oneof![
        Just(Mutability::new("MUTABLE", vec![])),
        Just(Mutability::new("IMMUTABLE", vec![])),
        prop::collection::vec("[a-c]\\*", 1..3)
            .prop_map(|filters| Mutability::new("IMMUTABLE_WITH_EXCLUSION", filters)),
    ]
}

fn statement(sid: &str) -> Statement {
    Statement::new(serde_json::json!({"Sid": sid, "Effect": "Allow", "Principal": "*", "Action": sid})).unwrap()
}

fn any_wanted_policy() -> impl Strategy<Value = WantedPolicy> {
    let ours = prop::collection::vec("EcrOperator[a-c]".prop_map(|sid| statement(&sid)), 0..3);
    prop_oneof![
        Just(WantedPolicy::Untouched),
        (ours, any::<bool>()).prop_map(|(ours, keep_foreign)| WantedPolicy::Statements { ours, keep_foreign }),
    ]
}

fn any_policy() -> impl Strategy<Value = Reading<PolicyDocument>> {
    let statements = prop::collection::vec("(EcrOperator|theirs)[a-c]".prop_map(|sid| statement(&sid)), 1..4);
    prop_oneof![
        Just(Reading::Absent),
        statements.prop_map(|statements| Reading::Found(PolicyDocument::of(statements).unwrap())),
    ]
}

fn any_desired() -> impl Strategy<Value = Desired> {
    let lifecycle = prop_oneof![
        Just(Wanted::Untouched),
        Just(Wanted::Removed),
        (1u8..4).prop_map(|days| Wanted::Kept(lifecycle(days))),
    ];
    let core = (prop::option::of(any_mutability()), prop::option::of(any::<bool>()));
    (core, lifecycle, any_wanted_policy(), any_tags(), any::<bool>()).prop_map(
        |((mutability, scan_on_push), lifecycle, policy, tags, plan_only)| Desired {
            mutability,
            scan_on_push,
            lifecycle,
            policy,
            tags,
            plan_only,
            ..desired()
        },
    )
}

fn any_observed() -> impl Strategy<Value = Option<Observed>> {
    let lifecycle = prop_oneof![Just(Reading::Absent), (1u8..4).prop_map(|days| Reading::Found(lifecycle(days)))];
    prop::option::of((any_mutability(), any::<bool>(), lifecycle, any_policy(), any_tags(), any::<bool>()).prop_map(
        |(mutability, scan_on_push, lifecycle, policy, mut tags, marked)| {
            tags.extend(if marked { owner().tags() } else { BTreeMap::new() });
            let core = Core { mutability, scan_on_push, ..plain_core() };
            Observed { core: Reading::Found(core), tags, lifecycle, policy }
        },
    ))
}

fn any_managed() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-d]", 0..4)
}

proptest! {
    #[test]
    fn planning_what_was_just_applied_is_empty(desired in any_desired(), there in any_observed(), managed in any_managed(), policy_is_ours in any::<bool>()) {
        let guard = Guard { ownership: Ownership::Ours, managed_tags: &managed, reclaims: 0, registry_scans: false, policy_is_ours };
        let steps = plan(&desired, there.as_ref(), &guard).steps;
        let after = steps.iter().fold(there, |there, step| Some(take(step, there)));
        let again = plan(&desired, after.as_ref(), &guard);
        prop_assert!(again.steps.is_empty(), "{again:?}");
    }

    #[test]
    fn every_step_makes_a_difference(desired in any_desired(), there in any_observed(), managed in any_managed(), policy_is_ours in any::<bool>()) {
        let guard = Guard { ownership: Ownership::Ours, managed_tags: &managed, reclaims: 0, registry_scans: false, policy_is_ours };
        let mut there = there;
        for step in plan(&desired, there.as_ref(), &guard).steps {
            let after = take(&step, there.clone());
            prop_assert_ne!(Some(&after), there.as_ref(), "{:?}", step);
            there = Some(after);
        }
    }

    #[test]
    fn the_order_of_steps_after_the_gate_does_not_matter(desired in any_desired(), there in any_observed(), managed in any_managed(), policy_is_ours in any::<bool>()) {
        let guard = Guard { ownership: Ownership::Ours, managed_tags: &managed, reclaims: 0, registry_scans: false, policy_is_ours };
        let steps = plan(&desired, there.as_ref(), &guard).steps;
        let (gates, rest): (Vec<_>, Vec<_>) = steps.iter().partition(|step| step.is_gate());
        let forth = gates.iter().chain(rest.iter()).fold(there.clone(), |there, step| Some(take(step, there)));
        let back = gates.iter().chain(rest.iter().rev()).fold(there, |there, step| Some(take(step, there)));
        prop_assert_eq!(forth, back);
    }

    #[test]
    fn what_is_not_ours_is_never_changed_without_leave(desired in any_desired(), there in any_observed()) {
        if let Some(there) = there {
            let made = plan(&desired, Some(&there), &guard(Ownership::Nobody));
            prop_assert!(made.blocked.is_some());
        }
    }

    #[test]
    fn what_nobody_declared_is_never_removed(desired in any_desired(), there in any_observed()) {
        if let Some(there) = there {
            for step in plan(&desired, Some(&there), &ours()).steps {
                prop_assert!(!matches!(step, Step::UntagResource(_)), "no key was ever ours");
                prop_assert!(step.action() != "DeleteLifecyclePolicy" || desired.lifecycle == Wanted::Removed);
                let removes_foreign = matches!(&desired.policy, WantedPolicy::Statements { keep_foreign: false, .. });
                let foreign = |document: &PolicyDocument| document.statements().iter().filter(|it| !it.is_ours()).cloned().collect::<Vec<_>>();
                match (&step, there.policy.found()) {
                    (Step::SetRepositoryPolicy { document, .. }, Some(before)) => {
                        prop_assert!(removes_foreign || foreign(document) == foreign(before));
                    }
                    (Step::DeleteRepositoryPolicy { .. }, Some(before)) => prop_assert!(removes_foreign || foreign(before).is_empty()),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn mode_plan_never_lets_a_step_pass(desired in any_desired(), there in any_observed()) {
        let made = plan(&Desired { plan_only: true, ..desired }, there.as_ref(), &ours());
        prop_assert!(made.steps.is_empty() || made.blocked.is_some());
    }
}

#[test]
fn what_was_not_read_is_not_changed() {
    let wanted = Desired {
        mutability: Some(Mutability::new("IMMUTABLE", vec![])),
        lifecycle: Wanted::Kept(lifecycle(1)),
        policy: WantedPolicy::Statements { ours: vec![statement("EcrOperatora")], keep_foreign: true },
        ..desired()
    };
    let unread =
        Observed { core: Reading::Unread, tags: owner().tags(), lifecycle: Reading::Unread, policy: Reading::Unread };
    assert_eq!(plan(&wanted, Some(&unread), &ours()), Plan::default());
}
