//! A repository as tests look at it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::model::policy::ReadBack;
use crate::model::repository::Repository;

/// Everything about one repository, past all permissions, delays and shuffling.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RepositorySnapshot {
    /// Account.
    pub account: String,
    /// Region.
    pub region: String,
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// When it was created, by the model's clock.
    pub created_at: Timestamp,
    /// The repository as `DescribeRepositories` answers it.
    pub description: Value,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// The lifecycle policy.
    pub lifecycle_policy: Option<Value>,
    /// The repository policy as it was set.
    pub policy: Option<Value>,
    /// Images by digest, each with its tags.
    pub images: BTreeMap<String, Vec<String>>,
}

impl RepositorySnapshot {
    pub(crate) fn of(repository: &Repository) -> Self {
        let as_set = ReadBack { shuffle: false, normalise: false };
        let parse = |text: String| serde_json::from_str(&text).unwrap_or_default();
        let images = &repository.images;
        let tags_of = |digest: &str| images.tags_of(digest).map(str::to_owned).collect();
        Self {
            account: repository.account.clone(),
            region: repository.region.clone(),
            name: repository.name.clone(),
            arn: repository.arn(),
            created_at: repository.created_at,
            description: repository.render(),
            tags: repository.tags.clone(),
            lifecycle_policy: repository.lifecycle_policy.clone().map(parse),
            policy: repository.policy.as_ref().map(|policy| parse(policy.render(as_set, "aws", 0))),
            images: images.digests().map(|digest| (digest.to_owned(), tags_of(digest))).collect(),
        }
    }
}
