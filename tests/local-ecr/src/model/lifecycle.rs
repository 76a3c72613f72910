//! Validation of lifecycle policies as `PutLifecyclePolicy` does it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error::{ApiError, within};

type Object = Map<String, Value>;

/// Checks a policy text and returns it as ECR gives it back: parsed and printed again.
pub(crate) fn check(text: &str) -> Result<String, ApiError> {
    within("lifecyclePolicyText", "length", text.chars().count(), 100, 30_720)?;
    let policy: Value =
        serde_json::from_str(text).map_err(|_| failure("could not map policyString into LifecyclePolicy."))?;
    let policy_object = object(&policy)?;
    only(policy_object, &["rules"])?;
    let rules = policy_object.get("rules").ok_or_else(|| required("rules"))?;
    let rules = rules.as_array().ok_or_else(|| wrong_type("array"))?;
    if rules.is_empty() || rules.len() > 50 {
        return Err(failure("the number of rules must be between 1 and 50"));
    }
    let parsed = rules.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    check_priorities(&parsed)?;
    Ok(policy.to_string())
}

struct Rule {
    priority: u64,
    any: bool,
}

fn check_priorities(rules: &[Rule]) -> Result<(), ApiError> {
    let unique: BTreeSet<u64> = rules.iter().map(|rule| rule.priority).collect();
    if unique.len() != rules.len() {
        return Err(failure("'rulePriority' must be unique"));
    }
    let highest = unique.last().copied();
    if rules.iter().any(|rule| rule.any && Some(rule.priority) != highest) {
        return Err(failure("the rule with tagStatus 'any' must have the highest rulePriority"));
    }
    Ok(())
}

fn rule(value: &Value) -> Result<Rule, ApiError> {
    let rule = object(value)?;
    only(rule, &["rulePriority", "description", "selection", "action"])?;
    let priority = positive(rule, "rulePriority")?;
    if rule.get("description").is_some_and(|description| !description.is_string()) {
        return Err(wrong_type("string"));
    }
    let action = action(rule.get("action").ok_or_else(|| required("action"))?)?;
    let selection = object(rule.get("selection").ok_or_else(|| required("selection"))?)?;
    only(
        selection,
        &["tagStatus", "tagPrefixList", "tagPatternList", "storageClass", "countType", "countUnit", "countNumber"],
    )?;
    let tag_status = tag_status(selection)?;
    let storage_class = optional_text(selection, "storageClass", &["standard", "archive"])?.unwrap_or("standard");
    count(selection, storage_class, &action)?;
    Ok(Rule { priority, any: tag_status == "any" })
}

fn tag_status(selection: &Object) -> Result<&str, ApiError> {
    let status = text(selection, "tagStatus", &["tagged", "untagged", "any"])?;
    let (prefixes, patterns) = (selection.get("tagPrefixList"), selection.get("tagPatternList"));
    match (status, prefixes, patterns) {
        ("tagged", Some(list), None) => list_of_tags(list, false)?,
        ("tagged", None, Some(list)) => list_of_tags(list, true)?,
        ("tagged", ..) => return Err(exactly_one_schema()),
        (_, None, None) => {}
        _ => return Err(failure("tagPrefixList and tagPatternList can only be used with tagStatus 'tagged'")),
    }
    Ok(status)
}

