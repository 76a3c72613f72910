//! Lifecycle policies as typed rules. Field names and values are ECR's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::wire_enum::wire_enum;

/// A lifecycle policy, as typed rules or as the JSON text that ECR takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LifecyclePolicy {
    /// The rules. An empty list removes the lifecycle policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<LifecycleRule>>,
    /// The policy as the JSON document that ECR takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_text: Option<String>,
}

/// One rule of a lifecycle policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleRule {
    /// The order of evaluation: lower numbers come first, and an image is acted on by one rule at most.
    pub rule_priority: i64,
    /// What the rule is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which images the rule is about.
    pub selection: LifecycleSelection,
    /// What happens to them.
    pub action: LifecycleAction,
}

/// Which images a lifecycle rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleSelection {
    /// Whether tagged images, untagged ones or any are meant.
    pub tag_status: TagStatus,
    /// Patterns of tags, `*` is any run of characters. An image must match all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_pattern_list: Option<Vec<String>>,
    /// Prefixes of tags. An image must match all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_prefix_list: Option<Vec<String>>,
    /// Only images of this storage class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<SelectionStorageClass>,
    /// Whether images are counted, or their age since an event.
    pub count_type: CountType,
    /// The unit of countNumber for the ages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_unit: Option<CountUnit>,
    /// How many images are kept, or how old they get.
    pub count_number: i64,
}

/// What happens to the images of a lifecycle rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleAction {
    /// expire deletes the images; transition moves them to another storage class.
    #[serde(rename = "type")]
    pub type_: ActionType,
    /// Where transition moves them.
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
