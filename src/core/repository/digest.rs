//! What was last brought about, aspect by aspect, in a line of the status: which aspects a change concerns is known
//! without asking AWS, after a restart too.

use std::collections::BTreeMap;

use crate::core::policy::{PolicyDocument, WantedPolicy};
use crate::core::repository::{Desired, Mutability, Wanted};
use crate::core::token::fingerprint;

/// A part of a repository that is declared, read and repaired on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// Mutability, scanning and encryption: what `DescribeRepositories` tells.
    Core,
    /// Tags, the marks of ownership among them.
    Tags,
    /// The lifecycle policy.
    Lifecycle,
    /// The repository policy.
    Policy,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Core, Self::Tags, Self::Lifecycle, Self::Policy];

    fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Tags => "tags",
            Self::Lifecycle => "lifecycle",
            Self::Policy => "policy",
        }
    }
}

/// What follows the fingerprint of an aspect that was brought about, and is known or feared to be otherwise by now.
const DOUBT: char = '?';

/// A fingerprint for each aspect, and one for the object they were declared by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests {
    owner: String,
    aspects: BTreeMap<Aspect, String>,
}

impl Digests {
    /// Of what is declared.
    #[must_use]
    pub fn of(desired: &Desired) -> Self {
        let lifecycle = match &desired.lifecycle {
            Wanted::Untouched => "untouched".to_owned(),
            Wanted::Removed => "removed".to_owned(),
            Wanted::Kept(document) => document.text(),
        };
        let policy = match &desired.policy {
            WantedPolicy::Untouched => "untouched".to_owned(),
            WantedPolicy::Statements { ours, keep_foreign } => {
                format!("{keep_foreign} {:?}", PolicyDocument::of(ours.clone()).map(|document| document.text()))
            }
        };
        let mutability = desired.mutability.as_ref().map(Mutability::describe);
        let encryption = desired.encryption.as_ref().filter(|_| desired.encryption_declared);
        let texts = [
            (Aspect::Core, format!("{mutability:?} {:?} {encryption:?}", desired.scan_on_push)),
            (Aspect::Tags, format!("{:?}", desired.all_tags())),
            (Aspect::Lifecycle, lifecycle),
            (Aspect::Policy, policy),
        ];
        let aspects = texts.into_iter().map(|(aspect, text)| (aspect, fingerprint(&[&text]))).collect();
        Self { owner: owner(desired), aspects }
    }

    /// As the status has it. What isn't of this form, or was written by another version, is no digest.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts: BTreeMap<&str, String> = text
            .split(' ')
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key, value.to_owned()))
            .collect();
        let aspects = Aspect::ALL.into_iter().filter_map(|aspect| Some((aspect, parts.remove(aspect.as_str())?)));
        let aspects = aspects.collect();
        Self { owner: parts.remove("owner").unwrap_or_default(), aspects }
    }

    /// For the status.
    #[must_use]
    pub fn text(&self) -> String {
        let owner = (!self.owner.is_empty()).then(|| format!("owner={}", self.owner));
        let aspects = self.aspects.iter().map(|(aspect, digest)| format!("{}={digest}", aspect.as_str()));
        owner.into_iter().chain(aspects).collect::<Vec<_>>().join(" ")
    }

    /// Whether they were written for this very object: one that was restored from a backup has another UID.
    #[must_use]
    pub fn are_of(&self, desired: &Desired) -> bool {
        self.owner == owner(desired)
    }

    /// The aspects that aren't known to be as in `wanted`.
    #[must_use]
    pub fn stale(&self, wanted: &Self) -> Vec<Aspect> {
        self.unlike(wanted, |digest| digest)
    }

    /// The aspects that never were as in `wanted`. The others were brought about, whatever became of them since.
    #[must_use]
    pub fn never(&self, wanted: &Self) -> Vec<Aspect> {
        self.unlike(wanted, |digest| digest.trim_end_matches(DOUBT))
    }

    fn unlike(&self, wanted: &Self, told: impl Fn(&str) -> &str) -> Vec<Aspect> {
        let of = |digests: &Self, aspect: &Aspect| digests.aspects.get(aspect).map(|digest| told(digest).to_owned());
        let differs = |aspect: &Aspect| self.owner != wanted.owner || of(self, aspect) != of(wanted, aspect);
        Aspect::ALL.into_iter().filter(differs).collect()
    }

    /// These, but for `aspects`: that they are as they were brought about isn't known any more.
    #[must_use]
    pub fn doubting(mut self, aspects: &[Aspect]) -> Self {
        for aspect in aspects {
            self.aspects
                .entry(*aspect)
                .and_modify(|digest| *digest = format!("{}{DOUBT}", digest.trim_end_matches(DOUBT)));
        }
        self
    }

    /// These, with `aspects` as in `wanted`.
    #[must_use]
    pub fn with(mut self, wanted: &Self, aspects: &[Aspect]) -> Self {
        if self.owner != wanted.owner {
            self = Self { owner: wanted.owner.clone(), ..Self::default() };
        }
        for aspect in aspects {
            if let Some(digest) = wanted.aspects.get(aspect) {
                self.aspects.insert(*aspect, digest.clone());
            }
        }
        self
    }
}

fn owner(desired: &Desired) -> String {
    let owner = &desired.owner;
    fingerprint(&[&owner.id, &owner.namespace, &owner.name, &owner.uid])
}
