//! Lifecycle policies as typed rules. Field names and values are ECR's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{self, rule};
use super::wire_enum::wire_enum;

/// A lifecycle policy, as typed rules or as the JSON text that ECR takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "has(self.rules) != has(self.policyText)",
    "set exactly one of rules and policyText; to remove the lifecycle policy, set rules to []",
)]))]
pub struct LifecyclePolicy {
    /// The rules. An empty list removes the lifecycle policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50), extend("x-kubernetes-validations" = [
        rule(
            "self.all(a, self.exists_one(b, b.rulePriority == a.rulePriority))",
            "each rule needs a rulePriority of its own",
        ),
        rule(
            "!self.exists(a, a.selection.tagStatus == 'any' && self.exists(b, b.selection.tagStatus != 'any' && b.rulePriority > a.rulePriority))",
            "a rule with tagStatus any comes last: give it the highest rulePriority",
        ),
    ]))]
    pub rules: Option<Vec<LifecycleRule>>,
    /// The policy as the JSON document that ECR takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 30_720), extend("x-kubernetes-validations" = [rules::JSON_OBJECT]))]
    pub policy_text: Option<String>,
}

/// One rule of a lifecycle policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "self.selection.countType != 'sinceImagePulled' || self.action.type == 'transition'",
        "countType sinceImagePulled goes with action type transition only; to expire images use sinceImagePushed",
    ),
    rule(
        "self.selection.countType != 'sinceImageTransitioned' || self.action.type == 'expire'",
        "countType sinceImageTransitioned goes with action type expire only",
    ),
]))]
pub struct LifecycleRule {
    /// The order of evaluation: lower numbers come first, and an image is acted on by one rule at most.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub rule_priority: i64,
    /// What the rule is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Which images the rule is about.
    pub selection: LifecycleSelection,
    /// What happens to them.
    pub action: LifecycleAction,
}

/// Which images a lifecycle rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "self.tagStatus == 'tagged' ? has(self.tagPatternList) != has(self.tagPrefixList) : !has(self.tagPatternList) && !has(self.tagPrefixList)",
        "tagStatus tagged needs exactly one of tagPatternList and tagPrefixList; untagged and any take neither (for all tagged images use tagPatternList: ['*'])",
    ),
    rule(
        "(self.countType == 'imageCountMoreThan') != has(self.countUnit)",
        "countUnit: days is needed with sinceImagePushed, sinceImagePulled and sinceImageTransitioned, and must be left out with imageCountMoreThan",
    ),
    rule(
        "self.countType != 'sinceImageTransitioned' || (has(self.storageClass) && self.storageClass == 'archive' && self.countNumber >= 90)",
        "countType sinceImageTransitioned needs storageClass archive and a countNumber of at least 90",
    ),
    rule(
        "self.countType == 'sinceImageTransitioned' || !has(self.storageClass) || self.storageClass == 'standard'",
        "storageClass archive goes with countType sinceImageTransitioned only; leave it out, or set standard",
    ),
]))]
pub struct LifecycleSelection {
    /// Whether tagged images, untagged ones or any are meant: tagged, untagged or any.
    pub tag_status: TagStatus,
    /// Patterns of tags with up to four `*`, each any run of characters. An image must match all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 50),
        inner(length(min = 1, max = 128), regex(pattern = r"^[^*]*(\*[^*]*){0,4}$"))
    )]
    pub tag_pattern_list: Option<Vec<String>>,
    /// Prefixes of tags. An image must match all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 128)))]
    pub tag_prefix_list: Option<Vec<String>>,
    /// Only images of this storage class: archive with sinceImageTransitioned; else standard, the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<SelectionStorageClass>,
    /// Whether images are counted (imageCountMoreThan), or their age since they were pushed (sinceImagePushed), pulled
    /// (sinceImagePulled) or moved to the archive (sinceImageTransitioned).
    pub count_type: CountType,
    /// The unit of countNumber where it is an age: days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_unit: Option<CountUnit>,
    /// How many images are left, or how old they get.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub count_number: i64,
}

/// What happens to the images of a lifecycle rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "(self.type == 'transition') == has(self.targetStorageClass)",
    "action type transition needs targetStorageClass: archive, and expire takes none",
)]))]
pub struct LifecycleAction {
    /// expire deletes the images; transition moves them to another storage class.
    #[serde(rename = "type")]
    pub type_: ActionType,
    /// Where transition moves them: archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_storage_class: Option<TargetStorageClass>,
}

wire_enum! {
    /// Which images, by whether they have tags.
    TagStatus {
        /// Images with a tag.
        Tagged = "tagged",
        /// Images without one.
        Untagged = "untagged",
        /// All images.
        Any = "any",
    }
}

wire_enum! {
    /// What is counted.
    CountType {
        /// Images, newest first.
        ImageCountMoreThan = "imageCountMoreThan",
        /// Days since the push.
        SinceImagePushed = "sinceImagePushed",
        /// Days since the last pull.
        SinceImagePulled = "sinceImagePulled",
        /// Days since the move to the archive.
        SinceImageTransitioned = "sinceImageTransitioned",
    }
}

wire_enum! {
    /// The unit of an age.
    CountUnit {
        /// Days.
        Days = "days",
    }
}

wire_enum! {
    /// A storage class to select by.
    SelectionStorageClass {
        /// The usual one.
        Standard = "standard",
        /// The archive.
        Archive = "archive",
    }
}

wire_enum! {
    /// A storage class to move to.
    TargetStorageClass {
        /// The archive.
        Archive = "archive",
    }
}

wire_enum! {
    /// What a lifecycle rule does.
    ActionType {
        /// Deletes images.
        Expire = "expire",
        /// Moves images to another storage class.
        Transition = "transition",
    }
}
