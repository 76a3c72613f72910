//! Which namespaces a selector means: names (globs), labels and expressions, all of them together.

use std::collections::BTreeMap;

use crate::api::{MatchExpression, MatchOperator, NamespaceSelector};
use crate::core::glob;

/// What a selector can see of a namespace.
#[derive(Debug, Clone, Copy)]
pub struct NamespaceView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// Whether the selector means this namespace. What is absent in a selector asks for nothing; `{}` means all.
#[must_use]
pub fn selects(selector: &NamespaceSelector, namespace: NamespaceView<'_>) -> bool {
    let by_name =
        selector.match_names.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob::matches(glob, namespace.name)));
    let by_labels = selector.match_labels.iter().flatten().all(|(key, value)| namespace.labels.get(key) == Some(value));
    let by_expressions =
        selector.match_expressions.iter().flatten().all(|expression| holds(expression, namespace.labels));
    by_name && by_labels && by_expressions
}

/// Kubernetes' own meaning: `NotIn` holds where the label is absent.
fn holds(expression: &MatchExpression, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&expression.key);
    let listed = || value.is_some_and(|value| expression.values.iter().flatten().any(|listed| listed == value));
    match expression.operator {
        MatchOperator::In => listed(),
        MatchOperator::NotIn => !listed(),
        MatchOperator::Exists => value.is_some(),
        MatchOperator::DoesNotExist => value.is_none(),
    }
}
