//! The model: accounts, registries, repositories and tokens as one synchronous state machine. It reads no clock;
//! whoever calls it says what time it is.

pub(crate) mod iam;
pub(crate) mod identity;
pub(crate) mod images;
pub(crate) mod lifecycle;
pub(crate) mod names;
pub(crate) mod policy;
pub(crate) mod repository;
pub(crate) mod scanning;
pub(crate) mod tags;
pub(crate) mod tokens;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::later;
use crate::error::ApiError;
use identity::Identities;
use policy::ReadBack;
use repository::Repository;
use scanning::RegistryScanning;
use tokens::Tokens;

/// AWS's default quota of repositories per account and Region.
const REPOSITORY_QUOTA: usize = 100_000;

/// Everything that the model holds.
#[derive(Debug)]
pub(crate) struct Model {
    pub identities: Identities,
    pub tokens: Tokens,
    pub settings: Settings,
    registries: BTreeMap<(String, String), Registry>,
    incarnations: u64,
    turns: u64,
}

/// What tests choose.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub token_lifetime: Duration,
    pub token_lifetime_of_account: HashMap<String, Duration>,
    /// Tokens stop working when the session that asked for them ends, whatever `expiresAt` says.
    pub tokens_end_with_session: bool,
    /// How long sessions really last, when it isn't what was asked for.
    pub session_lifetime: Option<Duration>,
    /// Characters that a session policy and tags may take when packed.
    pub packed_policy_limit: usize,
    /// For how long a new repository can't be read yet.
    pub consistency_delay: Duration,
    pub read_back: ReadBack,
    pub page_quirks: PageQuirks,
}

/// Legal oddities of paging that clients must bear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PageQuirks {
    /// Pages are at most this long, whatever was asked for.
    pub longest: Option<usize>,
    /// Before each page comes an empty one that has a token.
    pub empty_pages: bool,
}

/// The registry of one account in one Region.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub repositories: BTreeMap<String, Repository>,
    pub scanning: RegistryScanning,
    pub quota: Option<usize>,
}

impl Model {
    pub fn new(region: &str, token_lifetime: Duration) -> Self {
        Self {
            identities: Identities::new(names::partition(region)),
            tokens: Tokens::default(),
            settings: Settings {
                token_lifetime,
                token_lifetime_of_account: HashMap::new(),
                tokens_end_with_session: false,
                session_lifetime: None,
                packed_policy_limit: 2048,
                consistency_delay: Duration::ZERO,
                read_back: ReadBack::default(),
                page_quirks: PageQuirks::default(),
            },
            registries: BTreeMap::new(),
            incarnations: 0,
            turns: 0,
        }
    }

    pub fn registry_mut(&mut self, account: &str, region: &str) -> &mut Registry {
        self.registries.entry((account.to_owned(), region.to_owned())).or_default()
    }

    pub fn registry(&self, account: &str, region: &str) -> Option<&Registry> {
        self.registries.get(&(account.to_owned(), region.to_owned()))
    }

    pub fn registries(&self) -> impl Iterator<Item = &Registry> {
        self.registries.values()
    }

    pub fn repository(&self, account: &str, region: &str, name: &str) -> Option<&Repository> {
        self.registry(account, region)?.repositories.get(name)
    }

    /// A repository that is to be there, or the error that says it isn't.
    pub fn existing(&mut self, account: &str, region: &str, name: &str) -> Result<&mut Repository, ApiError> {
        let key = (account.to_owned(), region.to_owned());
        self.registries
            .get_mut(&key)
            .and_then(|registry| registry.repositories.get_mut(name))
            .ok_or_else(|| repository_not_found(name, account))
    }

    /// Adds a repository unless there is one of that name, or one too many.
    pub fn add(&mut self, mut repository: Repository) -> Result<&Repository, ApiError> {
        self.incarnations += 1;
        repository.incarnation = self.incarnations;
        let registry = self.registry_mut(&repository.account.clone(), &repository.region.clone());
        let name = repository.name.clone();
        let quota = registry.quota.unwrap_or(REPOSITORY_QUOTA);
        if registry.repositories.contains_key(&name) {
            let message = format!(
                "The repository with name '{name}' already exists in the registry with id '{}'",
                repository.account
            );
            return Err(ApiError::new("RepositoryAlreadyExistsException", message));
        }
        if registry.repositories.len() >= quota {
            let message = format!("The maximum number of repositories per registry is {quota}");
            return Err(ApiError::new("LimitExceededException", message));
        }
        Ok(registry.repositories.entry(name).or_insert(repository))
    }

    /// Whether reads see the repository already.
    pub fn is_visible(&self, repository: &Repository, now: Timestamp) -> bool {
        later(repository.created_at, self.settings.consistency_delay) <= now
    }

    pub fn token_lifetime(&self, account: &str) -> Duration {
        self.settings.token_lifetime_of_account.get(account).copied().unwrap_or(self.settings.token_lifetime)
    }

    /// Another number each time, for answers that differ from read to read.
    pub fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }
}

pub(crate) fn repository_not_found(name: &str, account: &str) -> ApiError {
    let message = format!("The repository with name '{name}' does not exist in the registry with id '{account}'");
    ApiError::new("RepositoryNotFoundException", message)
}
