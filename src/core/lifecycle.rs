//! Lifecycle policies as documents: written from typed rules, read from AWS, compared by meaning.
//!
//! Limits: "Lifecycle policy properties in Amazon ECR" in the ECR user guide; 100 to 30,720 characters (service model).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::{LifecyclePolicy, LifecycleRule};

/// The longest policy that ECR takes, in characters.
pub const MOST_CHARACTERS: usize = 30_720;
/// The shortest; a shorter one is padded with spaces, which mean nothing in JSON.
const LEAST_CHARACTERS: usize = 100;

/// A lifecycle policy. Two that mean the same are equal, however they are spelled.
#[derive(Debug, Clone)]
pub struct LifecycleDocument {
    text: String,
    /// By priority, each rule in a canonical spelling.
    rules: BTreeMap<i64, Value>,
}

/// Why a text is no lifecycle policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleError {
    /// Not JSON.
    #[error("lifecyclePolicy is not valid JSON: {0}")]
    Json(String),
    /// JSON of another shape.
    #[error("lifecyclePolicy must be an object with a list `rules`, each rule with an integer `rulePriority`")]
    Shape,
    /// Two rules with one priority.
    #[error("lifecyclePolicy has two rules with rulePriority {0}; each needs its own")]
    Duplicate(i64),
    /// Longer than ECR takes.
    #[error("lifecyclePolicy has {0} characters as JSON; ECR takes {MOST_CHARACTERS} at most")]
    TooLong(usize),
}

impl PartialEq for LifecycleDocument {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for LifecycleDocument {}

impl LifecycleDocument {
    /// Reads a document as AWS or a user wrote it, however long.
    ///
    /// # Errors
    /// Where it is no lifecycle policy at all; whether each rule makes sense is for the schema and for ECR to say.
    pub fn parse(text: &str) -> Result<Self, LifecycleError> {
        let value: Value = serde_json::from_str(text).map_err(|error| LifecycleError::Json(error.to_string()))?;
        let listed = value.get("rules").and_then(Value::as_array).ok_or(LifecycleError::Shape)?;
        let mut rules = BTreeMap::new();
        for rule in listed {
            let priority = rule.get("rulePriority").and_then(Value::as_i64).ok_or(LifecycleError::Shape)?;
            if rules.insert(priority, canonical(rule)).is_some() {
                return Err(LifecycleError::Duplicate(priority));
            }
        }
        Ok(Self { text: text.to_owned(), rules })
    }

    /// What a spec declares: `None` stands for "no policy" (an empty list of rules).
    ///
    /// # Errors
    /// See [`LifecycleDocument::parse`]; and [`LifecycleError::TooLong`], with the number.
    pub fn declared(policy: &LifecyclePolicy) -> Result<Option<Self>, LifecycleError> {
        let rules = policy.rules.as_deref().unwrap_or_default();
        let text = match &policy.policy_text {
            Some(text) => text.clone(),
            None if rules.is_empty() => return Ok(None),
            None => json!({ "rules": rules.iter().map(document).collect::<Vec<_>>() }).to_string(),
        };
        let length = text.chars().count();
        if length > MOST_CHARACTERS { Err(LifecycleError::TooLong(length)) } else { Self::parse(&text).map(Some) }
    }

    /// As sent to ECR.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:<LEAST_CHARACTERS$}", self.text)
    }

    /// What changes from `self` to `new`, rule by rule, in words.
    #[must_use]
    pub fn changes(old: Option<&Self>, new: Option<&Self>) -> Vec<String> {
        let none = BTreeMap::new();
        let old = old.map_or(&none, |document| &document.rules);
        let new = new.map_or(&none, |document| &document.rules);
        let added = new
            .iter()
            .filter(|(priority, _)| !old.contains_key(priority))
            .map(|(p, rule)| format!("add rule {p} ({})", describe(rule)));
        let gone = old
            .iter()
            .filter(|(priority, _)| !new.contains_key(priority))
            .map(|(p, rule)| format!("remove rule {p} ({})", describe(rule)));
        let changed = new.iter().filter_map(|(p, rule)| {
            let before = old.get(p).filter(|before| *before != rule)?;
            let (was, is) = (describe(before), describe(rule));
            Some(if was == is { reworded(*p, before, rule) } else { format!("change rule {p} from {was} to {is}") })
        });
        added.chain(gone).chain(changed).collect()
    }
}

/// ECR refuses explicit nulls: only what is there is written.
fn document(rule: &LifecycleRule) -> Value {
    serde_json::to_value(rule).unwrap_or_default()
}

/// A change of what [`describe`] doesn't tell.
fn reworded(priority: i64, before: &Value, rule: &Value) -> String {
    let description = |rule: &Value| rule.get("description").unwrap_or(&Value::from("")).to_string();
    let (was, is) = (description(before), description(rule));
    if was == is {
        return format!("change rule {priority} from {before} to {rule}");
    }
    format!("change the description of rule {priority} from {was} to {is}")
}

/// One spelling for all that mean the same: no nulls, no empty description, no storage class that is selected anyway, lists
/// (whose items are ANDed) sorted.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .filter(|(key, value)| !value.is_null() && !is_default(key, value))
                .map(|(key, value)| (key.clone(), canonical(value)))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(canonical).collect();
            items.sort_by_key(Value::to_string);
            items.dedup();
            Value::Array(items)
        }
        other => other.clone(),
    }
}

