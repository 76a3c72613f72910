//! What a test may do to a running local ECR, in process or over `/_local/`.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::calls::Call;
use crate::error::ApiError;
use crate::faults::{Fault, RateLimit};
use crate::model::policy::ReadBack;
use crate::model::{PageQuirks, names};
use crate::ops::{self, Context};
use crate::seed::{self, Seed, SeedError};
use crate::shared::Shared;
use crate::snapshot::RepositorySnapshot;
use crate::{LocalEcr, lock};

/// An error that the model answered to a test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refused {
    /// AWS's error code.
    pub code: String,
    /// AWS's text.
    pub message: String,
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self { code: error.code.into_owned(), message: error.message }
    }
}

impl LocalEcr {
    /// All calls since the start, or since [`Self::clear_calls`], in the order in which they ended; the latest
    /// 200,000 of them.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.all()
    }

    /// The calls of one operation.
    #[must_use]
    pub fn calls_of(&self, operation: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.operation == operation).collect()
    }

    /// How many calls match.
    pub fn count(&self, matches: impl Fn(&Call) -> bool) -> usize {
        self.shared.calls.count(matches)
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.shared.calls.clear();
    }

    /// Waits until at least so many calls match (those already made count), and returns them; after the timeout
    /// whatever there is.
    pub async fn wait_for_calls(
        &self,
        at_least: usize,
        timeout: Duration,
        matches: impl Fn(&Call) -> bool,
    ) -> Vec<Call> {
        self.shared.calls.wait(at_least, timeout, matches).await
    }

    /// Waits for a call that matches; `None` after the timeout.
    pub async fn wait_for_call(&self, timeout: Duration, matches: impl Fn(&Call) -> bool) -> Option<Call> {
        self.wait_for_calls(1, timeout, matches).await.into_iter().next()
    }

    /// The IAM actions that a role's sessions needed permission for so far, granted or not: one operation may need
    /// several, and those of the registry have other names.
    #[must_use]
    pub fn actions_needed_by(&self, role: &str) -> BTreeSet<String> {
        let of_role = format!(":assumed-role/{role}/");
        let needed = lock(&self.shared.model).identities.needed();
        needed.into_iter().filter(|(caller, _)| caller.contains(&of_role)).map(|(_, action)| action).collect()
    }

    /// The time of the model.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Moves the model's clock forward.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
    }

    /// How long tokens issued from now on live.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        lock(&self.shared.model).settings.token_lifetime = lifetime;
    }

    /// The same for one account only.
    pub fn set_token_lifetime_of(&self, account: &str, lifetime: Duration) {
        lock(&self.shared.model).settings.token_lifetime_of_account.insert(account.to_owned(), lifetime);
    }

    /// Whether tokens stop working when the session that asked for them ends, whatever `expiresAt` says. Nobody
    /// documents what AWS does; by default they live on.
    pub fn tokens_end_with_session(&self, end: bool) {
        lock(&self.shared.model).settings.tokens_end_with_session = end;
    }

    /// How long sessions opened from now on last, whatever the caller asks for.
    pub fn set_session_lifetime(&self, lifetime: Option<Duration>) {
        lock(&self.shared.model).settings.session_lifetime = lifetime;
    }

    /// Characters that a packed session policy may have; 2,048 at the start.
    pub fn set_packed_policy_limit(&self, characters: usize) {
        lock(&self.shared.model).settings.packed_policy_limit = characters;
    }

    /// For so long after its creation a repository can't be read.
    pub fn eventual_consistency(&self, after_create: Duration) {
        lock(&self.shared.model).settings.consistency_delay = after_create;
    }

    /// How repository policies are given back.
    pub fn set_read_back(&self, read_back: ReadBack) {
        lock(&self.shared.model).settings.read_back = read_back;
    }

    /// Oddities of paging.
    pub fn set_page_quirks(&self, quirks: PageQuirks) {
        lock(&self.shared.model).settings.page_quirks = quirks;
    }

    /// How many repositories an account may have in a Region.
    pub fn set_repository_quota(&self, account: &str, region: &str, quota: usize) {
        lock(&self.shared.model).registry_mut(account, region).quota = Some(quota);
    }

    /// Adds a fault. Faults stay until they have hit as often as they say, or [`Self::clear_faults`].
    pub fn fault(&self, fault: Fault) {
        lock(&self.shared.faults).add(fault);
    }

    /// Adds a rate limit.
    pub fn rate_limit(&self, limit: RateLimit) {
        lock(&self.shared.faults).limit(limit);
    }

    /// Takes all faults and rate limits away.
    pub fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Closes each connection, old and new, without an answer, until it is up again.
    pub fn down(&self, down: bool) {
        self.shared.down.store(down, Ordering::Relaxed);
    }

    /// Adds accounts, users, roles and repositories.
    ///
    /// # Errors
    /// What AWS would refuse, and policies that can't be read.
    pub fn seed(&self, seed: &Seed) -> Result<(), SeedError> {
        seed_into(&self.shared, seed)
    }

    /// Lets policies name a role or user (by its ARN) that isn't modelled.
    pub fn make_role_known(&self, arn: &str) {
        lock(&self.shared.model).identities.known_elsewhere.insert(arn.to_owned());
    }

    /// Deletes a role: its sessions may do nothing any more.
    pub fn remove_role(&self, account: &str, name: &str) {
        lock(&self.shared.model).identities.account_mut(account).roles.remove(name);
    }

    /// Makes an access key invalid.
    pub fn remove_access_key(&self, access_key: &str) {
        lock(&self.shared.model).identities.remove_key(access_key);
    }

    /// Adds an image that nobody pushed, with these tags, and returns its digest.
    ///
    /// # Errors
    /// `RepositoryNotFoundException`.
    pub fn put_image(&self, account: &str, region: &str, name: &str, tags: &[&str]) -> Result<String, Refused> {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let now = self.now();
        Ok(seed::put_image(&mut lock(&self.shared.model), account, region, name, &tags, now)?)
    }

    /// A repository as it is.
    #[must_use]
    pub fn repository(&self, account: &str, region: &str, name: &str) -> Option<RepositorySnapshot> {
        lock(&self.shared.model).repository(account, region, name).map(RepositorySnapshot::of)
    }

    /// All repositories of all accounts and Regions.
    #[must_use]
    pub fn repositories(&self) -> Vec<RepositorySnapshot> {
        repositories(&self.shared)
    }

    /// Runs an operation of ECR as the account itself, unlogged and without faults: somebody else's hand, out of band.
    ///
    /// # Errors
    /// What AWS answers.
    pub fn behind_the_back(&self, account: &str, region: &str, operation: &str, body: Value) -> Result<Value, Refused> {
        let now = self.now();
        let mut model = lock(&self.shared.model);
        let root = seed::root(&model, account);
        let mut cx = Context { model: &mut model, caller: &root, region, now };
        Ok(ops::ecr(&mut cx, operation, body)?)
    }

    /// The name of a registry's host at AWS.
    #[must_use]
    pub fn registry_host(account: &str, region: &str) -> String {
        names::registry_host(account, region)
    }
}

pub(crate) fn seed_into(shared: &Shared, seed: &Seed) -> Result<(), SeedError> {
    let now = shared.clock.now();
    seed::apply(&mut lock(&shared.model), seed, now)
}

pub(crate) fn repositories(shared: &Shared) -> Vec<RepositorySnapshot> {
    let model = lock(&shared.model);
    model.registries().flat_map(|registry| registry.repositories.values()).map(RepositorySnapshot::of).collect()
}
