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
mod tests;
