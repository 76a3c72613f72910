//! Which hosts a pull secret has entries for, and with which token: what is asked for, within what the registry offers
//! and the namespace may have.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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
    /// The identity that mints, as it is declared.
    pub declared: String,
    /// The same as it turned out to be; `None` where it can't be used just now.
    pub identity: Option<String>,
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

/// What a docker config is to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logins {
    /// The entries, by host.
    pub entries: Vec<Login>,
    /// Hosts that are asked for and whose registry can't be used just now.
    pub unusable: Vec<String>,
}

/// A host, and the token that is asked for there.
struct Claim<'a> {
    host: String,
    region: Region,
    service: Service,
    scope: Scope,
    offer: &'a Offer,
}

impl Claim<'_> {
    /// Whether the token of either is as good as the other's.
    fn agrees(&self, other: &Self) -> bool {
        self.offer.declared == other.offer.declared && self.scope == other.scope
    }

    fn contradicts(&self, other: &Self) -> Problem {
        let (host, [one, another]) = (&self.host, [self, other].map(|claim| &claim.offer.registry));
        let message = if one == another {
            format!(
                "spec.registries: two entries ask EcrRegistry {one} for tokens with different rights for {host}, and a Secret holds one token a host: put them into one entry"
            )
        } else {
            format!(
                "spec.registries: EcrRegistry {one} and EcrRegistry {another} have different tokens for {host} (other identities, or other rights by their `allow`), and a Secret holds one token a host: narrow one of the entries by accounts, regions or hosts, or name them in two pull secrets"
            )
        };
        Problem::new(Reason::Invalid, message)
    }

    fn login(self) -> Result<Login, String> {
        let Self { host, region, service, scope, offer } = self;
        match offer.identity.clone() {
            Some(identity) => Ok(Login { host, token: TokenKey { identity, region, service, scope } }),
            None => Err(host),
        }
    }
}

/// The entries for all requests, with tokens for `access`. What contradicts does so whether or not its registry can be
/// used just now: a host's token is never another one because of that.
///
/// # Errors
/// `NotAllowed` for an account or Region that the registry doesn't offer, `Invalid` for hosts that don't exist there or
/// that two requests want different tokens for, `ScopeUnavailable` where repositories are named and the registry doesn't
/// cut its tokens down.
pub fn logins(requests: &[Request<'_>], access: TokenAccess) -> Result<Logins, Problem> {
    let mut by_host = BTreeMap::<_, Claim<'_>>::new();
    for request in requests {
        for claim in of_request(*request, access)? {
            match by_host.entry(claim.host.clone()) {
                Entry::Vacant(free) => drop(free.insert(claim)),
                Entry::Occupied(mut taken) if taken.get().agrees(&claim) => {
                    if taken.get().offer.identity.is_none() {
                        taken.insert(claim);
                    }
                }
                Entry::Occupied(taken) => return Err(taken.get().contradicts(&claim)),
            }
        }
    }
    let mut logins = Logins::default();
    for claim in by_host.into_values() {
        match claim.login() {
            Ok(login) => logins.entries.push(login),
            Err(host) => logins.unusable.push(host),
        }
    }
    Ok(logins)
}

fn of_request(Request { asked, offer, ceiling }: Request<'_>, access: TokenAccess) -> Result<Vec<Claim<'_>>, Problem> {
    if asked.repositories.is_some() && !offer.scoped {
        return Err(Problem::new(
            Reason::ScopeUnavailable,
            format!(
                "spec.registries: EcrRegistry {} has pull.scopeTokens Never, so its tokens can't be cut down to `repositories`; take these out, or set it to Required",
                offer.registry
            ),
        ));
    }
    let claim = |host: String, region: &Region, service, scope: &Scope| Claim {
        host,
        region: region.clone(),
        service,
        scope: if offer.scoped { scope.clone() } else { Scope::Identity },
        offer,
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
        return Ok(vec![claim(PUBLIC_HOST.to_owned(), &region, Service::Public, &Scope::Public)]);
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
            all.push(claim(host.to_string(), region, Service::Private, &scope));
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
            declared: "me".into(),
            identity: Some("me".into()),
            scoped,
        }
    }

    fn of(asked: &RegistryEntry, offer: &Offer, ceiling: &[&str]) -> Result<Vec<Login>, Problem> {
        let ceiling: Vec<_> = ceiling.iter().map(|glob| (*glob).to_owned()).collect();
        Ok(logins(&[Request { asked, offer, ceiling: &ceiling }], TokenAccess::Pull)?.entries)
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
    fn two_requests_for_one_host_mean_one_token_or_contradict_whether_or_not_they_can_be_used() {
        let of = |registry: &str, declared: &str, is_usable: bool| Offer {
            registry: registry.into(),
            declared: declared.into(),
            identity: is_usable.then(|| declared.into()),
            ..offer(&["eu-west-1"], true)
        };
        let (entry, globs) = (RegistryEntry::default(), list(&["shared/*"]));
        let both = |one: &Offer, another: &Offer, ceiling: &[String]| {
            let requests = [
                Request { asked: &entry, offer: one, ceiling: &globs },
                Request { asked: &entry, offer: another, ceiling },
            ];
            logins(&requests, TokenAccess::Pull)
        };
        let (a, b) = (of("a", "x", true), of("b", "y", true));
        let alike = both(&a, &of("b", "x", true), &globs).unwrap();
        assert_eq!((alike.entries.len(), alike.unusable.len()), (2, 0));
        let (unusable, twin) = (of("a", "x", false), of("b", "x", true));
        for (one, another) in [(&unusable, &twin), (&twin, &unusable)] {
            assert_eq!(both(one, another, &globs).unwrap(), alike, "the token of either is as good");
        }
        for (one, another, ceiling) in [
            (&a, &b, &globs),
            (&a, &of("b", "x", true), &list(&["team-a/*"])),
            (&of("a", "x", false), &b, &globs),
            (&a, &of("b", "y", false), &globs),
        ] {
            let Problem { reason, message } = both(one, another, ceiling).unwrap_err();
            assert_eq!(reason, Reason::Invalid);
            for named in ["EcrRegistry a", "EcrRegistry b", "123456789012.dkr.ecr.eu-west-1.amazonaws.com"] {
                assert!(message.contains(named), "{message}");
            }
        }
        let twice = both(&a, &a, &list(&["team-a/*"])).unwrap_err();
        assert!(twice.message.contains("two entries ask EcrRegistry a"), "{twice}");
        let waiting = both(&of("a", "x", false), &of("a", "x", false), &globs).unwrap();
        assert_eq!((waiting.entries.len(), waiting.unusable.len()), (0, 2));
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
