//! The steps of a plan: each one call to ECR.

use crate::core::lifecycle::LifecycleDocument;
use crate::core::ownership::Tags;
use crate::core::policy::PolicyDocument;
use crate::core::repository::{Aspect, Encryption, Mutability};

/// One call that changes something in ECR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The repository with all its settings and tags.
    Create(Creation),
    /// Our tags on a repository that isn't marked as ours, or no longer: comes before anything else is changed.
    Claim(Tags),
    /// Mutability and its exclusions.
    PutImageTagMutability(Mutability),
    /// Scan on push.
    PutImageScanningConfiguration(bool),
    /// The lifecycle policy, with what changes in words.
    PutLifecyclePolicy {
        /// The policy.
        document: LifecycleDocument,
        /// What changes, rule by rule.
        changes: Vec<String>,
    },
    /// No lifecycle policy.
    DeleteLifecyclePolicy {
        /// The rules that go.
        changes: Vec<String>,
    },
    /// The repository policy, with what changes in words.
    SetRepositoryPolicy {
        /// The policy.
        document: PolicyDocument,
        /// What changes, statement by statement.
        changes: Vec<String>,
    },
    /// No repository policy.
    DeleteRepositoryPolicy {
        /// What goes.
        changes: Vec<String>,
    },
    /// Tags that are new or have another value.
    TagResource(Tags),
    /// Tags of ours that are no longer declared.
    UntagResource(Vec<String>),
}

/// What CreateRepository takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creation {
    /// Absent: ECR's default, MUTABLE.
    pub mutability: Option<Mutability>,
    /// Absent: ECR's default, no.
    pub scan_on_push: Option<bool>,
    /// Absent: ECR's default, AES256.
    pub encryption: Option<Encryption>,
    /// The declared tags and ours.
    pub tags: Tags,
}

impl Step {
    /// The ECR operation, as in AWS's documentation, in IAM and in CloudTrail.
    #[must_use]
    pub fn action(&self) -> &'static str {
        match self {
            Self::Create(_) => "CreateRepository",
            Self::Claim(_) | Self::TagResource(_) => "TagResource",
            Self::PutImageTagMutability(_) => "PutImageTagMutability",
            Self::PutImageScanningConfiguration(_) => "PutImageScanningConfiguration",
            Self::PutLifecyclePolicy { .. } => "PutLifecyclePolicy",
            Self::DeleteLifecyclePolicy { .. } => "DeleteLifecyclePolicy",
            Self::SetRepositoryPolicy { .. } => "SetRepositoryPolicy",
            Self::DeleteRepositoryPolicy { .. } => "DeleteRepositoryPolicy",
            Self::UntagResource(_) => "UntagResource",
        }
    }

    /// What it does, for a person.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Create(creation) => creation.describe(),
            Self::Claim(tags) => format!("mark the repository as owned by this object; set {}", list(tags)),
            Self::PutImageTagMutability(mutability) => format!("set {}", mutability.describe()),
            Self::PutImageScanningConfiguration(on) => format!("set scanOnPush to {on}"),
            Self::PutLifecyclePolicy { changes, .. }
            | Self::DeleteLifecyclePolicy { changes }
            | Self::SetRepositoryPolicy { changes, .. }
            | Self::DeleteRepositoryPolicy { changes } => changes.join("; "),
            Self::TagResource(tags) => format!("set {}", list(tags)),
            Self::UntagResource(keys) => format!("remove {}", keys.join(", ")),
        }
    }

    /// The aspect it is about; a creation is about all but the policies.
    #[must_use]
    pub fn aspect(&self) -> Aspect {
        match self {
            Self::Create(_) | Self::PutImageTagMutability(_) | Self::PutImageScanningConfiguration(_) => Aspect::Core,
            Self::Claim(_) | Self::TagResource(_) | Self::UntagResource(_) => Aspect::Tags,
            Self::PutLifecyclePolicy { .. } | Self::DeleteLifecyclePolicy { .. } => Aspect::Lifecycle,
            Self::SetRepositoryPolicy { .. } | Self::DeleteRepositoryPolicy { .. } => Aspect::Policy,
        }
    }

    /// Whether nothing after it may be tried unless it succeeds.
    #[must_use]
    pub fn is_gate(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Claim(_))
    }
}

impl Creation {
    fn describe(&self) -> String {
        let mutability = self.mutability.as_ref().map(Mutability::describe);
        let scan = self.scan_on_push.map(|on| format!("scanOnPush {on}"));
        let encryption = self.encryption.as_ref().map(Encryption::describe);
        let tags = (!self.tags.is_empty()).then(|| format!("tags {}", list(&self.tags)));
        let settings: Vec<_> = [mutability, scan, encryption, tags].into_iter().flatten().collect();
        format!("create the repository with {}", settings.join(", "))
    }
}

fn list(tags: &Tags) -> String {
    tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}
