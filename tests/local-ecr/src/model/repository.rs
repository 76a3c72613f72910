//! One repository: its settings, as they are created and changed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::images::Images;
use super::names::{self, partition};
use super::policy::RepositoryPolicy;
use super::tags::Tags;
use crate::error::{ApiError, within};

const MUTABILITIES: [&str; 4] = ["MUTABLE", "IMMUTABLE", "IMMUTABLE_WITH_EXCLUSION", "MUTABLE_WITH_EXCLUSION"];

#[derive(Debug, Clone)]
pub(crate) struct Repository {
    pub account: String,
    pub region: String,
    pub name: String,
    /// Never the same for two repositories, also of one name: the bytes of a deleted one don't come back.
    pub incarnation: u64,
    pub created_at: Timestamp,
    pub mutability: Mutability,
    pub scan_on_push: bool,
    pub encryption: Encryption,
    pub tags: Tags,
    pub lifecycle_policy: Option<String>,
    pub policy: Option<RepositoryPolicy>,
    pub images: Images,
}

impl Repository {
    pub fn arn(&self) -> String {
        names::repository_arn(&self.account, &self.region, &self.name)
    }

    pub fn render(&self) -> Value {
        let mut rendered = json!({
            "repositoryArn": self.arn(),
            "registryId": self.account,
            "repositoryName": self.name,
            "repositoryUri": format!("{}/{}", names::registry_host(&self.account, &self.region), self.name),
            "createdAt": crate::clock::epoch_seconds(self.created_at),
            "imageTagMutability": self.mutability.mode,
            "imageScanningConfiguration": {"scanOnPush": self.scan_on_push},
            "encryptionConfiguration": self.encryption,
        });
        if !self.mutability.exclusions.is_empty() {
            rendered["imageTagMutabilityExclusionFilters"] = json!(self.mutability.exclusions);
        }
        rendered
    }
}

/// Whether tags may move, with the exceptions.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Mutability {
    pub mode: String,
    pub exclusions: Vec<ExclusionFilter>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExclusionFilter {
    filter_type: Option<String>,
    filter: Option<String>,
}

impl Mutability {
    pub fn parse(mode: Option<String>, filters: Option<Vec<ExclusionFilter>>) -> Result<Self, ApiError> {
        let mode = mode.unwrap_or_else(|| "MUTABLE".to_owned());
        one_of("imageTagMutability", &mode, &MUTABILITIES)?;
        let at = "imageTagMutabilityExclusionFilters";
        let with_exclusion = mode.ends_with("_WITH_EXCLUSION");
        let exclusions = match filters {
            None if with_exclusion => {
                return Err(ApiError::parameter(
                    at,
                    format_args!("filters are required with imageTagMutability {mode}"),
                ));
            }
            None => Vec::new(),
            Some(_) if !with_exclusion => {
                return Err(ApiError::parameter(
                    at,
                    format_args!("filters are not allowed with imageTagMutability {mode}"),
                ));
            }
            Some(filters) => filters,
        };
        if with_exclusion {
            within(at, "length", exclusions.len(), 1, 5)?;
        }
        exclusions.iter().try_for_each(ExclusionFilter::check)?;
        Ok(Self { mode, exclusions })
    }

    /// Whether an existing tag may be moved to another image.
    pub fn tag_may_move(&self, tag: &str) -> bool {
        let excluded = self.exclusions.iter().any(|filter| filter.matches(tag));
        self.mode.starts_with("MUTABLE") != excluded
    }
}

impl ExclusionFilter {
    fn check(&self) -> Result<(), ApiError> {
        let at = "imageTagMutabilityExclusionFilters";
        let kind = self.filter_type.as_deref().ok_or_else(|| ApiError::missing(&format!("{at}.filterType")))?;
        one_of(&format!("{at}.filterType"), kind, &["WILDCARD"])?;
        let filter = self.filter.as_deref().ok_or_else(|| ApiError::missing(&format!("{at}.filter")))?;
        within(&format!("{at}.filter"), "length", filter.chars().count(), 1, 128)?;
        if !filter.chars().all(|c| c.is_ascii_alphanumeric() || "._*-".contains(c)) {
            let pattern = "must satisfy regular expression '^[0-9a-zA-Z._*-]{1,128}$'";
            return Err(ApiError::parameter(&format!("{at}.filter"), pattern));
        }
        if filter.matches('*').count() > 2 {
            return Err(ApiError::parameter(&format!("{at}.filter"), "a filter can have at most 2 wildcards"));
        }
        Ok(())
    }

    fn matches(&self, tag: &str) -> bool {
        self.filter.as_deref().is_some_and(|filter| super::iam::glob(filter, tag))
    }
}

/// Chosen at creation, for good.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Encryption {
    encryption_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms_key: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EncryptionInput {
    encryption_type: Option<String>,
    kms_key: Option<String>,
}

