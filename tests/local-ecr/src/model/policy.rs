//! Repository policies: what `SetRepositoryPolicy` accepts and what `GetRepositoryPolicy` gives back.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::iam::{Document, Kind};
use super::names::is_account_id;
use crate::error::{ApiError, within};

#[derive(Debug, Clone)]
pub(crate) struct RepositoryPolicy {
    value: Value,
    pub document: Document,
}

/// How policies are given back. AWS lists principals in any order, and rewrites what means the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadBack {
    /// Principals come in another order at each read.
    pub shuffle: bool,
    /// An account id becomes the ARN of its root, a list of one its element, a lone statement a list; and the text is
    /// printed in lines, so that it may be longer than what was set. Source: the examples of `GetRepositoryPolicy`.
    pub normalise: bool,
}

impl Default for ReadBack {
    fn default() -> Self {
        Self { shuffle: true, normalise: true }
    }
}

impl RepositoryPolicy {
    /// Checks a policy text. `known` tells whether the role or user of an ARN exists.
    pub fn parse(text: &str, known: impl Fn(&str) -> bool) -> Result<Self, ApiError> {
        within("policyText", "length", text.chars().count(), 0, 10_240)?;
        let value: Value = serde_json::from_str(text).map_err(|_| invalid())?;
        let document = Document::from_value(&value, Kind::Resource).map_err(|_| invalid())?;
        if document.actions().any(|action| action != "*" && !action.to_ascii_lowercase().starts_with("ecr:")) {
            return Err(invalid());
        }
        for principals in document.principals() {
            for name in &principals.aws {
                check_principal(name, &known)?;
            }
            if !principals.service.iter().all(|service| service.ends_with(".amazonaws.com")) {
                return Err(invalid());
            }
        }
        Ok(Self { value, document })
    }

    /// The text as it is read; `turn` picks the order of principals.
    pub fn render(&self, read_back: ReadBack, partition: &str, turn: u64) -> String {
        let mut value = self.value.clone();
        if read_back.normalise {
            normalise(&mut value, partition);
        }
        if read_back.shuffle {
            for statement in statements(&mut value) {
                for principals in principal_lists(statement) {
                    shuffle(principals, turn);
                }
            }
        }
        if read_back.normalise { format!("{value:#}") } else { value.to_string() }
    }
}

fn check_principal(name: &str, known: &impl Fn(&str) -> bool) -> Result<(), ApiError> {
    if name == "*" || is_account_id(name) {
        return Ok(());
    }
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    let ["arn", _partition, service @ ("iam" | "sts"), "", account, resource] = parts.as_slice() else {
        return Err(not_found());
    };
    if !is_account_id(account) {
        return Err(invalid());
    }
    let (kind, _name) = resource.split_once('/').unwrap_or((resource, ""));
    match (*service, kind) {
        ("iam", "root") => Ok(()),
        ("iam", "role" | "user") | ("sts", "assumed-role" | "federated-user") if known(name) => Ok(()),
        ("iam", "role" | "user") | ("sts", "assumed-role" | "federated-user") => Err(not_found()),
        _ => Err(invalid()),
    }
}

fn invalid() -> ApiError {
    ApiError::parameter("PolicyText", "Invalid repository policy provided")
}

fn not_found() -> ApiError {
    ApiError::parameter("PolicyText", "Principal not found")
}

pub(crate) fn lock_out() -> ApiError {
    ApiError::parameter(
        "PolicyText",
        "The policy would prevent the caller from setting another policy in the future; use force to set it anyway",
    )
}

fn normalise(policy: &mut Value, partition: &str) {
    if let Some(statement) = policy.get_mut("Statement").filter(|statement| statement.is_object()) {
        *statement = json!([statement.take()]);
    }
    for statement in statements(policy) {
        for member in ["Principal", "NotPrincipal"] {
            let Some(kinds) = statement.get_mut(member).and_then(Value::as_object_mut) else { continue };
            for (kind, names) in kinds {
                if kind == "AWS" {
                    expand_accounts(names, partition);
                }
                collapse(names);
            }
        }
        for member in ["Action", "NotAction"] {
            if let Some(actions) = statement.get_mut(member) {
                collapse(actions);
            }
        }
    }
}

fn expand_accounts(names: &mut Value, partition: &str) {
    let expand = |name: &mut Value| {
        if let Some(account) = name.as_str().filter(|name| is_account_id(name)) {
            *name = Value::String(format!("arn:{partition}:iam::{account}:root"));
        }
    };
    match names {
        Value::Array(list) => list.iter_mut().for_each(expand),
        name => expand(name),
    }
}

