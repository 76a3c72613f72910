//! A policy as a list of statements. Two that mean the same are equal: the order of statements, principals, actions and
//! values, a string or a list of one, the case of actions and condition keys, and how an account is spelled mean nothing.
//!
//! Source: "IAM JSON policy elements reference" in the IAM user guide.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::SID_PREFIX;

/// The longest policy that ECR takes, in characters (service model, `RepositoryPolicyText`).
pub const MOST_CHARACTERS: usize = 10_240;
const VERSION: &str = "2012-10-17";

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not JSON.
    #[error("repositoryPolicy is not valid JSON: {0}")]
    Json(String),
    /// JSON of another shape.
    #[error("repositoryPolicy must be an object with `Statement`, one object or a list of them, each with `Effect`")]
    Shape,
    /// Longer than ECR takes.
    #[error("repositoryPolicy has {0} characters as JSON; ECR takes {MOST_CHARACTERS} at most")]
    TooLong(usize),
}

/// One statement.
#[derive(Debug, Clone)]
pub struct Statement {
    /// As it is written.
    value: Value,
    /// In the one spelling that all of its meaning share.
    meaning: Value,
}

impl PartialEq for Statement {
    /// One of ours and a foreign one differ, even where they say the same: ours go when they are no longer declared.
    fn eq(&self, other: &Self) -> bool {
        self.meaning == other.meaning && self.is_ours() == other.is_ours()
    }
}

impl Eq for Statement {}

/// A policy.
#[derive(Debug, Clone)]
pub struct PolicyDocument {
    version: String,
    statements: Vec<Statement>,
}

impl PartialEq for PolicyDocument {
    fn eq(&self, other: &Self) -> bool {
        self.meanings() == other.meanings() && (self.version == other.version || !self.has_variables())
    }
}

impl Eq for PolicyDocument {}

impl Statement {
    /// Reads a statement.
    ///
    /// # Errors
    /// Where it isn't an object with an `Effect`.
    pub fn new(value: Value) -> Result<Self, PolicyError> {
        let object = value.as_object().filter(|object| object.get("Effect").is_some_and(Value::is_string));
        let meaning = meaning(object.ok_or(PolicyError::Shape)?);
        Ok(Self { value, meaning })
    }

    /// As it is written.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Whether the operator wrote it: by the prefix of its `Sid`.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.sid().is_some_and(|sid| sid.starts_with(SID_PREFIX))
    }

    /// Whether it says the same, whoever wrote it.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.meaning == other.meaning
    }

    fn sid(&self) -> Option<&str> {
        self.value.get("Sid").and_then(Value::as_str)
    }

    fn name(&self) -> &str {
        self.sid().filter(|sid| !sid.is_empty()).unwrap_or("no Sid")
    }

    /// `Allow ecr:BatchGetImage, … to 210987654321`, `Deny all but ecr:BatchGetImage to all but 210987654321`
    #[must_use]
    pub fn describe(&self) -> String {
        let words = |items: &[Value]| items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
        let list = |key: &str| match self.meaning.get(key)? {
            Value::Array(items) => Some(words(items)),
            Value::Object(kinds) => Some(
                kinds.values().filter_map(Value::as_array).map(|items| words(items)).collect::<Vec<_>>().join(", "),
            ),
            _ => None,
        };
        let told = |key: &str, opposite: &str| {
            list(key).or_else(|| list(opposite).map(|list| format!("all but {list}"))).unwrap_or_default()
        };
        let effect = self.meaning.get("Effect").and_then(Value::as_str).unwrap_or_default();
        let actions = told("Action", "NotAction");
        let principals = told("Principal", "NotPrincipal");
        let conditions =
            self.meaning.get("Condition").map(|condition| format!(" where {condition}")).unwrap_or_default();
        format!("{effect} {actions} to {principals}{conditions}")
    }
}