impl Encryption {
    /// Checks the wish and resolves aliases and ids: ECR always answers with the key's ARN.
    pub fn parse(input: Option<EncryptionInput>, account: &str, region: &str) -> Result<Self, ApiError> {
        let Some(input) = input else { return Ok(Self { encryption_type: "AES256".to_owned(), kms_key: None }) };
        let at = "encryptionConfiguration";
        let kind = input.encryption_type.ok_or_else(|| ApiError::missing(&format!("{at}.encryptionType")))?;
        one_of(&format!("{at}.encryptionType"), &kind, &["AES256", "KMS", "KMS_DSSE"])?;
        if let Some(key) = &input.kms_key {
            within(&format!("{at}.kmsKey"), "length", key.chars().count(), 1, 2048)?;
        }
        let kms_key = match (kind.as_str(), input.kms_key) {
            ("AES256", None) => None,
            ("AES256", Some(_)) => {
                return Err(ApiError::parameter(
                    &format!("{at}.kmsKey"),
                    "KMS key is not allowed with encryptionType AES256",
                ));
            }
            (_, key) => Some(key_arn(key.as_deref().unwrap_or("alias/aws/ecr"), account, region)?),
        };
        Ok(Self { encryption_type: kind, kms_key })
    }

    /// The key, unless it is the one that AWS keeps for ECR: that one asks for no permission.
    pub fn own_key(&self, account: &str, region: &str) -> Option<&str> {
        let of_aws = key_arn("alias/aws/ecr", account, region).ok();
        self.kms_key.as_deref().filter(|key| of_aws.as_deref() != Some(*key))
    }
}

/// The ARN of the key that an alias, id or ARN names. Keys aren't modelled: each alias is taken to exist and
/// stands for a key of its own; whoever needs a missing key scripts `KmsException` as a fault.
fn key_arn(key: &str, account: &str, region: &str) -> Result<String, ApiError> {
    let own = format!("arn:{}:kms:{region}:{account}:", partition(region));
    let in_region = format!("arn:{}:kms:{region}:", partition(region));
    if let Some(rest) = key.strip_prefix("arn:") {
        if !key.starts_with(&in_region) {
            let message = format!("Invalid arn {rest}: the key must be in {region}");
            return Err(ApiError::new("KmsException", message).detail("kmsError", "NotFoundException"));
        }
        if let Some((head, alias)) = key.rsplit_once(":alias/") {
            return Ok(format!("{head}:key/{}", key_id(&format!("{head} alias/{alias}"))));
        }
        return Ok(key.to_owned());
    }
    let id = if key.starts_with("alias/") { key_id(&format!("{own} {key}")) } else { key.to_owned() };
    Ok(format!("{own}key/{id}"))
}

/// A UUID-shaped id that belongs to the text.
fn key_id(text: &str) -> String {
    let hex = crate::digest::sha256_hex(text.as_bytes());
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}

pub(crate) fn one_of(at: &str, value: &str, allowed: &[&str]) -> Result<(), ApiError> {
    if allowed.contains(&value) {
        Ok(())
    } else {
        let set = allowed.join(", ");
        Err(ApiError::parameter(at, format_args!("Member must satisfy enum value set: [{set}]")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutability(mode: &str, filters: &[&str]) -> Result<Mutability, ApiError> {
        let filters = filters.iter().map(|filter| ExclusionFilter {
            filter_type: Some("WILDCARD".to_owned()),
            filter: Some((*filter).to_owned()),
        });
        let filters: Vec<_> = filters.collect();
        Mutability::parse(Some(mode.to_owned()), (!filters.is_empty()).then_some(filters))
    }

    #[test]
    fn which_tags_may_move() {
        let immutable = mutability("IMMUTABLE_WITH_EXCLUSION", &["dev-*", "latest"]).unwrap();
        assert!(immutable.tag_may_move("dev-1") && immutable.tag_may_move("latest"));
        assert!(!immutable.tag_may_move("v1"));
        let mutable = mutability("MUTABLE_WITH_EXCLUSION", &["v*"]).unwrap();
        assert!(mutable.tag_may_move("latest") && !mutable.tag_may_move("v1"));
        assert!(!mutability("IMMUTABLE", &[]).unwrap().tag_may_move("v1"));
    }

    #[test]
    fn filters_only_where_they_belong() {
        assert!(mutability("MUTABLE", &["a"]).is_err());
        assert!(mutability("IMMUTABLE_WITH_EXCLUSION", &[]).is_err());
        assert!(mutability("IMMUTABLE_WITH_EXCLUSION", &["a*b*c*"]).is_err());
        assert!(mutability("IMMUTABLE_WITH_EXCLUSION", &["a", "b", "c", "d", "e", "f"]).is_err());
        assert!(mutability("IMMUTABLE_WITH_EXCLUSION", &["a/b"]).is_err());
        assert!(mutability("immutable", &[]).is_err());
    }

    #[test]
    fn kms_keys_become_arns() {
        let key = |key: Option<&str>| {
            let input = EncryptionInput { encryption_type: Some("KMS".to_owned()), kms_key: key.map(str::to_owned) };
            Encryption::parse(Some(input), "123456789012", "eu-west-1").map(|encryption| encryption.kms_key.unwrap())
        };
        let alias = key(Some("alias/images")).unwrap();
        assert!(alias.starts_with("arn:aws:kms:eu-west-1:123456789012:key/"));
        assert_eq!(key(Some("arn:aws:kms:eu-west-1:123456789012:alias/images")).unwrap().len(), alias.len());
        assert_ne!(key(None).unwrap(), alias);
        assert_eq!(key(Some(&alias)).unwrap(), alias);
        assert_eq!(key(Some("arn:aws:kms:us-east-1:123456789012:key/x")).unwrap_err().code, "KmsException");
    }
}
