//! The registries as they can be worked with: an `EcrRegistry` with its identity tried and its account known.

use std::sync::Arc;

use kube::Client;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::api::{EcrRegistry, EcrRegistrySpec, SUSPEND};
use crate::aws::{Caller, Ecr, Session, SessionOptions, Tagging};
use crate::cluster::AccessKeys;
use crate::controller::annotations::is_suspended;
use crate::controller::registry_rounds::Rounds;
use crate::controller::registry_sessions::{Sessions, Told, unusable};
use crate::core::names::{AccountId, Region};
use crate::core::reason::{Problem, Reason};

/// A registry that can be worked with.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Of the `EcrRegistry`.
    pub name: String,
    /// Of the `EcrRegistry`.
    pub spec: EcrRegistrySpec,
    /// The account.
    pub account: AccountId,
    /// The Region.
    pub region: Region,
    /// Who manages repositories.
    pub manager: Arc<Session>,
    /// Its ARN.
    pub caller_arn: String,
    /// Why the identity can't be used just now, where that will pass.
    pub held_up: Option<Problem>,
    suspended: bool,
}

impl Registry {
    /// ECR, as whoever manages repositories.
    #[must_use]
    pub fn ecr(&self) -> Ecr {
        self.manager.ecr(&self.account)
    }

    /// The tagging API, as the same.
    #[must_use]
    pub fn tagging(&self) -> Tagging {
        self.manager.tagging(&self.account)
    }

    /// Whether work on repositories goes on; tokens are renewed all the same.
    ///
    /// # Errors
    /// `Suspended`, by annotation.
    pub fn works(&self) -> Result<(), Problem> {
        if !self.suspended {
            return Ok(());
        }
        Err(Problem::new(
            Reason::Suspended,
            format!(
                "EcrRegistry {} is suspended by the annotation {SUSPEND}; nothing is done until it is removed",
                self.name
            ),
        ))
    }
}

/// All of them.
#[derive(Debug)]
pub struct Registries {
    pub(super) store: Store<EcrRegistry>,
    pub(super) sessions: Sessions,
    pub(super) rounds: Rounds,
}

impl Registries {
    /// From the watched `EcrRegistry` objects, and the Secrets and `ServiceAccount`s they name.
    #[must_use]
    pub fn new(
        store: Store<EcrRegistry>,
        keys: AccessKeys,
        client: Client,
        options: SessionOptions,
        allow_endpoint_override: bool,
    ) -> Self {
        Self {
            store,
            sessions: Sessions::new(keys, client, options, allow_endpoint_override),
            rounds: Rounds::default(),
        }
    }

    /// The registry of that name.
    ///
    /// # Errors
    /// Why it can't be worked with just now.
    pub async fn resolve(&self, name: &str) -> Result<Registry, Problem> {
        let object = self.object(name)?;
        let region = parse_region(&object.spec)?;
        let known = self.sessions.get(name, &object.spec, object.spec.identity.as_ref(), &region).await?;
        let Told { caller, failure } = known.caller().await.map_err(|error| unusable(name, &error))?;
        let account = check_account(&object, &caller)?;
        Ok(Registry {
            name: name.to_owned(),
            region,
            account,
            manager: known.session.clone(),
            suspended: is_suspended(&*object),
            caller_arn: caller.arn,
            held_up: failure.map(|error| unusable(name, &error)),
            spec: object.spec.clone(),
        })
    }

    /// The `EcrRegistry` of that name, whether or not it can be worked with.
    ///
    /// # Errors
    /// `RegistryNotFound`.
    pub fn object(&self, name: &str) -> Result<Arc<EcrRegistry>, Problem> {
        self.store.get(&ObjectRef::new(name)).ok_or_else(|| {
            Problem::new(
                Reason::RegistryNotFound,
                format!("EcrRegistry {name} doesn't exist; create it, or name another in registryRef"),
            )
        })
    }
}

pub(super) fn parse_region(spec: &EcrRegistrySpec) -> Result<Region, Problem> {
    Region::parse(&spec.region).map_err(|error| Problem::new(Reason::Invalid, format!("spec.region: {error}")))
}

/// The account is pinned: by the spec, else by what was first found.
pub(super) fn pinned_account(object: &EcrRegistry) -> Option<AccountId> {
    let pinned = object.spec.account_id.as_ref().or_else(|| object.status.as_ref()?.account_id.as_ref())?;
    AccountId::parse(pinned).ok()
}

pub(super) fn check_account(object: &EcrRegistry, caller: &Caller) -> Result<AccountId, Problem> {
    match pinned_account(object) {
        Some(pinned) if pinned != caller.account => Err(Problem::new(
            Reason::AccountMismatch,
            format!(
                "the identity {} is of account {}, this registry is account {pinned}; nothing is read or written until the identity is of that account again (another account needs an EcrRegistry of its own)",
                caller.arn, caller.account
            ),
        )),
        _ => Ok(caller.account.clone()),
    }
}