impl PolicyDocument {
    /// Reads a policy, however long: ECR gives back more than it took, in lines and with account ids as ARNs.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let value: Value = serde_json::from_str(text).map_err(|error| PolicyError::Json(error.to_string()))?;
        let version = value.get("Version").and_then(Value::as_str).unwrap_or("2008-10-17").to_owned();
        let statements = match value.get("Statement") {
            Some(Value::Array(list)) => list.clone(),
            Some(one @ Value::Object(_)) => vec![one.clone()],
            _ => return Err(PolicyError::Shape),
        };
        let statements = statements.into_iter().map(Statement::new).collect::<Result<_, _>>()?;
        Ok(Self { version, statements })
    }

    /// Of these statements, to be sent to ECR.
    ///
    /// # Errors
    /// [`PolicyError::TooLong`], with the number.
    pub fn of(statements: Vec<Statement>) -> Result<Self, PolicyError> {
        let document = Self { version: VERSION.to_owned(), statements };
        let length = document.text().chars().count();
        if length > MOST_CHARACTERS { Err(PolicyError::TooLong(length)) } else { Ok(document) }
    }

    /// Its statements.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// As sent to ECR.
    #[must_use]
    pub fn text(&self) -> String {
        let statements: Vec<_> = self.statements.iter().map(|statement| &statement.value).collect();
        json!({"Version": self.version, "Statement": statements}).to_string()
    }

    /// What changes from `old` to `new`, statement by statement, in words.
    #[must_use]
    pub fn changes(old: Option<&Self>, new: Option<&Self>) -> Vec<String> {
        let all = |document: Option<&Self>| document.map(|document| document.statements.clone()).unwrap_or_default();
        let (old, new) = (all(old), all(new));
        let only = |these: &[Statement], those: &[Statement]| -> Vec<Statement> {
            these.iter().filter(|statement| !those.contains(statement)).cloned().collect()
        };
        let (added, mut gone) = (only(&new, &old), only(&old, &new));
        let mut told = Vec::new();
        for statement in &added {
            let said = statement.describe();
            // One that only gets another name, as when it becomes ours.
            let twin = gone.iter().position(|gone| gone.describe() == said && gone.sid() != statement.sid());
            told.push(match twin.map(|at| gone.remove(at)) {
                Some(before) => format!("rename statement from {} to {}: {said}", before.name(), statement.name()),
                None => format!("add statement: {said}"),
            });
        }
        told.extend(gone.iter().map(|statement| format!("remove statement: {}", statement.describe())));
        told
    }

    /// Whether it names a role or a user, which must exist.
    #[must_use]
    pub fn names_principals(&self) -> bool {
        let text = self.text();
        text.contains(":role/") || text.contains(":user/")
    }

    fn meanings(&self) -> Vec<String> {
        let meaning = |statement: &Statement| format!("{} {}", statement.is_ours(), statement.meaning);
        let mut meanings: Vec<_> = self.statements.iter().map(meaning).collect();
        meanings.sort();
        meanings.dedup();
        meanings
    }

    /// Policy variables are read as such from version 2012-10-17 on.
    fn has_variables(&self) -> bool {
        self.statements.iter().any(|statement| statement.meaning.to_string().contains("${"))
    }
}

fn meaning(statement: &Map<String, Value>) -> Value {
    let member = |(key, value): (&String, &Value)| {
        let value = match key.as_str() {
            "Sid" => {
                return value
                    .as_str()
                    .filter(|sid| !sid.starts_with(SID_PREFIX) && !sid.is_empty())
                    .map(|_| (key.clone(), value.clone()));
            }
            "Principal" | "NotPrincipal" => principals(value),
            "Action" | "NotAction" => sorted(strings(value).map(|action| action.to_ascii_lowercase())),
            "Resource" | "NotResource" => sorted(strings(value)),
            "Condition" => condition(value)?,
            _ => value.clone(),
        };
        Some((key.clone(), value))
    };
    Value::Object(statement.iter().filter_map(member).collect())
}

/// `"*"` is `{"AWS": "*"}`, and an account's number is its root.
fn principals(value: &Value) -> Value {
    let Value::Object(kinds) = value else {
        return json!({"AWS": sorted(strings(value))});
    };
    kinds
        .iter()
        .map(|(kind, value)| (kind.clone(), sorted(strings(value).map(root_as_number))))
        .collect::<Map<_, _>>()
        .into()
}

fn root_as_number(principal: String) -> String {
    let account = principal
        .strip_suffix(":root")
        .and_then(|arn| arn.rsplit_once(":iam::"))
        .map(|(_, account)| account.to_owned());
    account.unwrap_or(principal)
}

