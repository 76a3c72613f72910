//! What ECR holds, as far as it was read.

use jiff::Timestamp;

use crate::core::lifecycle::LifecycleDocument;
use crate::core::ownership::Tags;
use crate::core::policy::PolicyDocument;

/// A repository, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What `DescribeRepositories` tells. Never [`Reading::Absent`]: then nothing was observed at all.
    pub core: Reading<Core>,
    /// All tags, foreign ones included.
    pub tags: Tags,
    /// The lifecycle policy.
    pub lifecycle: Reading<LifecycleDocument>,
    /// The repository policy.
    pub policy: Reading<PolicyDocument>,
}

/// What one call tells of up to a thousand repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// Its ARN.
    pub arn: String,
    /// What images are named by.
    pub uri: String,
    /// The account.
    pub registry_id: String,
    /// When it was created: tells it from another one that has its name.
    pub created_at: Timestamp,
    /// Whether tags can be overwritten.
    pub mutability: Mutability,
    /// Whether images are scanned when pushed (the registry's own settings may decide otherwise).
    pub scan_on_push: bool,
    /// How images are encrypted.
    pub encryption: Encryption,
}

/// Something that costs a call of its own to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading<T> {
    /// Not asked for.
    Unread,
    /// There is none.
    Absent,
    /// This.
    Found(T),
}

impl<T> Reading<T> {
    /// What was found.
    pub fn found(&self) -> Option<&T> {
        match self {
            Self::Found(value) => Some(value),
            Self::Unread | Self::Absent => None,
        }
    }
}

/// The mutability of tags with its exclusions: one aspect. Kept as AWS spells it, so that a mode newer than this version
/// is a difference and not a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutability {
    /// `MUTABLE`, `IMMUTABLE`, …
    pub mode: String,
    /// Wildcards for the tags that are excluded from it, sorted.
    filters: Vec<String>,
}

impl Mutability {
    /// The order of `filters` means nothing.
    pub fn new(mode: impl Into<String>, mut filters: Vec<String>) -> Self {
        filters.sort();
        Self { mode: mode.into(), filters }
    }

    /// Wildcards for the tags that are excluded from it.
    #[must_use]
    pub fn filters(&self) -> &[String] {
        &self.filters
    }

    /// `IMMUTABLE_WITH_EXCLUSION (except dev-*)`
    #[must_use]
    pub fn describe(&self) -> String {
        if self.filters.is_empty() {
            return self.mode.clone();
        }
        format!("{} (except {})", self.mode, self.filters.join(", "))
    }
}

/// How images are encrypted. It can't be changed after creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// `AES256`, `KMS`, `KMS_DSSE`, or a name this version doesn't know.
    pub kind: String,
    /// The key's ARN as ECR tells it, or what the spec says: an ARN, an id or an alias.
    pub key: Option<String>,
}

impl Encryption {
    /// Whether `self`, as declared, is not what `there` is. A key is compared only where both are ARNs or the id can be
    /// seen in the ARN: which key an alias means, only KMS knows.
    #[must_use]
    pub fn differs(&self, there: &Self) -> bool {
        if self.kind != there.kind {
            return true;
        }
        let (Some(declared), Some(actual)) = (&self.key, &there.key) else {
            return false;
        };
        let is_alias = declared.starts_with("alias/") || declared.contains(":alias/");
        let is_arn = declared.starts_with("arn:");
        let same = if is_arn { declared == actual } else { actual.ends_with(&format!(":key/{declared}")) };
        !is_alias && !same
    }

    /// `KMS (alias/images)`
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.key {
            Some(key) => format!("{} ({key})", self.kind),
            None => self.kind.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kms(key: &str) -> Encryption {
        Encryption { kind: "KMS".into(), key: Some(key.into()) }
    }

    #[test]
    fn an_alias_is_never_compared_and_an_id_is_found_in_the_arn() {
        let there = kms("arn:aws:kms:eu-west-1:123456789012:key/1234abcd");
        for same in [
            "alias/images",
            "arn:aws:kms:eu-west-1:123456789012:alias/images",
            "1234abcd",
            "arn:aws:kms:eu-west-1:123456789012:key/1234abcd",
        ] {
            assert!(!kms(same).differs(&there), "{same}");
        }
        for other in ["ffff", "arn:aws:kms:eu-west-1:123456789012:key/ffff"] {
            assert!(kms(other).differs(&there), "{other}");
        }
        assert!(Encryption { kind: "AES256".into(), key: None }.differs(&there));
        assert!(!Encryption { kind: "KMS".into(), key: None }.differs(&there), "no key declared: AWS's own is as good");
    }
}
