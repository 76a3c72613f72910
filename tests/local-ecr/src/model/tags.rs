//! Rules for the tags of a repository.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{ApiError, within};

/// Tags by key.
pub(crate) type Tags = BTreeMap<String, String>;

/// AWS's limit for one resource.
const MAX_TAGS: usize = 50;

/// A tag on ECR's wire (capitalised there, unlike everything else).
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WireTag {
    key: Option<String>,
    value: Option<String>,
}

/// The tags of a request, checked one by one.
pub(crate) fn parse(at: &str, tags: Vec<WireTag>) -> Result<Tags, ApiError> {
    if tags.len() > MAX_TAGS {
        return Err(too_many());
    }
    let mut parsed = Tags::new();
    for tag in tags {
        let key = tag.key.ok_or_else(|| ApiError::missing(&format!("{at}.key")))?;
        let value = tag.value.ok_or_else(|| ApiError::missing(&format!("{at}.value")))?;
        check_key(at, &key)?;
        within(&format!("{at}.value"), "length", value.chars().count(), 0, 256)?;
        if !value.chars().all(allowed) {
            return Err(invalid(format!("Invalid tag value: {value}")));
        }
        if parsed.insert(key.clone(), value).is_some() {
            return Err(invalid(format!("Duplicate tag key: {key}")));
        }
    }
    Ok(parsed)
}

pub(crate) fn check_key(at: &str, key: &str) -> Result<(), ApiError> {
    within(&format!("{at}.key"), "length", key.chars().count(), 1, 128)?;
    if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
        return Err(invalid("Caller is an end user and not allowed to mutate system tags".to_owned()));
    }
    if !key.chars().all(allowed) {
        return Err(invalid(format!("Invalid tag key: {key}")));
    }
    Ok(())
}

/// Adds tags to those a repository has; the sum counts.
pub(crate) fn merge(existing: &mut Tags, added: Tags) -> Result<(), ApiError> {
    let new = added.keys().filter(|key| !existing.contains_key(*key)).count();
    if existing.len() + new > MAX_TAGS {
        return Err(too_many());
    }
    existing.extend(added);
    Ok(())
}

pub(crate) fn render(tags: &Tags) -> Vec<WireTag> {
    tags.iter().map(|(key, value)| WireTag { key: Some(key.clone()), value: Some(value.clone()) }).collect()
}

fn allowed(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || "+-=._:/@".contains(c)
}

fn invalid(message: String) -> ApiError {
    ApiError::new("InvalidTagParameterException", message)
}

fn too_many() -> ApiError {
    ApiError::new(
        "TooManyTagsException",
        format!("The number of tags for the resource exceeds the limit of {MAX_TAGS}"),
    )
}
