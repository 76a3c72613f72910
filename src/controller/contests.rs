//! The contests that are under way over what pull secrets write: their Secrets, and their name in ServiceAccounts.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;

use crate::core::contest::{Contest, Turn};

/// Remembers them, by the pull secret's UID and what it is about.
#[derive(Debug, Default)]
pub struct Contests(Mutex<HashMap<(String, String), Contest>>);

/// A Secret of a pull secret, whether or not it is there.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The pull secret's UID.
    pub owner_uid: &'a str,
    /// The Secret's.
    pub namespace: &'a str,
    /// The Secret's.
    pub name: &'a str,
}

impl Contests {
    /// The account lacks the name: what to do about it.
    pub fn differs(&self, owner_uid: &str, account: &ServiceAccount, now: Timestamp) -> Turn {
        let version = account.metadata.resource_version.as_deref().unwrap_or_default();
        let uid = account.metadata.uid.as_deref().unwrap_or_default();
        self.with(of(owner_uid, account), |contest| contest.differs(version, uid, now))
    }

    /// The name was written into the account.
    pub fn wrote(&self, owner_uid: &str, account: &ServiceAccount, now: Timestamp) {
        let version = account.metadata.resource_version.as_deref().unwrap_or_default();
        self.with(of(owner_uid, account), |contest| contest.wrote(version, now));
    }

    /// The name was written, and admission took it out.
    pub fn was_stripped(&self, owner_uid: &str, account: &ServiceAccount, now: Timestamp) {
        self.with(of(owner_uid, account), |contest| contest.was_stripped(now));
    }

    /// Whether admission took out what was last written.
    pub fn is_stripped(&self, owner_uid: &str, account: &ServiceAccount) -> bool {
        self.with(of(owner_uid, account), |contest| contest.is_stripped())
    }

    /// The account has the name: until when it is watched.
    pub fn is_right(&self, owner_uid: &str, account: &ServiceAccount, now: Timestamp) -> Option<Timestamp> {
        self.with(of(owner_uid, account), |contest| contest.is_right(now))
    }

    /// The Secret isn't `what`: what to do about it.
    pub fn lacks(&self, place: Place<'_>, what: &str, now: Timestamp) -> Turn {
        self.with(place.key(), |contest| contest.lacks(what, &place.key().1, now))
    }

    /// `what` was written, and the Secret became this `version`.
    pub fn brought(&self, place: Place<'_>, what: &str, version: &str, now: Timestamp) {
        self.with(place.key(), |contest| contest.brought(what, version, now));
    }

    /// The Secret is as it should be: until when it is watched.
    pub fn holds(&self, place: Place<'_>, now: Timestamp) -> Option<Timestamp> {
        self.with(place.key(), |contest| contest.is_right(now))
    }

    /// The Secret isn't wanted any more.
    pub fn leave(&self, place: Place<'_>) {
        self.with(place.key(), |contest| *contest = Contest::default());
    }

    /// Forgets a pull secret that is gone.
    pub fn forget(&self, owner_uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(owner, _), _| owner != owner_uid);
    }

    /// What needn't be remembered isn't.
    fn with<T>(&self, key: (String, String), act: impl FnOnce(&mut Contest) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut contest = all.remove(&key).unwrap_or_default();
        let answer = act(&mut contest);
        if !contest.is_over() {
            all.insert(key, contest);
        }
        answer
    }
}

fn of(owner_uid: &str, account: &ServiceAccount) -> (String, String) {
    (owner_uid.to_owned(), account.metadata.uid.clone().unwrap_or_default())
}

impl Place<'_> {
    fn key(&self) -> (String, String) {
        (self.owner_uid.to_owned(), format!("Secret {}/{}", self.namespace, self.name))
    }
}
