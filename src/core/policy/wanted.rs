//! What a spec says of the repository policy, and the policy that ECR is to hold for it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::{ForeignStatements, RepositoryPolicy, SID_PREFIX};
use crate::core::hosts::Partition;
use crate::core::names::Region;
use crate::core::policy::grants::statements;
use crate::core::policy::{PolicyDocument, PolicyError, Statement};

/// What is declared of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedPolicy {
    /// Nothing, and nothing of ours is to stay.
    Untouched,
    /// These statements are ours; what else there is stays or goes.
    Statements {
        /// Each with our `Sid` prefix, but for those of a text that stands alone: it is written as it is.
        ours: Vec<Statement>,
        /// Whether statements of others stay.
        keep_foreign: bool,
    },
}

impl WantedPolicy {
    /// Parses it.
    ///
    /// # Errors
    /// Where it is no policy, or too long.
    pub fn parse(policy: &RepositoryPolicy, region: &Region) -> Result<Self, PolicyError> {
        if let Some(text) = &policy.policy_text {
            let document = PolicyDocument::parse(text)?;
            if policy.foreign_statements != Some(ForeignStatements::Keep) {
                let ours = document.statements().to_vec();
                PolicyDocument::of(ours.clone())?;
                return Ok(Self::Statements { ours, keep_foreign: false });
            }
            // Beside foreign statements ours must be known as such, or none of them would ever go.
            let marked =
                document.statements().iter().enumerate().map(|(at, it)| with_our_sid(it.value().clone(), at + 1));
            return Ok(Self::Statements { ours: named_apart(marked)?, keep_foreign: true });
        }
        let partition = Partition::of(region).id;
        let granted = policy
            .grants
            .iter()
            .flatten()
            .enumerate()
            .flat_map(|(at, grant)| statements(grant, at + 1, partition, region));
        let stated = policy.statements.iter().flatten().enumerate().map(|(at, statement)| {
            let value = serde_json::to_value(statement).unwrap_or_default();
            with_our_sid(value, at + 1)
        });
        let ours = named_apart(granted.chain(stated))?;
        let keep_foreign = policy.foreign_statements != Some(ForeignStatements::Remove);
        PolicyDocument::of(ours.clone())?;
        Ok(Self::Statements { ours, keep_foreign })
    }

    /// Whether some of what is ours can't be told from foreign statements once it is written.
    #[must_use]
    pub fn is_unmarked(&self) -> bool {
        match self {
            Self::Untouched => false,
            Self::Statements { ours, .. } => ours.iter().any(|statement| !statement.is_ours()),
        }
    }

    /// Whether statements of others stay beside it.
    #[must_use]
    pub fn keeps_foreign(&self) -> bool {
        match self {
            Self::Untouched => true,
            Self::Statements { keep_foreign, .. } => *keep_foreign,
        }
    }
}

/// A `Sid` is unique within a policy, and the user's may be one of those that grants get.
///
/// Source: "IAM JSON policy elements: Sid" in the IAM user guide.
fn named_apart(statements: impl Iterator<Item = Value>) -> Result<Vec<Statement>, PolicyError> {
    let mut taken = BTreeSet::new();
    let named = statements.map(|mut statement| {
        if let Some(Value::String(sid)) = statement.get_mut("Sid") {
            let base = sid.clone();
            let mut number = 2;
            while !taken.insert(sid.clone()) {
                *sid = format!("{base}x{number}");
                number += 1;
            }
        }
        Statement::new(statement)
    });
    named.collect()
}

/// A statement of the spec is ours: its `Sid` says so, and keeps what the user called it.
fn with_our_sid(mut statement: Value, number: usize) -> Value {
    if let Some(object) = statement.as_object_mut() {
        let own = object.get("Sid").and_then(Value::as_str).map_or_else(|| format!("Statement{number}"), str::to_owned);
        let sid = if own.starts_with(SID_PREFIX) { own } else { format!("{SID_PREFIX}{own}") };
        object.insert("Sid".to_owned(), Value::String(sid));
    }
    statement
}

