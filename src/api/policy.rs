//! Repository policies: who else may use a repository.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire_enum::wire_enum;

/// Who else may use the repository: grants, IAM statements, or the JSON text that ECR takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryPolicy {
    /// Rights in plain words. An empty list removes what earlier grants gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<Grant>>,
    /// IAM statements as objects, spelled as in IAM. An empty list removes earlier ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statements: Option<Vec<PolicyStatement>>,
    /// The whole policy as a JSON document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_text: Option<String>,
    /// Keep leaves statements alone that others added; Remove takes them away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_statements: Option<ForeignStatements>,
}

/// A right and who gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Pull, Push (which includes pulling), or LambdaPull: AWS Lambda may pull for functions of the accounts or organizations.
    pub access: GrantAccess,
    /// AWS account ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Vec<String>>,
    /// ARNs of IAM roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arns: Option<Vec<String>>,
    /// Ids of AWS organizations, all of whose accounts are meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organizations: Option<Vec<String>>,
    /// Paths of organizational units, all of whose accounts are meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_paths: Option<Vec<String>>,
}

/// An IAM statement, spelled as in IAM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyStatement {
    /// The statement's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Allow or Deny.
    pub effect: Effect,
    /// Whom the statement is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Value>,
    /// Whom the statement is not about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_principal: Option<Value>,
    /// The actions that the statement is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Value>,
    /// The actions that the statement is not about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_action: Option<Value>,
    /// When the statement applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Value>,
}

wire_enum! {
    /// What a grant permits.
    GrantAccess {
        /// To pull images.
        Pull = "Pull",
        /// To push and pull images.
        Push = "Push",
        /// AWS Lambda may pull for functions.
        LambdaPull = "LambdaPull",
    }
}

wire_enum! {
    /// What a statement does.
    Effect {
        /// Permits.
        Allow = "Allow",
        /// Forbids.
        Deny = "Deny",
    }
}

wire_enum! {
    /// What happens to policy statements that others added.
    ForeignStatements {
        /// They stay.
        Keep = "Keep",
        /// They go.
        Remove = "Remove",
    }
}
