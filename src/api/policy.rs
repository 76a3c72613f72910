//! Repository policies: who else may use a repository.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rules::{self, rule};
use super::wire_enum::wire_enum;

/// Who else may use the repository: grants, IAM statements, or the JSON text that ECR takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "has(self.policyText) ? !has(self.grants) && !has(self.statements) : has(self.grants) || has(self.statements)",
    "set grants, statements or both, or else policyText; to remove what grants gave, set grants to []",
)]))]
pub struct RepositoryPolicy {
    /// Rights in plain words. An empty list removes what earlier grants gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50))]
    pub grants: Option<Vec<Grant>>,
    /// IAM statements as objects, spelled as in IAM. An empty list removes earlier ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50))]
    pub statements: Option<Vec<PolicyStatement>>,
    /// The whole policy as a JSON document.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10_240), extend("x-kubernetes-validations" = [rules::JSON_OBJECT]))]
    pub policy_text: Option<String>,
    /// Keep leaves alone what others added, and is the default with grants and statements. Remove takes it away, and is the
    /// default with policyText.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_statements: Option<ForeignStatements>,
}

/// A right and who gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "has(self.accounts) || has(self.roleArns) || has(self.organizations) || has(self.orgPaths)",
        "a grant needs somebody to give it to: accounts, roleArns, organizations or orgPaths",
    ),
    rule(
        "self.access != 'LambdaPull' || (!has(self.roleArns) && !has(self.orgPaths))",
        "access LambdaPull is given to accounts or organizations, not to roleArns or orgPaths",
    ),
]))]
pub struct Grant {
    /// Pull, Push (which includes pulling), or LambdaPull: AWS Lambda may pull for functions of the accounts or organizations.
    pub access: GrantAccess,
    /// AWS account ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(regex(pattern = rules::ACCOUNT_ID_PATTERN)))]
    pub accounts: Option<Vec<String>>,
    /// ARNs of IAM roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(length(max = 640), regex(pattern = rules::ROLE_ARN_PATTERN)), extend("x-kubernetes-validations" = [rules::NO_ROLE_SESSIONS]))]
    pub role_arns: Option<Vec<String>>,
    /// Ids of AWS organizations, as in o-a1b2c3d4e5, all of whose accounts are meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20), inner(regex(pattern = "^o-[a-z0-9]{10,32}$")))]
    pub organizations: Option<Vec<String>>,
    /// Paths of organizational units, as in o-a1b2c3d4e5/r-ab12/ou-ab12-11111111/; with `*` at the end, units below it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 20),
        inner(
            length(max = 512),
            regex(pattern = r"^o-[a-z0-9]{10,32}/r-[a-z0-9]{4,32}/(ou-[a-z0-9]{4,32}-[a-z0-9]{8,32}/)*\*?$")
        )
    )]
    pub org_paths: Option<Vec<String>>,
}

/// An IAM statement, spelled as in IAM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyStatement {
    /// The statement's name. Names that begin with EcrOperator are the operator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("x-kubernetes-validations" = [rule(
        "!self.startsWith('EcrOperator')",
        "Sids that begin with EcrOperator are reserved; choose another",
    )]))]
    pub sid: Option<String>,
    /// Allow or Deny.
    pub effect: Effect,
    /// Whom the statement is about: `"*"`, or an object with AWS, Service or Federated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::any_json")]
    pub principal: Option<Value>,
    /// Whom the statement is not about. Instead of Principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::any_json")]
    pub not_principal: Option<Value>,
    /// The actions that the statement is about: one as a string, or several as a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::any_json")]
    pub action: Option<Value>,
    /// The actions that the statement is not about. Instead of Action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::any_json")]
    pub not_action: Option<Value>,
    /// When the statement applies: operators, keys and values as in IAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::any_json")]
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
