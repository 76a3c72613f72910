//! A small IAM: policy documents and what they decide about a request.

mod condition;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use condition::Condition;
pub(crate) use condition::glob;

/// What a document says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow,
    Deny,
    Neutral,
}

/// Where a document is used decides which members its statements must and mustn't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Attached to a user or role, or given as a session policy: `Resource`, no `Principal`.
    Identity,
    /// A trust policy or a repository policy: `Principal`, no `Resource`.
    Resource,
}

/// Who asks for what: everything that statements look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// Names of the caller that `Principal` elements may mention: ARNs, account.
    pub principals: Vec<Named>,
    pub action: String,
    pub resource: String,
    /// Condition keys, lower case, with their values.
    pub context: BTreeMap<String, Vec<String>>,
}

/// One way to name a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// An ARN or account id under `AWS`.
    Aws(String),
    /// An identity provider under `Federated`.
    Federated(String),
    /// A service of AWS under `Service`.
    Service(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Document {
    statements: Vec<Statement>,
}

#[derive(Debug, Clone)]
struct Statement {
    allow: bool,
    principal: Option<(bool, Principals)>,
    action: (bool, Vec<String>),
    resource: Option<(bool, Vec<String>)>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Principals {
    pub everybody: bool,
    pub aws: Vec<String>,
    pub federated: Vec<String>,
    pub service: Vec<String>,
}

impl Document {
    /// Parses and checks a document; the error says what is wrong in it.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        Self::from_value(&value, kind)
    }

    pub fn from_value(value: &Value, kind: Kind) -> Result<Self, String> {
        let object = value.as_object().ok_or("a policy must be an object")?;
        only(object, &["Version", "Id", "Statement"])?;
        match object.get("Version") {
            None => {}
            Some(Value::String(version)) if version == "2012-10-17" || version == "2008-10-17" => {}
            Some(_) => return Err("Version must be 2012-10-17 or 2008-10-17".to_owned()),
        }
        let statements = match object.get("Statement") {
            Some(Value::Array(statements)) if !statements.is_empty() => statements.iter().collect(),
            Some(statement @ Value::Object(_)) => vec![statement],
            _ => return Err("Statement must be an object or a list of them".to_owned()),
        };
        let mut sids = BTreeSet::new();
        let statements = statements
            .into_iter()
            .map(|statement| {
                let (sid, statement) = Statement::from_value(statement, kind)?;
                match sid {
                    Some(sid) if !sids.insert(sid.clone()) => Err(format!("Statement IDs (SID) must be unique: {sid}")),
                    _ => Ok(statement),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// A document that allows everything to its holder.
    pub fn everything() -> Self {
        Self {
            statements: vec![Statement {
                allow: true,
                principal: None,
                action: (true, vec!["*".to_owned()]),
                resource: Some((true, vec!["*".to_owned()])),
                conditions: Vec::new(),
            }],
        }
    }

    pub fn decide(&self, request: &Request) -> Decision {
        decide([self], request)
    }

    pub fn actions(&self) -> impl Iterator<Item = &str> {
        self.statements.iter().flat_map(|statement| statement.action.1.iter().map(String::as_str))
    }

    pub fn principals(&self) -> impl Iterator<Item = &Principals> {
        self.statements.iter().filter_map(|statement| statement.principal.as_ref().map(|(_, principals)| principals))
    }
}

/// An explicit denial wins over any permission.
pub(crate) fn decide<'a>(documents: impl IntoIterator<Item = &'a Document>, request: &Request) -> Decision {
    let mut decision = Decision::Neutral;
    for statement in documents.into_iter().flat_map(|document| &document.statements) {
        if statement.matches(request) {
            if !statement.allow {
                return Decision::Deny;
            }
            decision = Decision::Allow;
        }
    }
    decision
}

impl Statement {
    fn from_value(value: &Value, kind: Kind) -> Result<(Option<String>, Self), String> {
        let object = value.as_object().ok_or("a statement must be an object")?;
        let common = ["Sid", "Effect", "Action", "NotAction", "Condition"];
        let own: &[&str] = match kind {
            Kind::Identity => &["Resource", "NotResource"],
            Kind::Resource => &["Principal", "NotPrincipal"],
        };
        only(object, &[&common, own].concat())?;
        let sid = match object.get("Sid") {
            None => None,
            Some(Value::String(sid)) => Some(sid.clone()),
            Some(_) => return Err("Sid must be a string".to_owned()),
        };
        let allow = match object.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err("Effect must be Allow or Deny".to_owned()),
        };
        let action = one_of(object, "Action", "NotAction")?;
        let action = (action.0, strings(action.1)?);
        if let Some(bad) = action.1.iter().find(|action| *action != "*" && !is_action(action)) {
            return Err(format!("not an action: {bad}"));
        }
        let (principal, resource) = match kind {
            Kind::Identity => {
                let (plain, value) = one_of(object, "Resource", "NotResource")?;
                (None, Some((plain, strings(value)?)))
            }
            Kind::Resource => {
                let (plain, value) = one_of(object, "Principal", "NotPrincipal")?;
                (Some((plain, Principals::from_value(value)?)), None)
            }
        };
        let conditions = object.get("Condition").map_or(Ok(Vec::new()), condition::parse)?;
        Ok((sid, Self { allow, principal, action, resource, conditions }))
    }

    fn matches(&self, request: &Request) -> bool {
        let action = self.action.1.iter().any(|pattern| glob(&pattern.to_lowercase(), &request.action.to_lowercase()));
        let resource = self.resource.as_ref().is_none_or(|(plain, patterns)| {
            patterns.iter().any(|pattern| glob(&condition::expand(pattern, request), &request.resource)) == *plain
        });
        let principal =
            self.principal.as_ref().is_none_or(|(plain, principals)| principals.name(&request.principals) == *plain);
        action == self.action.0
            && resource
            && principal
            && self.conditions.iter().all(|condition| condition.holds(request))
    }
}

impl Principals {
    fn from_value(value: &Value) -> Result<Self, String> {
        let mut principals = Self::default();
        match value {
            Value::String(all) if all == "*" => principals.everybody = true,
            Value::Object(kinds) if !kinds.is_empty() => {
                for (kind, value) in kinds {
                    let names = strings(value)?;
                    match kind.as_str() {
                        "AWS" => principals.aws = names,
                        "Federated" => principals.federated = names,
                        "Service" => principals.service = names,
                        _ => return Err(format!("unknown kind of principal: {kind}")),
                    }
                }
                principals.everybody = principals.aws.iter().any(|name| name == "*");
            }
            _ => return Err("Principal must be \"*\" or an object".to_owned()),
        }
        Ok(principals)
    }

    fn name(&self, caller: &[Named]) -> bool {
        caller.iter().any(|named| match named {
            Named::Aws(name) => self.everybody || self.aws.iter().any(|listed| listed == name),
            Named::Federated(name) => self.federated.iter().any(|listed| listed == name),
            Named::Service(name) => self.service.iter().any(|listed| listed == name),
        })
    }
}

fn is_action(action: &str) -> bool {
    action.split_once(':').is_some_and(|(service, name)| {
        let service_ok = !service.is_empty() && service.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        service_ok && !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '*' || c == '?')
    })
}

fn one_of<'a>(object: &'a Map<String, Value>, plain: &str, negated: &str) -> Result<(bool, &'a Value), String> {
    match (object.get(plain), object.get(negated)) {
        (Some(value), None) => Ok((true, value)),
        (None, Some(value)) => Ok((false, value)),
        _ => Err(format!("a statement needs exactly one of {plain} and {negated}")),
    }
}

fn only(object: &Map<String, Value>, allowed: &[&str]) -> Result<(), String> {
    match object.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(format!("{key} is not allowed here")),
        None => Ok(()),
    }
}