/// Operators and keys don't care for case; values are lists of strings, numbers and booleans included.
fn condition(value: &Value) -> Option<Value> {
    let operators = value.as_object().filter(|operators| !operators.is_empty())?;
    let keys = |keys: &Value| -> Value {
        let keys = keys.as_object().into_iter().flatten();
        keys.map(|(key, values)| (key.to_ascii_lowercase(), sorted(strings(values))))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect::<Map<_, _>>()
            .into()
    };
    Some(
        operators
            .iter()
            .map(|(operator, value)| (operator.to_ascii_lowercase(), keys(value)))
            .collect::<Map<_, _>>()
            .into(),
    )
}

fn strings(value: &Value) -> impl Iterator<Item = String> {
    let items = match value {
        Value::Array(items) => items.clone(),
        one => vec![one.clone()],
    };
    items.into_iter().map(|item| match item {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

fn sorted(items: impl Iterator<Item = String>) -> Value {
    let items: std::collections::BTreeSet<_> = items.collect();
    items.into_iter().collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(statement: &str) -> PolicyDocument {
        PolicyDocument::parse(&format!(r#"{{"Version":"2012-10-17","Statement":{statement}}}"#)).unwrap()
    }

    #[test]
    fn spellings_of_one_meaning_are_equal() {
        for (one, other) in [
            (
                r#"[{"Effect":"Allow","Principal":"*","Action":"ecr:X"}]"#,
                r#"{"Action":["ECR:x"],"Principal":{"AWS":["*"]},"Effect":"Allow"}"#,
            ),
            (
                r#"{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::123456789012:root","arn:aws:iam::123456789012:role/a"]},"Action":["ecr:A","ecr:B"]}"#,
                r#"{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::123456789012:role/a","123456789012"]},"Action":["ecr:B","ecr:A"]}"#,
            ),
            (
                r#"{"Effect":"Deny","Principal":"*","Action":"ecr:*","Condition":{"Bool":{"aws:SecureTransport":false},"NumericLessThan":{"a:B":5}}}"#,
                r#"{"Effect":"Deny","Principal":"*","Action":"ecr:*","Condition":{"numericlessthan":{"A:b":["5"]},"Bool":{"aws:securetransport":"false"}}}"#,
            ),
            (
                r#"{"Sid":"EcrOperatorPull1","Effect":"Allow","Principal":"*","Action":"a:b"}"#,
                r#"{"Sid":"EcrOperatorPull7","Effect":"Allow","Principal":"*","Action":"a:b"}"#,
            ),
        ] {
            assert_eq!(policy(one), policy(other), "{one}");
        }
    }

    #[test]
    fn different_meanings_differ() {
        let base = r#"{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"ecr:A"}"#;
        for other in [
            r#"{"Effect":"Deny","Principal":{"AWS":"123456789012"},"Action":"ecr:A"}"#,
            r#"{"Effect":"Allow","Principal":{"Service":"123456789012"},"Action":"ecr:A"}"#,
            r#"{"Effect":"Allow","NotPrincipal":{"AWS":"123456789012"},"Action":"ecr:A"}"#,
            r#"{"Effect":"Allow","Principal":{"AWS":"123456789012"},"NotAction":"ecr:A"}"#,
            r#"{"Sid":"theirs","Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"ecr:A"}"#,
            r#"{"Sid":"EcrOperator1","Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"ecr:A"}"#,
            r#"{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"ecr:A","Condition":{"Bool":{"a:b":true}}}"#,
        ] {
            assert_ne!(policy(base), policy(other), "{other}");
        }
    }

    #[test]
    fn the_version_matters_only_where_there_are_variables() {
        let of = |version: &str, action: &str| {
            PolicyDocument::parse(&format!(
                r#"{{"Version":"{version}","Statement":{{"Effect":"Allow","Principal":"*","Action":"{action}"}}}}"#
            ))
            .unwrap()
        };
        assert_eq!(of("2012-10-17", "a:b"), of("2008-10-17", "a:b"));
        assert_ne!(of("2012-10-17", "${x}"), of("2008-10-17", "${x}"));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(matches!(PolicyDocument::parse("{"), Err(PolicyError::Json(_))));
        for bad in ["[]", "{}", r#"{"Statement":"x"}"#, r#"{"Statement":[{}]}"#] {
            assert_eq!(PolicyDocument::parse(bad), Err(PolicyError::Shape), "{bad}");
        }
    }

    #[test]
    fn the_length_counts_where_it_is_written_and_never_where_it_is_read() {
        let text = |padding: usize| {
            json!({"Version": VERSION, "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "x".repeat(padding)}]})
                .to_string()
        };
        let fits = MOST_CHARACTERS - text(0).len();
        let read = |text: &str| PolicyDocument::parse(text).unwrap().statements().to_vec();
        assert_eq!(PolicyDocument::of(read(&text(fits))).unwrap().text().len(), MOST_CHARACTERS);
        let longer = read(&text(fits + 1));
        assert_eq!(PolicyDocument::of(longer), Err(PolicyError::TooLong(MOST_CHARACTERS + 1)));
    }

    #[test]
    fn what_a_statement_is_not_about_is_not_told_as_what_it_is_about() {
        for (statement, told) in [
            (
                r#"{"Effect":"Deny","NotPrincipal":{"AWS":"123456789012"},"Action":"ecr:A"}"#,
                "Deny ecr:a to all but 123456789012",
            ),
            (r#"{"Effect":"Allow","Principal":"*","NotAction":["ecr:B","ecr:A"]}"#, "Allow all but ecr:a, ecr:b to *"),
        ] {
            assert_eq!(policy(statement).statements()[0].describe(), told);
        }
    }

    #[test]
    fn a_statement_that_only_gets_another_name_is_neither_added_nor_removed() {
        let named =
            |sid: &str| policy(&format!(r#"{{"Sid":"{sid}","Effect":"Allow","Principal":"*","Action":"a:b"}}"#));
        let changes = |old: &str, new: &str| PolicyDocument::changes(Some(&named(old)), Some(&named(new)));
        assert_eq!(changes("theirs", "EcrOperatorA"), ["rename statement from theirs to EcrOperatorA: Allow a:b to *"]);
        assert_eq!(changes("", "EcrOperatorA"), ["rename statement from no Sid to EcrOperatorA: Allow a:b to *"]);
        assert_eq!(changes("EcrOperatorA", "EcrOperatorB"), [""; 0]);
    }

    #[test]
    fn changes_are_told_statement_by_statement() {
        let old = policy(r#"{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"ecr:A"}"#);
        let new = policy(r#"{"Effect":"Allow","Principal":{"AWS":"210987654321"},"Action":"ecr:A"}"#);
        assert_eq!(
            PolicyDocument::changes(Some(&old), Some(&new)),
            ["add statement: Allow ecr:a to 210987654321", "remove statement: Allow ecr:a to 123456789012"]
        );
    }

    fn any_statement() -> impl Strategy<Value = Value> {
        (prop::sample::select(vec!["Allow", "Deny"]), prop::collection::vec("[0-9]{12}", 1..4), prop::collection::vec("ecr:[A-C]", 1..4))
            .prop_map(|(effect, principals, actions)| json!({"Effect": effect, "Principal": {"AWS": principals}, "Action": actions}))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(statements in prop::collection::vec(any_statement(), 1..5)) {
            let document = PolicyDocument::of(statements.into_iter().map(|value| Statement::new(value).unwrap()).collect()).unwrap();
            prop_assert_eq!(PolicyDocument::parse(&document.text()).unwrap(), document);
        }

        #[test]
        fn order_means_nothing(mut statements in prop::collection::vec(any_statement(), 1..5)) {
            let of = |statements: &[Value]| PolicyDocument::of(statements.iter().map(|value| Statement::new(value.clone()).unwrap()).collect()).unwrap();
            let forth = of(&statements);
            statements.reverse();
            for statement in &mut statements {
                for pointer in ["/Principal/AWS", "/Action"] {
                    statement.pointer_mut(pointer).unwrap().as_array_mut().unwrap().reverse();
                }
            }
            prop_assert_eq!(forth, of(&statements));
        }
    }
}
