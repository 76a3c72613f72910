//! Rules of lifecycle policies, as `EcrRepository` and the defaults of `EcrRegistry` have them.

use crate::support::api::{Rule, rule};

const POLICY: &str = "spec.lifecyclePolicy";
const TEXT: &str = "spec.lifecyclePolicy.policyText";
const RULES: &str = "spec.lifecyclePolicy.rules";
const FIRST: &str = "spec.lifecyclePolicy.rules[0]";
const PRIORITY: &str = "spec.lifecyclePolicy.rules[0].rulePriority";
const SELECTION: &str = "spec.lifecyclePolicy.rules[0].selection";
const PREFIXES: &str = "spec.lifecyclePolicy.rules[0].selection.tagPrefixList";
const PATTERN: &str = "spec.lifecyclePolicy.rules[0].selection.tagPatternList[0]";
const NUMBER: &str = "spec.lifecyclePolicy.rules[0].selection.countNumber";
const ACTION: &str = "spec.lifecyclePolicy.rules[0].action";

const OLD: &str = "tagStatus: untagged, countType: sinceImagePushed, countUnit: days, countNumber: 14";
const MANY: &str = "tagStatus: any, countType: imageCountMoreThan, countNumber: 9";
const UNPULLED: &str = "tagStatus: untagged, countType: sinceImagePulled, countUnit: days, countNumber: 14";
const ARCHIVED: &str =
    "tagStatus: any, storageClass: archive, countType: sinceImageTransitioned, countUnit: days, countNumber: 90";

const EXPIRE: &str = "type: expire";
const ARCHIVE: &str = "type: transition, targetStorageClass: archive";

/// All rules.
pub fn lifecycle() -> Vec<Rule> {
    [policies(), selections(), actions()].into_iter().flatten().collect()
}

/// A policy of rules with this action for these selections.
fn policy(action: &str, selections: &[&str]) -> String {
    let rules = selections.iter().enumerate().map(|(index, selection)| {
        format!("{{rulePriority: {}, selection: {{{selection}}}, action: {{{action}}}}}", index + 1)
    });
    format!("lifecyclePolicy: {{rules: [{}]}}", rules.collect::<Vec<_>>().join(", "))
}

fn expire(selections: &[&str]) -> String {
    policy(EXPIRE, selections)
}

fn policies() -> Vec<Rule> {
    let same_priority = expire(&[OLD, OLD]).replace("Priority: 2", "Priority: 1");
    vec![
        rule("rules or policyText")
            .good("lifecyclePolicy: {rules: []}")
            .good("lifecyclePolicy: {policyText: '{\"rules\": []}'}")
            .bad("lifecyclePolicy: {}", POLICY, "exactly one of rules and policyText")
            .bad("lifecyclePolicy: {rules: [], policyText: '{}'}", POLICY, "exactly one of rules and policyText"),
        rule("policyText is a JSON object of ECR's size")
            .good("lifecyclePolicy: {policyText: '{%30718%}'}")
            .bad("lifecyclePolicy: {policyText: '{%30719%}'}", TEXT, "30720")
            .bad("lifecyclePolicy: {policyText: 'rules'}", TEXT, "must be a JSON object")
            .bad("lifecyclePolicy: {policyText: ''}", TEXT, "must be a JSON object"),
        rule("50 rules at most").good(expire(&[OLD; 50])).bad(expire(&[OLD; 51]), RULES, "must have at most 50 items"),
        rule("a rule has a priority of its own, from 1 up")
            .good(expire(&[OLD, OLD]))
            .bad(same_priority, RULES, "rulePriority of its own")
            .bad(expire(&[OLD]).replace("Priority: 1", "Priority: 0"), PRIORITY, "greater than or equal to 1"),
        rule("any comes last").good(expire(&[OLD, MANY])).bad(
            expire(&[MANY, OLD]),
            RULES,
            "a rule with tagStatus any comes last",
        ),
        rule("a rule has a selection and an action").bad(
            "lifecyclePolicy: {rules: [{rulePriority: 1, action: {type: expire}}]}",
            SELECTION,
            "Required value",
        ),
    ]
}

