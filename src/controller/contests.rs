//! The contests over ServiceAccounts that are under way, by pull secret and account.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;

use crate::core::contest::{Contest, Turn};

/// Remembers them.
#[derive(Debug, Default)]
pub struct Contests(Mutex<HashMap<(String, String), Contest>>);

impl Contests {
    /// The account lacks the name: what to do about it.
    pub fn differs(&self, owner_uid: &str, account: &ServiceAccount, now: Timestamp) -> Turn {
        let version = account.metadata.resource_version.as_deref().unwrap_or_default();
        let uid = account.metadata.uid.as_deref().unwrap_or_default();
        self.with(owner_uid, account, |contest| contest.differs(version, uid, now))
    }

    /// The name was written into the account.
    pub fn wrote(&self, owner_uid: &str, account: &ServiceAccount, now: Timestamp) {
        let version = account.metadata.resource_version.as_deref().unwrap_or_default();
        self.with(owner_uid, account, |contest| contest.wrote(version, now));
    }

    /// The name was written, and admission took it out.
    pub fn was_stripped(&self, owner_uid: &str, account: &ServiceAccount, now: Timestamp) {
        self.with(owner_uid, account, |contest| contest.was_stripped(now));
    }

    /// Whether admission took out what was last written.
    pub fn is_stripped(&self, owner_uid: &str, account: &ServiceAccount) -> bool {
        self.with(owner_uid, account, |contest| contest.is_stripped())
    }

    /// The account has the name: until when it is watched.
    pub fn is_right(&self, owner_uid: &str, account: &ServiceAccount, now: Timestamp) -> Option<Timestamp> {
        self.with(owner_uid, account, |contest| contest.is_right(now))
    }

    /// Forgets a pull secret that is gone.
    pub fn forget(&self, owner_uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(owner, _), _| owner != owner_uid);
    }

    /// What needn't be remembered isn't.
    fn with<T>(&self, owner_uid: &str, account: &ServiceAccount, act: impl FnOnce(&mut Contest) -> T) -> T {
        let key = (owner_uid.to_owned(), account.metadata.uid.clone().unwrap_or_default());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut contest = all.remove(&key).unwrap_or_default();
        let answer = act(&mut contest);
        if !contest.is_over() {
            all.insert(key, contest);
        }
        answer
    }
}
