//! Which hosts a pull secret has entries for, and with which token: what is asked for, within what the registry offers
//! and the namespace may have.

use std::collections::BTreeMap;

use crate::api::{HostKind as HostName, RegistryEntry, TokenAccess};
use crate::core::hosts::{HostKind, PUBLIC_HOST, PUBLIC_REGION, RegistryHost};
use crate::core::names::{AccountId, Region};
use crate::core::reason::{Problem, Reason};
use crate::core::scope::Scope;
use crate::core::token::{Service, TokenKey};

/// What a registry has to give: its own account and Region first, then those it adds.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The `EcrRegistry`.
    pub registry: String,
    /// Its account, then `pull.accounts`.
    pub accounts: Vec<AccountId>,
    /// Its Region, then `pull.regions`.
    pub regions: Vec<Region>,
    /// The identity that mints.
    pub identity: String,
    /// Whether its tokens are cut down to what a namespace may do with them.
    pub scoped: bool,
}

/// One entry of `spec.registries` beside what its registry offers, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What is asked for.
    pub asked: &'a RegistryEntry,
    /// What there is.
    pub offer: &'a Offer,
    /// Globs over the repositories that the tokens may be for.
    pub ceiling: &'a [String],
}

/// An entry of the docker config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The key.
    pub host: String,
    /// The token.
    pub token: TokenKey,
}

/// The entries for all requests, by host, with tokens for `access`.
///
/// # Errors
/// `NotAllowed` for an account or Region that the registry doesn't offer, `Invalid` for hosts that don't exist there,
/// `ScopeUnavailable` where repositories are named and the registry doesn't cut its tokens down.
pub fn logins(requests: &[Request<'_>], access: TokenAccess) -> Result<Vec<Login>, Problem> {
    let mut by_host = BTreeMap::new();
    for request in requests {
        for login in of_request(*request, access)? {
            by_host.entry(login.host.clone()).or_insert(login);
        }
    }
    Ok(by_host.into_values().collect())
}

fn of_request(Request { asked, offer, ceiling }: Request<'_>, access: TokenAccess) -> Result<Vec<Login>, Problem> {
    if asked.repositories.is_some() && !offer.scoped {
        return Err(Problem::new(
            Reason::ScopeUnavailable,
            format!(
                "spec.registries: EcrRegistry {} has pull.scopeTokens Never, so its tokens can't be cut down to `repositories`; take these out, or set it to Required",
                offer.registry
            ),
        ));
    }
    let token = |region: &Region, service, scope: &Scope| TokenKey {
        identity: offer.identity.clone(),
        region: region.clone(),
        service,
        scope: if offer.scoped { scope.clone() } else { Scope::Identity },
    };
    if asked.public.is_some() {
        let region = Region::parse(PUBLIC_REGION).map_err(|error| Problem::new(Reason::Invalid, error.to_string()))?;
        return Ok(vec![Login {
            host: PUBLIC_HOST.to_owned(),
            token: token(&region, Service::Public, &Scope::Public),
        }]);
    }
    let accounts =
        narrowed("accounts", asked.accounts.as_deref(), &offer.accounts, &offer.registry, AccountId::as_str)?;
    let regions = narrowed("regions", asked.regions.as_deref(), &offer.regions, &offer.registry, Region::as_str)?;
    let scope = Scope::repositories(access, accounts.clone(), ceiling.to_vec());
    let classic = [HostName::Classic];
    let kinds = asked.hosts.as_deref().unwrap_or(&classic);
    let mut all = Vec::new();
    for region in &regions {
        for (account, kind) in accounts.iter().flat_map(|account| kinds.iter().map(move |kind| (account, *kind))) {
            let host = RegistryHost::new(account.clone(), region.clone(), host_kind(kind)).ok_or_else(|| {
                Problem::new(
                    Reason::Invalid,
                    format!("spec.registries: Region {region} has no {} registry hosts", kind.as_str()),
                )
            })?;
            all.push(Login { host: host.to_string(), token: token(region, Service::Private, &scope) });
        }
    }
    Ok(all)
}

/// What of `offered` is asked for; all of it where nothing is said.
fn narrowed<T: Clone>(
    field: &str,
    asked: Option<&[String]>,
    offered: &[T],
    registry: &str,
    text: impl Fn(&T) -> &str,
) -> Result<Vec<T>, Problem> {
    let Some(asked) = asked else {
        return Ok(offered.to_vec());
    };
    let find = |wanted: &String| {
        offered.iter().find(|item| text(item) == wanted).cloned().ok_or_else(|| {
            let list: Vec<_> = offered.iter().map(&text).collect();
            Problem::new(
                Reason::NotAllowed,
                format!("spec.registries: EcrRegistry {registry} offers {field} {}, not {wanted}; its pull.{field} can add it", list.join(", ")),
            )
        })
    };
    asked.iter().map(find).collect()
}

fn host_kind(name: HostName) -> HostKind {
    match name {
        HostName::Classic => HostKind::Classic,
        HostName::DualStack => HostKind::DualStack,
        HostName::Fips => HostKind::Fips,
    }
}