fn is_default(key: &str, value: &Value) -> bool {
    matches!((key, value.as_str()), ("description", Some("")) | ("storageClass", Some("standard")))
}

/// `expire untagged, sinceImagePushed 14 days`
fn describe(rule: &Value) -> String {
    let text = |path: &str| match rule.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" and "),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    [
        text("/action/type"),
        text("/action/targetStorageClass"),
        text("/selection/tagStatus"),
        text("/selection/tagPrefixList"),
        text("/selection/tagPatternList"),
        text("/selection/storageClass"),
        text("/selection/countType"),
        text("/selection/countNumber"),
        text("/selection/countUnit"),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}]}"#;

    #[test]
    fn spelling_does_not_matter() {
        let spelled = r#"{ "rules": [ {"action":{"type":"expire"}, "description": "", "rulePriority":1,
            "selection":{"countNumber":14,"countUnit":"days","countType":"sinceImagePushed","tagStatus":"untagged"}} ] }"#;
        assert_eq!(LifecycleDocument::parse(OLD).unwrap(), LifecycleDocument::parse(spelled).unwrap());
        let lists = |a: &str, b: &str| {
            LifecycleDocument::parse(&format!(
                r#"{{"rules":[{{"rulePriority":1,"selection":{{"tagPrefixList":["{a}","{b}"]}}}}]}}"#
            ))
            .unwrap()
        };
        assert_eq!(lists("x", "y"), lists("y", "x"));
        assert_ne!(lists("x", "y"), lists("x", "z"));
    }

    #[test]
    fn order_of_rules_is_their_priority() {
        let rule = |p: u8| format!(r#"{{"rulePriority":{p},"selection":{{"tagStatus":"untagged"}}}}"#);
        let one = format!(r#"{{"rules":[{},{}]}}"#, rule(1), rule(2));
        let other = format!(r#"{{"rules":[{},{}]}}"#, rule(2), rule(1));
        assert_eq!(LifecycleDocument::parse(&one).unwrap(), LifecycleDocument::parse(&other).unwrap());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(matches!(LifecycleDocument::parse("{"), Err(LifecycleError::Json(_))));
        assert_eq!(LifecycleDocument::parse("[]"), Err(LifecycleError::Shape));
        assert_eq!(LifecycleDocument::parse(r#"{"rules":[{}]}"#), Err(LifecycleError::Shape));
        let twice = r#"{"rules":[{"rulePriority":1},{"rulePriority":1}]}"#;
        assert_eq!(LifecycleDocument::parse(twice), Err(LifecycleError::Duplicate(1)));
    }

    #[test]
    fn the_length_counts_where_it_is_declared_and_never_where_it_is_read() {
        let text = |length: usize| format!("{OLD:<length$}");
        let declared = |length: usize| {
            LifecycleDocument::declared(&LifecyclePolicy {
                policy_text: Some(text(length)),
                ..LifecyclePolicy::default()
            })
        };
        assert_eq!(declared(MOST_CHARACTERS).unwrap().unwrap().text().chars().count(), MOST_CHARACTERS);
        assert_eq!(declared(MOST_CHARACTERS + 1), Err(LifecycleError::TooLong(MOST_CHARACTERS + 1)));
        assert!(LifecycleDocument::parse(&text(MOST_CHARACTERS + 1)).is_ok());
    }

    #[test]
    fn a_storage_class_that_is_selected_anyway_is_no_difference() {
        let standard = OLD.replace(r#""countType""#, r#""storageClass":"standard","countType""#);
        assert_eq!(LifecycleDocument::parse(OLD).unwrap(), LifecycleDocument::parse(&standard).unwrap());
        let archive = standard.replace("standard", "archive");
        assert_ne!(LifecycleDocument::parse(OLD).unwrap(), LifecycleDocument::parse(&archive).unwrap());
    }

    #[test]
    fn a_change_of_nothing_but_words_is_told_as_that() {
        let old = LifecycleDocument::parse(OLD).unwrap();
        let new = LifecycleDocument::parse(&OLD.replace(r#""selection""#, r#""description":"old ones","selection""#))
            .unwrap();
        let told = LifecycleDocument::changes(Some(&old), Some(&new));
        assert_eq!(told, [r#"change the description of rule 1 from "" to "old ones""#]);
    }

    #[test]
    fn short_documents_reach_the_least_length() {
        let short = LifecycleDocument::parse(r#"{"rules":[{"rulePriority":1}]}"#).unwrap();
        assert_eq!(short.text().chars().count(), 100);
        assert_eq!(LifecycleDocument::parse(&short.text()).unwrap(), short);
    }

    #[test]
    fn changes_are_told_rule_by_rule() {
        let old = LifecycleDocument::parse(OLD).unwrap();
        let new = LifecycleDocument::parse(&OLD.replace("14", "30")).unwrap();
        assert_eq!(
            LifecycleDocument::changes(Some(&old), Some(&new)),
            ["change rule 1 from expire untagged sinceImagePushed 14 days to expire untagged sinceImagePushed 30 days"]
        );
        assert_eq!(
            LifecycleDocument::changes(None, Some(&old)),
            ["add rule 1 (expire untagged sinceImagePushed 14 days)"]
        );
        assert_eq!(LifecycleDocument::changes(Some(&old), None).len(), 1);
        assert!(LifecycleDocument::changes(Some(&old), Some(&old)).is_empty());
    }
}