fn list_of_tags(list: &Value, patterns: bool) -> Result<(), ApiError> {
    let list = list.as_array().ok_or_else(|| wrong_type("array"))?;
    if list.is_empty() {
        return Err(failure("array is too short: must have at least 1 elements but instance has 0 elements"));
    }
    for item in list {
        let item = item.as_str().ok_or_else(|| wrong_type("string"))?;
        if item.is_empty() || item.chars().count() > 128 {
            return Err(failure("a tag prefix or pattern must have between 1 and 128 characters"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c) || (patterns && c == '*');
        if !item.chars().all(allowed) {
            return Err(failure(format!("'{item}' is not a valid tag prefix or pattern")));
        }
        if item.matches('*').count() > 4 {
            return Err(failure("a tag pattern can have at most 4 wildcards"));
        }
    }
    Ok(())
}

fn count(selection: &Object, storage_class: &str, action: &str) -> Result<(), ApiError> {
    const TYPES: [&str; 4] = ["imageCountMoreThan", "sinceImagePushed", "sinceImagePulled", "sinceImageTransitioned"];
    let count_type = text(selection, "countType", &TYPES)?;
    let number = positive(selection, "countNumber")?;
    let unit = optional_text(selection, "countUnit", &["days"])?;
    match (count_type, unit) {
        ("imageCountMoreThan", Some(_)) => {
            return Err(failure("countUnit can not be used with countType imageCountMoreThan"));
        }
        ("imageCountMoreThan", None) | (_, Some(_)) => {}
        (_, None) => return Err(required("countUnit")),
    }
    match count_type {
        "sinceImagePulled" if action != "transition" => {
            Err(failure("countType sinceImagePulled can only be used with action transition"))
        }
        "sinceImageTransitioned" if action != "expire" => {
            Err(failure("countType sinceImageTransitioned can only be used with action expire"))
        }
        "sinceImageTransitioned" if storage_class != "archive" => {
            Err(failure("countType sinceImageTransitioned needs storageClass archive"))
        }
        "sinceImageTransitioned" if number < 90 => Err(failure("images in archive must be kept for at least 90 days")),
        "sinceImageTransitioned" => Ok(()),
        _ if storage_class != "standard" => Err(failure(format!("countType {count_type} needs storageClass standard"))),
        _ => Ok(()),
    }
}

fn action(value: &Value) -> Result<String, ApiError> {
    let action = object(value)?;
    let kind = text(action, "type", &["expire", "transition"])?;
    // Both shapes are schemas of their own, so a member too many (also a null) matches neither.
    let matches_one = match kind {
        "expire" => action.len() == 1,
        _ => action.len() == 2 && action.get("targetStorageClass").is_some_and(|class| class == "archive"),
    };
    if matches_one { Ok(kind.to_owned()) } else { Err(exactly_one_schema()) }
}

fn object(value: &Value) -> Result<&Object, ApiError> {
    value.as_object().ok_or_else(|| wrong_type("object"))
}

/// A closed object without nulls.
fn only(object: &Object, allowed: &[&str]) -> Result<(), ApiError> {
    for (key, value) in object {
        if value.is_null() {
            return Err(exactly_one_schema());
        }
        if !allowed.contains(&key.as_str()) {
            return Err(failure(format!(
                "object instance has properties which are not allowed by the schema: [\"{key}\"]"
            )));
        }
    }
    Ok(())
}

fn positive(object: &Object, key: &str) -> Result<u64, ApiError> {
    let value = object.get(key).ok_or_else(|| required(key))?;
    let number = value.as_u64().ok_or_else(|| wrong_type("integer"))?;
    if number == 0 || number > i32::MAX as u64 {
        return Err(failure(format!("numeric instance of {key} is out of range (minimum: 1, found: {number})")));
    }
    Ok(number)
}

fn text<'a>(object: &'a Object, key: &str, allowed: &[&str]) -> Result<&'a str, ApiError> {
    optional_text(object, key, allowed)?.ok_or_else(|| required(key))
}

fn optional_text<'a>(object: &'a Object, key: &str, allowed: &[&str]) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = object.get(key) else { return Ok(None) };
    let value = value.as_str().ok_or_else(|| wrong_type("string"))?;
    if allowed.contains(&value) {
        Ok(Some(value))
    } else {
        Err(failure(format!("instance value (\"{value}\") not found in enum (possible values: {allowed:?})")))
    }
}

fn required(key: &str) -> ApiError {
    failure(format!("object has missing required properties ([\"{key}\"])"))
}

fn wrong_type(expected: &str) -> ApiError {
    failure(format!("instance type does not match any allowed primitive type (allowed: [\"{expected}\"])"))
}

fn exactly_one_schema() -> ApiError {
    failure("instance failed to match exactly one schema (matched 0 out of 2)")
}

fn failure(reason: impl std::fmt::Display) -> ApiError {
    ApiError::parameter("LifecyclePolicyText", format_args!("Lifecycle policy validation failure: {reason}"))
}