/// The policy that ECR is to hold, given the one it holds, and whether `all_of_it_is_ours`, known by its mark or not:
/// `None` stands for none.
///
/// # Errors
/// [`PolicyError::TooLong`] where ours and the foreign ones together are.
pub fn target(
    wanted: &WantedPolicy,
    there: Option<&PolicyDocument>,
    all_of_it_is_ours: bool,
) -> Result<Option<PolicyDocument>, PolicyError> {
    let there = there.map(PolicyDocument::statements).unwrap_or_default();
    let ours = match wanted {
        WantedPolicy::Untouched => &[][..],
        WantedPolicy::Statements { ours, .. } => ours.as_slice(),
    };
    let keep_foreign = wanted.keeps_foreign() && !all_of_it_is_ours;
    let foreign = there.iter().filter(|statement| {
        keep_foreign && !statement.is_ours() && !ours.iter().any(|ours| ours.says_the_same(statement))
    });
    let all: Vec<_> = foreign.chain(ours).cloned().collect();
    if all.is_empty() { Ok(None) } else { PolicyDocument::of(all).map(Some) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::policy::document::MOST_CHARACTERS;

    fn statement(sid: &str, action: &str) -> Statement {
        Statement::new(json!({"Sid": sid, "Effect": "Allow", "Principal": "*", "Action": action})).unwrap()
    }

    fn document(statements: &[Statement]) -> PolicyDocument {
        PolicyDocument::of(statements.to_vec()).unwrap()
    }

    fn wanted(ours: impl IntoIterator<Item = Statement>, keep_foreign: bool) -> WantedPolicy {
        WantedPolicy::Statements { ours: ours.into_iter().collect(), keep_foreign }
    }

    #[test]
    fn foreign_statements_stay_or_go_as_declared() {
        let (ours, old, theirs) =
            (statement("EcrOperatorA", "a:a"), statement("EcrOperatorB", "b:b"), statement("theirs", "c:c"));
        let there = document(&[old, theirs.clone()]);
        assert_eq!(
            target(&wanted([ours.clone()], true), Some(&there), false).unwrap(),
            Some(document(&[theirs.clone(), ours.clone()]))
        );
        assert_eq!(target(&wanted([ours.clone()], false), Some(&there), false).unwrap(), Some(document(&[ours])));
        assert_eq!(target(&wanted([], true), Some(&there), false).unwrap(), Some(document(&[theirs])));
        assert_eq!(target(&wanted([], false), Some(&there), false).unwrap(), None);
    }

    #[test]
    fn a_foreign_statement_that_says_the_same_becomes_ours_and_so_can_go() {
        let (ours, same) = (statement("EcrOperatorA", "a:a"), statement("", "a:a"));
        let there = document(&[same]);
        let target = target(&wanted([ours.clone()], true), Some(&there), false).unwrap().unwrap();
        assert_ne!(target, there, "it has to be written once");
        assert_eq!(target.statements(), [ours]);
    }

    #[test]
    fn ours_and_foreign_ones_together_fit_or_are_refused_with_the_number() {
        let theirs = statement("theirs", &"a".repeat(5_000));
        let rest = MOST_CHARACTERS - document(&[theirs.clone(), statement("EcrOperatorA", "")]).text().chars().count();
        let there = document(&[theirs]);
        let target = |more: usize| {
            target(&wanted([statement("EcrOperatorA", &"b".repeat(rest + more))], true), Some(&there), false)
        };
        assert_eq!(target(0).unwrap().unwrap().text().chars().count(), MOST_CHARACTERS);
        assert_eq!(target(1), Err(PolicyError::TooLong(MOST_CHARACTERS + 1)));
    }

    #[test]
    fn a_text_beside_foreign_statements_is_marked_as_ours() {
        let text = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"a:a"}}"#;
        let policy = serde_json::from_value(json!({"policyText": text, "foreignStatements": "Keep"})).unwrap();
        let region = Region::parse("eu-west-1").unwrap();
        let WantedPolicy::Statements { ours, .. } = WantedPolicy::parse(&policy, &region).unwrap() else { panic!() };
        assert!(ours.iter().all(Statement::is_ours));
    }

    #[test]
    fn a_block_that_goes_takes_ours_along() {
        let (old, theirs) = (statement("EcrOperatorB", "b:b"), statement("theirs", "c:c"));
        assert_eq!(
            target(&WantedPolicy::Untouched, Some(&document(&[old.clone(), theirs.clone()])), false).unwrap(),
            Some(document(&[theirs]))
        );
        assert_eq!(target(&WantedPolicy::Untouched, Some(&document(&[old])), false).unwrap(), None);
    }

    #[test]
    fn what_a_text_gave_goes_with_it_though_it_bore_no_mark() {
        let (old, new) = (statement("a text", "b:b"), statement("EcrOperatorA", "a:a"));
        let there = document(&[old]);
        let narrower = target(&wanted([new.clone()], true), Some(&there), true).unwrap();
        assert_eq!(narrower, Some(document(&[new])));
        assert_eq!(target(&WantedPolicy::Untouched, Some(&there), true).unwrap(), None);
    }

    #[test]
    fn only_a_text_that_stands_alone_bears_no_mark() {
        let region = Region::parse("eu-west-1").unwrap();
        let text = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"a:a"}}"#;
        let grants = json!([{"access": "Pull", "accounts": ["210987654321"]}]);
        for (policy, unmarked) in [
            (json!({"policyText": text}), true),
            (json!({"policyText": text, "foreignStatements": "Keep"}), false),
            (json!({"grants": grants, "foreignStatements": "Remove"}), false),
        ] {
            let parsed = WantedPolicy::parse(&serde_json::from_value(policy).unwrap(), &region).unwrap();
            assert_eq!(parsed.is_unmarked(), unmarked, "{parsed:?}");
        }
    }

    #[test]
    fn a_text_is_measured_as_it_is_sent() {
        let region = Region::parse("eu-west-1").unwrap();
        let of = |padding: usize| {
            let statement = json!({"Effect": "Allow", "Principal": "*", "Action": "x".repeat(padding)});
            let text = format!("{:#}", json!({"Version": "2012-10-17", "Statement": [statement]}));
            let policy = serde_json::from_value(json!({ "policyText": text })).unwrap();
            WantedPolicy::parse(&policy, &region).map(drop)
        };
        let empty = r#"{"Statement":[{"Action":"","Effect":"Allow","Principal":"*"}],"Version":"2012-10-17"}"#;
        assert_eq!(of(MOST_CHARACTERS - empty.len()), Ok(()));
        assert_eq!(of(MOST_CHARACTERS - empty.len() + 1), Err(PolicyError::TooLong(MOST_CHARACTERS + 1)));
    }

    #[test]
    fn no_two_statements_have_one_sid() {
        let region = Region::parse("eu-west-1").unwrap();
        let named = |sid: &str| json!({"Sid": sid, "Effect": "Allow", "Principal": "*", "Action": "ecr:ListImages"});
        let policy = serde_json::from_value(json!({
            "grants": [{"access": "Pull", "accounts": ["210987654321"]}],
            "statements": [named("Pull1"), {"Effect": "Deny", "Principal": "*", "Action": "ecr:PutImage"}, named("Statement2"), named("Pull1"), named("Pull1x2")],
        }));
        let WantedPolicy::Statements { ours, .. } = WantedPolicy::parse(&policy.unwrap(), &region).unwrap() else {
            panic!()
        };
        let sids: Vec<_> = ours.iter().map(|statement| statement.value()["Sid"].as_str().unwrap()).collect();
        assert_eq!(sids.iter().collect::<BTreeSet<_>>().len(), 6, "{sids:?}");
        assert!(ours.iter().all(Statement::is_ours));
    }

    #[test]
    fn a_users_sid_is_kept_behind_our_prefix() {
        let region = Region::parse("eu-west-1").unwrap();
        let policy = serde_json::from_value(json!({"statements": [
            {"Sid": "Scan", "Effect": "Allow", "Principal": "*", "Action": "ecr:DescribeImages"},
            {"Effect": "Deny", "Principal": "*", "Action": "ecr:PutImage"},
        ]}))
        .unwrap();
        let WantedPolicy::Statements { ours, keep_foreign } = WantedPolicy::parse(&policy, &region).unwrap() else {
            panic!()
        };
        assert!(keep_foreign && ours.iter().all(Statement::is_ours));
        assert!(document(&ours).text().contains("EcrOperatorScan"));
    }
}
