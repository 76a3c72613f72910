//! Which hosts a pull secret has entries for, and with which token: what is asked for, within what the registry offers
//! and the namespace may have.

use std::collections::BTreeMap;

use crate::api::{HostKind as HostName, RegistryEntry, TokenAccess};
use crate::core::hosts::{HostKind, PUBLIC_HOST, PUBLIC_PARTITION, PUBLIC_REGION, Partition, RegistryHost};
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
        if let Some(region) = offer.regions.iter().find(|region| Partition::of(region).id != PUBLIC_PARTITION) {
            return Err(Problem::new(
                Reason::Invalid,
                format!(
                    "spec.registries: ECR Public takes identities of partition {PUBLIC_PARTITION} alone; EcrRegistry {} is in {region}",
                    offer.registry
                ),
            ));
        }
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
    if offer.scoped {
        for region in &regions {
            let fits = scope.session_policy(region);
            fits.map_err(|error| Problem::new(Reason::Invalid, format!("EcrRegistry {}: {error}", offer.registry)))?;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PublicRegistry;

    fn offer(regions: &[&str], scoped: bool) -> Offer {
        Offer {
            registry: "default".into(),
            accounts: ["123456789012", "210987654321"].map(|text| AccountId::parse(text).unwrap()).into(),
            regions: regions.iter().map(|text| Region::parse(text).unwrap()).collect(),
            identity: "me".into(),
            scoped,
        }
    }

    fn of(asked: &RegistryEntry, offer: &Offer, ceiling: &[&str]) -> Result<Vec<Login>, Problem> {
        let ceiling: Vec<_> = ceiling.iter().map(|glob| (*glob).to_owned()).collect();
        logins(&[Request { asked, offer, ceiling: &ceiling }], TokenAccess::Pull)
    }

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn everything_offered_is_the_default_and_hosts_of_one_region_share_a_token() {
        let logins = of(&RegistryEntry::default(), &offer(&["eu-west-1", "us-east-1"], true), &["team-a/*"]).unwrap();
        let hosts: Vec<_> = logins.iter().map(|login| login.host.as_str()).collect();
        let expected = ["123456789012", "210987654321"].map(|account| {
            ["eu-west-1", "us-east-1"].map(|region| format!("{account}.dkr.ecr.{region}.amazonaws.com"))
        });
        assert_eq!(hosts, expected.as_flattened());
        let mut tokens: Vec<_> = logins.iter().map(|login| &login.token).collect();
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), 2);
        assert_eq!(tokens[0].scope.to_string(), "Pull 123456789012,210987654321 team-a/*");
    }

    #[test]
    fn an_entry_narrows_what_is_offered_and_asks_for_nothing_beyond() {
        let offer = offer(&["eu-west-1"], true);
        let entry = RegistryEntry { accounts: Some(list(&["210987654321"])), ..RegistryEntry::default() };
        let logins = of(&entry, &offer, &["*"]).unwrap();
        assert_eq!(logins.len(), 1);
        assert_eq!(logins[0].token.scope.to_string(), "Pull 210987654321 *", "its scope has no other account either");
        for entry in [
            RegistryEntry { accounts: Some(list(&["111111111111"])), ..RegistryEntry::default() },
            RegistryEntry { regions: Some(list(&["us-east-1"])), ..RegistryEntry::default() },
        ] {
            assert_eq!(of(&entry, &offer, &["*"]).unwrap_err().reason, Reason::NotAllowed);
        }
    }

    #[test]
    fn repositories_are_not_named_where_tokens_cannot_be_cut_down() {
        let entry = RegistryEntry { repositories: Some(list(&["team-a/*"])), ..RegistryEntry::default() };
        let refused = of(&entry, &offer(&["eu-west-1"], false), &["*"]).unwrap_err();
        assert_eq!(refused.reason, Reason::ScopeUnavailable);
        let whole = of(&RegistryEntry::default(), &offer(&["eu-west-1"], false), &[]).unwrap();
        assert_eq!(whole[0].token.scope, Scope::Identity);
    }

    #[test]
    fn ecr_public_has_one_host_and_one_region_and_is_not_for_other_partitions() {
        let entry = RegistryEntry { public: Some(PublicRegistry {}), ..RegistryEntry::default() };
        let logins = of(&entry, &offer(&["eu-west-1"], true), &[]).unwrap();
        assert_eq!((logins[0].host.as_str(), logins[0].token.region.as_str()), ("public.ecr.aws", "us-east-1"));
        assert_eq!(logins[0].token.scope, Scope::Public);
        assert_eq!(of(&entry, &offer(&["cn-north-1"], true), &[]).unwrap_err().reason, Reason::Invalid);
    }

    #[test]
    fn a_region_without_such_hosts_says_so() {
        let entry = RegistryEntry { hosts: Some(vec![HostName::DualStack]), ..RegistryEntry::default() };
        let refused = of(&entry, &offer(&["us-iso-east-1"], true), &["*"]).unwrap_err();
        assert!(refused.message.contains("us-iso-east-1"), "{refused}");
    }
}