fn strings(value: &Value) -> Result<Vec<String>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| "expected strings".to_owned());
    match value {
        Value::Array(list) if !list.is_empty() => list.iter().map(text).collect(),
        Value::Array(_) => Err("a list must not be empty".to_owned()),
        value => Ok(vec![text(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(action: &str, resource: &str) -> Request {
        Request {
            principals: vec![Named::Aws("123456789012".to_owned())],
            action: action.to_owned(),
            resource: resource.to_owned(),
            context: BTreeMap::from([("aws:requesttag/team".to_owned(), vec!["a".to_owned()])]),
        }
    }

    #[test]
    fn decisions() {
        let document = Document::from_value(
            &json!({"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Action": ["ecr:Get*", "ecr:CreateRepository"], "Resource": "arn:*:repository/team-a/*",
                 "Condition": {"StringEqualsIfExists": {"aws:RequestTag/team": ["a", "b"]}}},
                {"Effect": "Deny", "NotAction": "ecr:*", "Resource": "*"}]}),
            Kind::Identity,
        )
        .unwrap();
        let decide = |action, resource| document.decide(&request(action, resource));
        assert_eq!(decide("ecr:getRepositoryPolicy", "arn:x:repository/team-a/app"), Decision::Allow);
        assert_eq!(decide("ecr:GetRepositoryPolicy", "arn:x:repository/team-b/app"), Decision::Neutral);
        assert_eq!(decide("sts:AssumeRole", "x"), Decision::Deny);
    }

    #[test]
    fn conditions_hold_as_in_iam() {
        let holds = |condition: Value| {
            let statement = json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition});
            let document = Document::from_value(&json!({"Statement": statement}), Kind::Identity).unwrap();
            document.decide(&request("ecr:X", "y")) == Decision::Allow
        };
        assert!(holds(json!({"StringLike": {"aws:RequestTag/team": "*"}})));
        assert!(holds(json!({"StringNotEquals": {"aws:RequestTag/team": "b"}})));
        assert!(!holds(json!({"StringNotEquals": {"aws:RequestTag/team": ["a", "b"]}})));
        assert!(holds(json!({"Null": {"aws:RequestTag/team": "false", "aws:ResourceTag/x": "true"}})));
        assert!(!holds(json!({"StringEquals": {"aws:ResourceTag/x": "1"}})));
        assert!(holds(json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["x"]}})));
        assert!(!holds(json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})));
    }

    #[test]
    fn malformed_documents() {
        let bad = [
            json!([]),
            json!({"Statement": []}),
            json!({"Version": "2020-01-01", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}),
            json!({"Statement": {"Effect": "allow", "Action": "*", "Resource": "*"}}),
            json!({"Statement": {"Effect": "Allow", "Action": "*"}}),
            json!({"Statement": {"Effect": "Allow", "Action": [], "Resource": "*"}}),
            json!({"Statement": {"Effect": "Allow", "Action": "getit", "Resource": "*"}}),
            json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}}),
            json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Equals": {"a": "b"}}}}),
        ];
        for document in bad {
            assert!(Document::from_value(&document, Kind::Identity).is_err(), "{document}");
        }
    }
}
