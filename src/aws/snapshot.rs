//! What a registry's repositories are like, by as few calls as there are: pages of a thousand of all there are, or
//! batches of a hundred by name where that is cheaper or listing isn't allowed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::aws::{AwsError, Ecr, Kind};
use crate::core::repository::Core;

/// Names in one call (service model, `RepositoryNameList`).
const BATCH: usize = 100;

/// Takes snapshots, and remembers which way is cheaper.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// By registry: the pages that its last listing took, or none where listing isn't allowed.
    pages: Mutex<HashMap<String, Option<usize>>>,
}

impl Snapshots {
    /// The repositories among `names` that are there. Absence is a hint: what ECR just created may not be listed yet.
    ///
    /// # Errors
    /// Where ECR can't be asked.
    pub async fn take(&self, registry: &str, ecr: &Ecr, names: Vec<String>) -> Result<HashMap<String, Core>, AwsError> {
        let batches = names.len().div_ceil(BATCH);
        let known = self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(registry).copied();
        // Before the first listing, it can't be known that one is cheaper than a single batch.
        let by_name = match known {
            None => batches <= 1,
            Some(None) => true,
            Some(Some(pages)) => batches < pages,
        };
        if by_name {
            return by_names(ecr, names).await;
        }
        match listing(ecr).await {
            Ok((all, pages)) => {
                self.remember(registry, Some(pages));
                Ok(all)
            }
            Err(error) if error.kind == Kind::Denied => {
                self.remember(registry, None);
                by_names(ecr, names).await
            }
            Err(error) => Err(error),
        }
    }

    fn remember(&self, registry: &str, pages: Option<usize>) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.to_owned(), pages);
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
