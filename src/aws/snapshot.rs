//! What a registry's repositories are like, by as few calls as there are: pages of a thousand of all there are, or
//! batches of a hundred by name where that is cheaper or listing isn't allowed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::aws::{AwsError, Ecr, Kind, Tagging};
use crate::core::ownership::Tags;
use crate::core::repository::Core;

/// Names in one call (service model, `RepositoryNameList`).
const BATCH: usize = 100;
/// What is denied isn't tried again before: permissions are given by people.
const TRY_AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// Takes snapshots, and remembers which way is cheaper and which ways are denied.
#[derive(Debug, Default)]
pub struct Snapshots {
    registries: Mutex<HashMap<String, Known>>,
}

/// Of one registry.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    /// The pages that the last listing took.
    pages: Option<usize>,
    listing: Leave,
    tagging: Leave,
}

/// Whether a call is allowed, as far as that is known.
#[derive(Debug, Default, Clone, Copy)]
struct Leave {
    denied: Option<Timestamp>,
}

impl Leave {
    fn may_be_given(self, now: Timestamp) -> bool {
        self.denied.is_none_or(|at| now.duration_since(at) >= TRY_AGAIN)
    }

    fn learn<T>(&mut self, answer: &Result<T, AwsError>, now: Timestamp) {
        let is_denied = answer.as_ref().is_err_and(|error| error.kind == Kind::Denied);
        self.denied = is_denied.then_some(now);
    }
}

impl Snapshots {
    /// The repositories among `names` that are there. Absence is a hint: what ECR just created may not be listed yet.
    ///
    /// # Errors
    /// Where ECR can't be asked.
    pub async fn take(
        &self,
        registry: &str,
        ecr: &Ecr,
        names: Vec<String>,
        now: Timestamp,
    ) -> Result<HashMap<String, Core>, AwsError> {
        let known = self.known(registry);
        let batches = names.len().div_ceil(BATCH);
        // Before the first listing, it can't be known that one is cheaper than a single batch.
        let is_cheaper = known.pages.map_or(batches > 1, |pages| pages <= batches);
        if !(is_cheaper && known.listing.may_be_given(now)) {
            return by_names(ecr, names).await;
        }
        let listed = listing(ecr).await;
        self.learn(registry, |known| known.listing.learn(&listed, now));
        match listed {
            Ok((all, pages)) => {
                self.learn(registry, |known| known.pages = Some(pages));
                Ok(all)
            }
            Err(error) if error.kind == Kind::Denied => by_names(ecr, names).await,
            Err(error) => Err(error),
        }
    }

    /// The tags of those repositories that the tagging API knows, by ARN: a hint, see [`Tagging::of`]. None at all where
    /// asking was denied a short while ago.
    ///
    /// # Errors
    /// Where it can't be asked.
    pub async fn tags(
        &self,
        registry: &str,
        tagging: &Tagging,
        arns: &[String],
        now: Timestamp,
    ) -> Result<HashMap<String, Tags>, AwsError> {
        if !self.known(registry).tagging.may_be_given(now) {
            return Ok(HashMap::new());
        }
        let tags = tagging.of(arns).await;
        self.learn(registry, |known| known.tagging.learn(&tags, now));
        tags
    }

    /// Permissions may have been given: what was denied is tried again.
    pub fn try_again(&self, registry: &str) {
        self.learn(registry, |known| (known.listing, known.tagging) = Default::default());
    }

    /// The registry is gone: another of that name may be another.
    pub fn forget(&self, registry: &str) {
        self.registries().remove(registry);
    }

    fn known(&self, registry: &str) -> Known {
        self.registries().get(registry).copied().unwrap_or_default()
    }

    fn learn(&self, registry: &str, what: impl FnOnce(&mut Known)) {
        what(self.registries().entry(registry.to_owned()).or_default());
    }

    fn registries(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.registries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pages may be short or empty: only a missing token ends them.
async fn listing(ecr: &Ecr) -> Result<(HashMap<String, Core>, usize), AwsError> {
    let (mut all, mut token, mut pages) = (HashMap::new(), None, 0);
    loop {
        let (page, next) = ecr.page(token).await?;
        pages += 1;
        all.extend(page);
        match next {
            Some(next) => token = Some(next),
            None => return Ok((all, pages)),
        }
    }
}

/// One name that isn't there fails its whole batch, and ECR says which only in prose: the batch is halved until it is
/// found.
async fn by_names(ecr: &Ecr, names: Vec<String>) -> Result<HashMap<String, Core>, AwsError> {
    let mut all = HashMap::new();
    let mut left: Vec<Vec<String>> = names.chunks(BATCH).map(<[String]>::to_vec).collect();
    while let Some(mut batch) = left.pop() {
        match ecr.describe_all(&batch).await? {
            Some(found) => all.extend(found),
            None if batch.len() == 1 => {}
            None => {
                let rest = batch.split_off(batch.len() / 2);
                left.extend([batch, rest]);
            }
        }
    }
    Ok(all)
}
