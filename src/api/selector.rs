//! Which namespaces are meant.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{self, rule};
use super::wire_enum::wire_enum;

/// Selects namespaces. What is given must hold all together; `{}` selects every namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct NamespaceSelector {
    /// Names of namespaces, one of which must fit. `*` stands for any run of characters, as in `team-*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 63), regex(pattern = rules::NAMESPACE_GLOB_PATTERN)))]
    pub match_names: Option<Vec<String>>,
    /// Labels that the namespace must have, with these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::label_selector")]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Conditions on labels, all of which must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20))]
    pub match_expressions: Option<Vec<MatchExpression>>,
}

/// One condition on a label of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : !has(self.values) || self.values.size() == 0",
    "operator In and NotIn need values; Exists and DoesNotExist take none",
)]))]
pub struct MatchExpression {
    /// The label's key.
    #[schemars(length(min = 1, max = 317), extend("x-kubernetes-validations" = [rules::LABEL_KEY]))]
    pub key: String,
    /// In, NotIn: the label's value is, or isn't, one of `values`. Exists, DoesNotExist: the label is there, or isn't.
    pub operator: MatchOperator,
    /// The values for In and NotIn. Left out for Exists and DoesNotExist.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(max = 63), regex(pattern = rules::LABEL_VALUE_PATTERN)))]
    pub values: Option<Vec<String>>,
}

wire_enum! {
    /// How a label is looked at.
    MatchOperator {
        /// Its value is one of the values.
        In = "In",
        /// Its value is none of the values, or the label is absent.
        NotIn = "NotIn",
        /// The label is there.
        Exists = "Exists",
        /// The label is absent.
        DoesNotExist = "DoesNotExist",
    }
}