fn selections() -> Vec<Rule> {
    let tagged = |list: &str| {
        let selection = format!("tagStatus: tagged, {list} countType: imageCountMoreThan, countNumber: 1");
        expire(&[&selection])
    };
    let and = |selection: &str, more: &str| expire(&[&format!("{selection}, {more}")]);
    let needs_list = "tagStatus tagged needs exactly one of tagPatternList and tagPrefixList";
    let archived_only = "storageClass archive goes with countType sinceImageTransitioned only";
    let no_status = expire(&[&OLD.replace("untagged", "old")]);
    vec![
        rule("tagStatus is one of three").bad(
            no_status,
            "spec.lifecyclePolicy.rules[0].selection.tagStatus",
            "untagged",
        ),
        rule("tagged needs one list of tags, the others none")
            .good(tagged("tagPatternList: ['*'],"))
            .good(tagged("tagPrefixList: [v],"))
            .bad(tagged("tagPrefixList: [v], tagPatternList: ['*'],"), SELECTION, needs_list)
            .bad(tagged("tagPrefixList: [],"), PREFIXES, "at least 1 items")
            .bad(tagged(""), SELECTION, needs_list)
            .bad(and(OLD, "tagPrefixList: [v]"), SELECTION, needs_list)
            .bad(and(MANY, "tagPatternList: [v]"), SELECTION, needs_list),
        rule("a tag pattern has at most four wildcards and 128 characters")
            .good(tagged("tagPatternList: ['*a*b*c*', '%128%'],"))
            .bad(tagged("tagPatternList: ['*a*b*c*d*'],"), PATTERN, "should match")
            .bad(tagged("tagPatternList: ['%129%'],"), PATTERN, "128"),
        rule("countUnit goes with ages")
            .bad(expire(&[&OLD.replace("countUnit: days, ", "")]), SELECTION, "countUnit: days is needed with")
            .bad(and(MANY, "countUnit: days"), SELECTION, "must be left out with imageCountMoreThan"),
        rule("storageClass archive goes with sinceImageTransitioned")
            .good(and(OLD, "storageClass: standard"))
            .good(and(MANY, "storageClass: standard"))
            .bad(and(OLD, "storageClass: archive"), SELECTION, archived_only)
            .bad(and(MANY, "storageClass: archive"), SELECTION, archived_only)
            .bad(policy(ARCHIVE, &[&format!("{UNPULLED}, storageClass: archive")]), SELECTION, archived_only),
        rule("countNumber is positive").bad(expire(&[&OLD.replace("14", "0")]), NUMBER, "greater than or equal to 1"),
    ]
}

fn actions() -> Vec<Rule> {
    let young = ARCHIVED.replace("90", "89");
    let standard = ARCHIVED.replace("archive", "standard");
    let nowhere = ARCHIVED.replace("storageClass: archive, ", "");
    vec![
        rule("sinceImagePulled moves to the archive").good(policy(ARCHIVE, &[UNPULLED])).bad(
            expire(&[UNPULLED]),
            FIRST,
            "countType sinceImagePulled goes with action type transition only",
        ),
        rule("sinceImageTransitioned expires what has been in the archive for 90 days")
            .good(expire(&[ARCHIVED]))
            .bad(policy(ARCHIVE, &[ARCHIVED]), FIRST, "sinceImageTransitioned goes with action type expire only")
            .bad(expire(&[&young]), SELECTION, "a countNumber of at least 90")
            .bad(expire(&[&standard]), SELECTION, "needs storageClass archive")
            .bad(expire(&[&nowhere]), SELECTION, "needs storageClass archive"),
        rule("transition has a target, expire none")
            .good(policy(ARCHIVE, &[OLD]))
            .bad(policy("type: transition", &[OLD]), ACTION, "needs targetStorageClass")
            .bad(policy("type: expire, targetStorageClass: archive", &[OLD]), ACTION, "expire takes none")
            .bad(policy("type: archive", &[OLD]), "spec.lifecyclePolicy.rules[0].action.type", "transition"),
    ]
}
