//! What registries give to pull secrets: hosts, and whoever mints the tokens for them.

use std::sync::Arc;

use crate::api::{EcrRegistry, EcrRegistrySpec, Endpoint, Identity, ScopeTokens, TokenAccess};
use crate::aws::Session;
use crate::controller::registries::{Registries, check_account, parse_region, pinned_account};
use crate::controller::registry_sessions::{Known, Told, unusable};
use crate::core::names::{AccountId, NameError, Region};
use crate::core::pull_secret::Offer;
use crate::core::reason::{Problem, Reason};
use crate::core::token::fingerprint;
use crate::core::trust::principal_arn;

/// Whoever mints tokens for a registry, with its account and their own made sure of.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Of the `EcrRegistry`.
    pub registry: String,
    /// Of the `EcrRegistry`.
    pub spec: EcrRegistrySpec,
    /// The registry's, and theirs.
    pub account: AccountId,
    /// Their ARN.
    pub caller: String,
    /// A fingerprint of who they are, with which credentials: the role behind the pod's own may become another one.
    pub identity: String,
    /// Why the identity can't be used just now, where that will pass.
    pub held_up: Option<Problem>,
    access: TokenAccess,
    credentials: String,
}

impl Registries {
    /// Whoever mints tokens with `access` for the registry of that name. Whether its repositories can be managed is no
    /// concern of theirs, unless that would be in another account: then nothing is done for either.
    ///
    /// # Errors
    /// `NotAllowed` where there is nobody who may, `AccountMismatch`, and why the identity can't be used.
    pub async fn issuer(&self, name: &str, access: TokenAccess) -> Result<Issuer, Problem> {
        let object = self.object(name)?;
        let (spec, region) = (&object.spec, parse_region(&object.spec)?);
        let identity = mints(name, spec, access)?;
        let manager = Box::pin(self.who(name, spec, spec.identity.as_ref(), &region));
        let issuer = Box::pin(self.who(name, spec, identity, &region));
        let (manager, issuer) = futures::join!(manager, issuer);
        let found = manager.ok().map(|(_, told)| check_account(&object, &told.caller)).transpose()?;
        let (known, Told { caller, failure }) = issuer?;
        let account = found.or_else(|| pinned_account(&object)).unwrap_or_else(|| caller.account.clone());
        if caller.account != account {
            let field = if access == TokenAccess::Push { "push.identity" } else { "pull.identity" };
            return Err(Problem::new(
                Reason::AccountMismatch,
                format!(
                    "EcrRegistry {name}: spec.{field} is {} of account {}, the registry is account {account}; no token is issued (for repositories of another account see pull.accounts)",
                    caller.arn, caller.account
                ),
            ));
        }
        Ok(Issuer {
            registry: name.to_owned(),
            spec: spec.clone(),
            account,
            identity: fingerprint(&[&known.id, &principal_arn(&caller.arn)]),
            caller: caller.arn,
            credentials: known.id.clone(),
            held_up: failure.map(|error| unusable(name, &error)),
            access,
        })
    }

    async fn who(
        &self,
        name: &str,
        spec: &EcrRegistrySpec,
        identity: Option<&Identity>,
        region: &Region,
    ) -> Result<(Arc<Known>, Told), Problem> {
        let known = self.sessions.get(name, spec, identity, region).await?;
        let told = known.caller().await.map_err(|error| unusable(name, &error))?;
        Ok((known, told))
    }

    /// The session that mints the tokens of `region`, as `issuer`.
    ///
    /// # Errors
    /// Where the identity changed meanwhile.
    pub async fn session(&self, issuer: &Issuer, region: &Region) -> Result<Arc<Session>, Problem> {
        let Issuer { registry, spec, access, credentials, .. } = issuer;
        let identity = mints(registry, spec, *access)?;
        let known = self.sessions.get(registry, spec, identity, region).await?;
        if known.id != *credentials {
            return Err(Problem::new(Reason::Transient, format!("EcrRegistry {registry}: the identity just changed")));
        }
        Ok(known.session.clone())
    }
}

