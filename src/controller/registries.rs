//! The registries as they can be worked with: an `EcrRegistry` with its identity tried and its account known.

use std::sync::Arc;

use kube::Client;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::api::{EcrRegistry, EcrRegistrySpec, Identity, SUSPEND, ScopeTokens, TokenAccess};
use crate::aws::{Caller, Ecr, Session, SessionOptions, Tagging};
use crate::cluster::AccessKeys;
use crate::controller::annotations::is_suspended;
use crate::controller::registry_rounds::Rounds;
use crate::controller::registry_sessions::{Known, Sessions, Told, unusable};
use crate::core::names::{AccountId, NameError, Region};
use crate::core::pull_secret::Offer;
use crate::core::reason::{Problem, Reason};
use crate::core::token::TokenKey;

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
    sessions: Sessions,
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

    /// What `registry` offers to pull secrets with `access`, and the ARN of whoever mints.
    ///
    /// # Errors
    /// `NotAllowed` where it offers nothing of the kind, and why the identity can't be used.
    pub async fn offer(&self, registry: &Registry, access: TokenAccess) -> Result<(Offer, String), Problem> {
        let pull = registry.spec.pull.clone().unwrap_or_default();
        // Other accounts and Regions are declared for pulling alone.
        let (accounts, regions) = match access {
            TokenAccess::Pull => (pull.accounts, pull.regions),
            TokenAccess::Push => (None, None),
        };
        let invalid =
            |error| Problem::new(Reason::Invalid, format!("EcrRegistry {}: spec.pull: {error}", registry.name));
        let accounts = parsed(accounts, AccountId::parse).map_err(invalid)?;
        let regions = parsed(regions, Region::parse).map_err(invalid)?;
        let (known, told) = self.checked(registry, access).await?;
        let offer = Offer {
            registry: registry.name.clone(),
            accounts: first(registry.account.clone(), accounts),
            regions: first(registry.region.clone(), regions),
            identity: known.id.clone(),
            scoped: is_scoped(&registry.spec, access),
        };
        Ok((offer, told.caller.arn))
    }

    /// The session that mints the token `key`, one of those that `registry` offered for `access`.
    ///
    /// # Errors
    /// Where the identity changed meanwhile.
    pub async fn minter(
        &self,
        registry: &Registry,
        access: TokenAccess,
        key: &TokenKey,
    ) -> Result<Arc<Session>, Problem> {
        let known = self.minting(registry, access, &key.region).await?;
        if known.id != key.identity {
            return Err(Problem::new(
                Reason::Transient,
                format!("EcrRegistry {}: the identity just changed", registry.name),
            ));
        }
        Ok(known.session.clone())
    }

    /// The ARN of whoever mints tokens for `access`; its account is the registry's.
    ///
    /// # Errors
    /// `AccountMismatch` where it isn't, and why it can't be told just now.
    pub async fn caller(&self, registry: &Registry, access: TokenAccess) -> Result<String, Problem> {
        let (_, Told { caller, failure }) = self.checked(registry, access).await?;
        failure.map_or(Ok(caller.arn), |error| Err(unusable(&registry.name, &error)))
    }

    async fn checked(&self, registry: &Registry, access: TokenAccess) -> Result<(Arc<Known>, Told), Problem> {
        let known = self.minting(registry, access, &registry.region).await?;
        let told = known.caller().await.map_err(|error| unusable(&registry.name, &error))?;
        let caller = &told.caller;
        if caller.account == registry.account {
            return Ok((known, told));
        }
        let field = if access == TokenAccess::Push { "push.identity" } else { "pull.identity" };
        Err(Problem::new(
            Reason::AccountMismatch,
            format!(
                "EcrRegistry {}: spec.{field} is {} of account {}, the registry is account {}; no token is issued (for repositories of another account see pull.accounts)",
                registry.name, caller.arn, caller.account, registry.account
            ),
        ))
    }

    async fn minting(&self, registry: &Registry, access: TokenAccess, region: &Region) -> Result<Arc<Known>, Problem> {
        let identity = mints(registry, access)?;
        self.sessions.get(&registry.name, &registry.spec, identity, region).await
    }

    /// The `EcrRegistry` of that name, whether or not it can be worked with.
    ///
    /// # Errors
    /// `RegistryNotFound`.
    pub fn object(&self, name: &str) -> Result<Arc<EcrRegistry>, Problem> {
        self.store.get(&ObjectRef::new(name)).ok_or_else(|| {
            Problem::new(
                Reason::RegistryNotFound,
                format!("EcrRegistry {name} doesn't exist; create it, or name another in spec.registryRef"),
            )
        })
    }
}

/// As whom tokens for `access` are minted. Nobody pushes by default, least of all as whoever manages repositories.
fn mints(registry: &Registry, access: TokenAccess) -> Result<Option<&Identity>, Problem> {
    let spec = &registry.spec;
    match (access, &spec.push) {
        (TokenAccess::Pull, _) => {
            let own = spec.pull.as_ref().and_then(|pull| pull.identity.as_ref());
            Ok(own.or(spec.identity.as_ref()))
        }
        (TokenAccess::Push, Some(push)) => Ok(Some(&push.identity)),
        (TokenAccess::Push, None) => Err(Problem::new(
            Reason::NotAllowed,
            format!(
                "EcrRegistry {} gives nobody push tokens; set its spec.push.identity to a role that may push",
                registry.name
            ),
        )),
    }
}

/// Whether tokens are cut down to what `allow` gives. Whoever may push is always kept to what it may push.
#[must_use]
pub fn is_scoped(spec: &EcrRegistrySpec, access: TokenAccess) -> bool {
    let pull = spec.pull.as_ref().map(|pull| pull.scope_tokens).unwrap_or_default();
    access == TokenAccess::Push || pull == ScopeTokens::Required
}

fn parse_region(spec: &EcrRegistrySpec) -> Result<Region, Problem> {
    Region::parse(&spec.region).map_err(|error| Problem::new(Reason::Invalid, format!("spec.region: {error}")))
}

/// The account is pinned: by the spec, else by what was first found.
fn check_account(object: &EcrRegistry, caller: &Caller) -> Result<AccountId, Problem> {
    let pinned = object.spec.account_id.as_ref().or_else(|| object.status.as_ref()?.account_id.as_ref());
    match pinned {
        Some(pinned) if pinned != caller.account.as_str() => Err(Problem::new(
            Reason::AccountMismatch,
            format!(
                "the identity {} is of account {}, this registry is account {pinned}; nothing is read or written until the identity is of that account again (another account needs an EcrRegistry of its own)",
                caller.arn, caller.account
            ),
        )),
        _ => Ok(caller.account.clone()),
    }
}

fn parsed<T>(listed: Option<Vec<String>>, parse: impl Fn(&str) -> Result<T, NameError>) -> Result<Vec<T>, NameError> {
    listed.into_iter().flatten().map(|text| parse(&text)).collect()
}

fn first<T: PartialEq>(own: T, others: Vec<T>) -> Vec<T> {
    let others = others.into_iter().filter(|other| *other != own).collect::<Vec<_>>();
    std::iter::once(own).chain(others).collect()
}
