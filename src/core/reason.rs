//! The one vocabulary: a condition's reason, an event's reason, a metric's label and a row in docs/reasons.md.

use std::fmt;

/// Why an object is in the state it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Everything is as declared.
    Ready,
    /// Being brought there.
    Progressing,
    /// The spec, or what AWS says of it, is wrong; nothing changes until it does.
    Invalid,
    /// AWS doesn't allow a call.
    Denied,
    /// A token can't be limited to what may be pulled.
    ScopeUnavailable,
    /// No rule of the registry's `allow` gives this namespace the right.
    NotAllowed,
    /// The `EcrRegistry` doesn't exist, or isn't usable yet.
    RegistryNotFound,
    /// The identity belongs to another account than the registry's.
    AccountMismatch,
    /// Somebody else owns it.
    Conflict,
    /// Somebody keeps undoing what the operator does.
    Contested,
    /// The repository exists and adoption wasn't asked for.
    AlreadyExists,
    /// Adoption was asked for and the registry's ceiling forbids it.
    AdoptionDenied,
    /// `mode: Plan`, and there is something to do.
    PlanPending,
    /// Suspended by annotation.
    Suspended,
    /// Waiting to delete a repository that still has images.
    RepositoryNotEmpty,
    /// A quota of the account is used up.
    Quota,
    /// AWS asks to slow down.
    Throttled,
    /// A passing failure; tried again.
    Transient,
    /// Renewal of a token is overdue; the last one still works.
    Stale,
    /// The last token is dead.
    Expired,
    /// The Secret of that name isn't ours to write.
    SecretConflict,
    /// Some namespaces couldn't be served.
    PartiallyFailed,
}

/// What a reason means for the object that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// As declared.
    Converged,
    /// Tried again soon, with backoff.
    Retrying,
    /// A person has to change something; tried again rarely, and at once on any change.
    Stalled,
    /// Held by the user's own word.
    Held,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Ready,
        Self::Progressing,
        Self::Invalid,
        Self::Denied,
        Self::ScopeUnavailable,
        Self::NotAllowed,
        Self::RegistryNotFound,
        Self::AccountMismatch,
        Self::Conflict,
        Self::Contested,
        Self::AlreadyExists,
        Self::AdoptionDenied,
        Self::PlanPending,
        Self::Suspended,
        Self::RepositoryNotEmpty,
        Self::Quota,
        Self::Throttled,
        Self::Transient,
        Self::Stale,
        Self::Expired,
        Self::SecretConflict,
        Self::PartiallyFailed,
    ];

    /// As written in conditions, events and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::Invalid => "Invalid",
            Self::Denied => "Denied",
            Self::ScopeUnavailable => "ScopeUnavailable",
            Self::NotAllowed => "NotAllowed",
            Self::RegistryNotFound => "RegistryNotFound",
            Self::AccountMismatch => "AccountMismatch",
            Self::Conflict => "Conflict",
            Self::Contested => "Contested",
            Self::AlreadyExists => "AlreadyExists",
            Self::AdoptionDenied => "AdoptionDenied",
            Self::PlanPending => "PlanPending",
            Self::Suspended => "Suspended",
            Self::RepositoryNotEmpty => "RepositoryNotEmpty",
            Self::Quota => "Quota",
            Self::Throttled => "Throttled",
            Self::Transient => "Transient",
            Self::Stale => "Stale",
            Self::Expired => "Expired",
            Self::SecretConflict => "SecretConflict",
            Self::PartiallyFailed => "PartiallyFailed",
        }
    }

    /// What it means for the object.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Ready | Self::Stale => Class::Converged,
            Self::Progressing
            | Self::Quota
            | Self::Throttled
            | Self::Transient
            | Self::RepositoryNotEmpty
            | Self::Expired
            | Self::RegistryNotFound
            | Self::PartiallyFailed => Class::Retrying,
            Self::Invalid
            | Self::Denied
            | Self::ScopeUnavailable
            | Self::NotAllowed
            | Self::AccountMismatch
            | Self::Conflict
            | Self::Contested
            | Self::AlreadyExists
            | Self::AdoptionDenied
            | Self::SecretConflict => Class::Stalled,
            Self::PlanPending | Self::Suspended => Class::Held,
        }
    }
}

impl Reason {
    /// Whether what mends it is done in AWS, where nobody sees it happen: a permission, a role that a policy names.
    #[must_use]
    pub fn is_mended_unseen(self) -> bool {
        matches!(self, Self::Denied | Self::Invalid)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that keeps an object, or one part of it, from its declared state: the reason, and for a person what
/// happened and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Problem {
    /// Why.
    pub reason: Reason,
    /// Which object, which call, what to do.
    pub message: String,
}

impl Problem {
    /// A problem.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Several problems told as one: the most lasting reason leads, every message is kept, once.
#[must_use]
pub fn gather(problems: &[Problem]) -> Option<Problem> {
    let weight = |reason: Reason| match reason.class() {
        Class::Stalled => 0,
        Class::Held => 1,
        Class::Retrying => 2,
        Class::Converged => 3,
    };
    let lead = problems.iter().min_by_key(|problem| weight(problem.reason))?;
    let mut messages = vec![lead.message.as_str()];
    for problem in problems {
        if !messages.contains(&problem.message.as_str()) {
            messages.push(&problem.message);
        }
    }
    Some(Problem { reason: lead.reason, message: messages.join("; ") })
}

/// The problem that is tried again first: what passes by itself, then what is mended on AWS's side, unseen. What else
/// keeps an object from its declared state doesn't make that wait.
#[must_use]
pub fn most_urgent(problems: &[Problem]) -> Option<&Problem> {
    problems.iter().min_by_key(|problem| match problem.reason.class() {
        Class::Retrying => 0,
        _ if problem.reason.is_mended_unseen() => 1,
        _ => 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_does_not_wait_for_what_needs_a_person() {
        let problem = |reason| Problem::new(reason, "");
        for (reasons, first) in [
            (vec![Reason::Denied, Reason::Throttled, Reason::Conflict], Reason::Throttled),
            (vec![Reason::NotAllowed, Reason::Denied], Reason::Denied),
            (vec![Reason::PlanPending, Reason::Invalid], Reason::Invalid),
            (vec![Reason::Conflict], Reason::Conflict),
        ] {
            let problems: Vec<_> = reasons.iter().copied().map(problem).collect();
            assert_eq!(most_urgent(&problems).unwrap().reason, first, "{reasons:?}");
        }
        assert_eq!(most_urgent(&[]), None);
    }

    #[test]
    fn the_problem_that_needs_a_person_leads_and_nothing_is_dropped() {
        let all = [
            Problem::new(Reason::Throttled, "slow down"),
            Problem::new(Reason::Denied, "needs ecr:X"),
            Problem::new(Reason::Transient, "again"),
            Problem::new(Reason::Throttled, "slow down"),
        ];
        let told = gather(&all).unwrap();
        assert_eq!(told, Problem::new(Reason::Denied, "needs ecr:X; slow down; again"));
        assert_eq!(gather(&[]), None);
    }

    #[test]
    fn every_reason_has_its_row_in_the_docs() {
        let docs = include_str!("../../docs/reasons.md");
        for reason in Reason::ALL {
            assert!(docs.contains(&format!("| `{reason}` |")), "{reason}");
        }
    }
}