/// What a registry offers to pull secrets with `access`, as far as it is known without its `issuer`: nothing where
/// nobody knows its account yet.
///
/// # Errors
/// `Invalid` where it declares what can't be.
pub fn offer(object: &EcrRegistry, access: TokenAccess, issuer: Option<&Issuer>) -> Result<Option<Offer>, Problem> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let Some(account) = issuer.map(|issuer| issuer.account.clone()).or_else(|| pinned_account(object)) else {
        return Ok(None);
    };
    let pull = object.spec.pull.clone().unwrap_or_default();
    // Other accounts and Regions are declared for pulling alone.
    let (accounts, regions) = match access {
        TokenAccess::Pull => (pull.accounts, pull.regions),
        TokenAccess::Push => (None, None),
    };
    let invalid = |error| Problem::new(Reason::Invalid, format!("EcrRegistry {name}: spec.pull: {error}"));
    let accounts = parsed(accounts, AccountId::parse).map_err(invalid)?;
    let regions = parsed(regions, Region::parse).map_err(invalid)?;
    Ok(Some(Offer {
        accounts: first(account, accounts),
        regions: first(parse_region(&object.spec)?, regions),
        declared: declared(mints(&name, &object.spec, access).ok().flatten(), object.spec.endpoint.as_ref()),
        identity: issuer.map(|issuer| issuer.identity.clone()),
        scoped: is_scoped(&object.spec, access),
        registry: name,
    }))
}

/// As whom tokens for `access` are minted. Nobody pushes by default, least of all as whoever manages repositories.
fn mints<'a>(name: &str, spec: &'a EcrRegistrySpec, access: TokenAccess) -> Result<Option<&'a Identity>, Problem> {
    match (access, &spec.push) {
        (TokenAccess::Pull, _) => {
            let own = spec.pull.as_ref().and_then(|pull| pull.identity.as_ref());
            Ok(own.or(spec.identity.as_ref()))
        }
        (TokenAccess::Push, Some(push)) => Ok(Some(&push.identity)),
        (TokenAccess::Push, None) => Err(Problem::new(
            Reason::NotAllowed,
            format!("EcrRegistry {name} gives nobody push tokens; set its spec.push.identity to a role that may push"),
        )),
    }
}

/// A name for whoever mints, the same for all registries that declare the same.
fn declared(identity: Option<&Identity>, endpoint: Option<&Endpoint>) -> String {
    let mut identity = identity.cloned().unwrap_or_default();
    // The pod's own is the default, also of a role's source.
    identity.ambient = None;
    if let Some(role) = &mut identity.assume_role {
        role.source.get_or_insert_default().ambient = None;
    }
    fingerprint(&[&format!("{identity:?} at {:?}", endpoint.cloned().unwrap_or_default())])
}

/// Whether tokens are cut down to what `allow` gives. Whoever may push is always kept to what it may push.
#[must_use]
pub fn is_scoped(spec: &EcrRegistrySpec, access: TokenAccess) -> bool {
    let pull = spec.pull.as_ref().map(|pull| pull.scope_tokens).unwrap_or_default();
    access == TokenAccess::Push || pull == ScopeTokens::Required
}

fn parsed<T>(listed: Option<Vec<String>>, parse: impl Fn(&str) -> Result<T, NameError>) -> Result<Vec<T>, NameError> {
    listed.into_iter().flatten().map(|text| parse(&text)).collect()
}

fn first<T: PartialEq>(own: T, others: Vec<T>) -> Vec<T> {
    let others = others.into_iter().filter(|other| *other != own).collect::<Vec<_>>();
    std::iter::once(own).chain(others).collect()
}

#[cfg(test)]
#[path = "registry_tokens_tests.rs"]
mod tests;