fn collapse(value: &mut Value) {
    if let Value::Array(list) = value
        && let [one] = list.as_mut_slice()
    {
        *value = one.take();
    }
}

fn statements(policy: &mut Value) -> Vec<&mut Value> {
    match policy.get_mut("Statement") {
        Some(Value::Array(statements)) => statements.iter_mut().collect(),
        Some(statement) => vec![statement],
        None => Vec::new(),
    }
}

fn principal_lists(statement: &mut Value) -> Vec<&mut Vec<Value>> {
    let Some(statement) = statement.as_object_mut() else { return Vec::new() };
    statement
        .iter_mut()
        .filter(|(member, _)| matches!(member.as_str(), "Principal" | "NotPrincipal"))
        .filter_map(|(_, kinds)| kinds.as_object_mut())
        .flat_map(|kinds| kinds.iter_mut().filter_map(|(_, names)| names.as_array_mut()))
        .collect()
}

/// Another order for each turn: rotated, and every second time reversed.
fn shuffle(list: &mut [Value], turn: u64) {
    let length = list.len().max(1) as u64;
    let by = usize::try_from(turn % length).unwrap_or(0);
    list.rotate_left(by.min(list.len()));
    if (turn / length) % 2 == 1 {
        list.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(principal: &Value) -> String {
        json!({"Version": "2012-10-17", "Statement": [
            {"Sid": "a", "Effect": "Allow", "Principal": principal, "Action": ["ecr:BatchGetImage"]}]})
        .to_string()
    }

    fn error(text: &str) -> Option<String> {
        let known = |arn: &str| arn == "arn:aws:iam::123456789012:role/known";
        RepositoryPolicy::parse(text, known).err().map(|error| error.message)
    }

    #[test]
    fn principals() {
        for good in [
            json!("*"),
            json!({"AWS": "*"}),
            json!({"AWS": ["210987654321", "arn:aws:iam::210987654321:root", "arn:aws:iam::123456789012:role/known"]}),
            json!({"Service": "lambda.amazonaws.com"}),
        ] {
            assert_eq!(error(&statement(&good)), None, "{good}");
        }
        let missing = error(&statement(&json!({"AWS": "arn:aws:iam::123456789012:role/new"}))).unwrap();
        assert!(missing.contains("Principal not found"), "{missing}");
        for bad in [json!("x"), json!({}), json!({"AWS": []}), json!({"Who": "x"}), json!({"Service": "lambda"})] {
            assert!(error(&statement(&bad)).unwrap().contains("Invalid repository policy"), "{bad}");
        }
    }

    #[test]
    fn shape() {
        let with = |member: &str, value: Value| {
            let mut policy: Value = serde_json::from_str(&statement(&json!("*"))).unwrap();
            policy["Statement"][0][member] = value;
            error(&policy.to_string())
        };
        assert!(with("Resource", json!("*")).is_some(), "ECR refuses Resource");
        assert!(with("Action", json!("s3:GetObject")).is_some());
        assert!(with("Effect", json!("Maybe")).is_some());
        assert!(with("Condition", json!({"Like": {"a": "b"}})).is_some());
        assert_eq!(with("Condition", json!({"StringLike": {"aws:PrincipalOrgID": "o-1"}})), None);
        assert!(error("").is_some() && error("{}").is_some());
        assert!(error(&" ".repeat(10_241)).unwrap().contains("10240"));
    }

    #[test]
    fn read_back_means_the_same_in_other_words() {
        let text = statement(&json!({"AWS": ["210987654321", "arn:aws:iam::123456789012:role/known", "*"]}));
        let policy = RepositoryPolicy::parse(&text, |_| true).unwrap();
        let renders: Vec<_> = (0..6).map(|turn| policy.render(ReadBack::default(), "aws", turn)).collect();
        assert!(renders.iter().any(|render| *render != renders[0]));
        assert!(renders[0].contains("arn:aws:iam::210987654321:root"));
        assert!(renders[0].contains(r#""Action": "ecr:BatchGetImage""#));
        assert!(renders[0].contains('\n') && renders[0].len() > text.len());
        let plain = ReadBack { shuffle: false, normalise: false };
        let same: Value = serde_json::from_str(&policy.render(plain, "aws", 5)).unwrap();
        assert_eq!(same, serde_json::from_str::<Value>(&text).unwrap());
    }
}
