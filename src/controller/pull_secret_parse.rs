//! What a pull secret asks for, with the registries it names and the rights of its namespaces.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube::ResourceExt;

use crate::api::{EcrRegistry, RegistryEntry, TokenAccess, WhenNotAllowed};
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::{Labelled, PullSecret};
use crate::controller::registry_tokens::{Issuer, is_scoped, offer};
use crate::core::access::Access;
use crate::core::pull_secret::{Login, Logins, Offer, Request, logins};
use crate::core::reason::{Problem, Reason};
use crate::core::scope::{ScopeError, ceiling};
use crate::core::selector::NamespaceView;
use crate::core::token::{TokenKey, fingerprint};

/// What a pull secret asks for, with the registries it names.
pub(super) struct Desired {
    pub(super) name: String,
    /// By identity.
    pub(super) issuers: BTreeMap<String, Issuer>,
    /// Registries that can't be used just now: they hold back no other, nor what is no longer wanted.
    pub(super) failures: Vec<Problem>,
    /// Namespaces that are to hold the Secret, with what is to be in it.
    pub(super) allowed: BTreeMap<String, Arc<Variant>>,
    /// Namespaces that are selected and have no right to it.
    pub(super) denied: BTreeSet<String>,
    /// Those of the denied that lose what they have.
    cleared: BTreeSet<String>,
    /// Namespaces that have a right to it which can't be put into a token.
    pub(super) refused: BTreeMap<String, Problem>,
    /// Namespaces that keep what they have until any registry can be used.
    pub(super) waiting: BTreeSet<String>,
}

/// What is to be in a Secret: one and the same wherever the rights are the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) logins: Vec<Login>,
    /// Hosts that it is to have entries for as soon as their registry can be used.
    unusable: Vec<String>,
    /// A fingerprint of everything but the tokens.
    pub(super) content: String,
}

impl Variant {
    /// For which there are entries.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.logins.iter().map(|login| login.host.as_str())
    }

    /// For which there are entries or should be.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &str> {
        self.hosts().chain(self.unusable.iter().map(String::as_str))
    }
}

impl Desired {
    /// Whoever mints for `login`.
    pub(super) fn issuer(&self, login: &Login) -> Option<&Issuer> {
        self.issuers.get(&login.token.identity)
    }

    /// Whether the namespace keeps what it has, and gets nothing new.
    pub(super) fn is_frozen(&self, namespace: &str) -> bool {
        self.refused.contains_key(namespace)
            || self.waiting.contains(namespace)
            || (self.denied.contains(namespace) && !self.cleared.contains(namespace))
    }

    /// How many namespaces are to hold the Secret.
    pub(super) fn count(&self) -> usize {
        self.allowed.len() + self.refused.len() + self.waiting.len()
    }

    /// What is to be in Secrets, each once.
    pub(super) fn variants(&self) -> Vec<&Variant> {
        let variants: HashMap<*const Variant, &Variant> =
            self.allowed.values().map(|variant| (Arc::as_ptr(variant), &**variant)).collect();
        variants.into_values().collect()
    }

    /// All entries, by host: with different tokens where the rights are different.
    pub(super) fn by_host(&self) -> BTreeMap<&str, Vec<&Login>> {
        let mut hosts = BTreeMap::<_, Vec<_>>::new();
        for login in self.variants().into_iter().flat_map(|variant| &variant.logins) {
            hosts.entry(login.host.as_str()).or_default().push(login);
        }
        hosts
    }
}

/// An entry of `spec.registries`, and what is known of its registry: its rights are, whether or not AWS can be asked.
struct Asked {
    entry: RegistryEntry,
    /// `None` where there is no such registry.
    declared: Option<Arc<EcrRegistry>>,
    /// `None` where its account isn't known.
    offer: Option<Offer>,
}

impl Asked {
    fn is_usable(&self) -> bool {
        self.offer.as_ref().is_some_and(|offer| offer.identity.is_some())
    }
}

/// Resolves and parses; registries that can't be used are told of.
///
/// # Errors
/// Where it isn't known which namespaces it means.
pub(super) async fn desired<K: PullSecret>(object: &K, context: &Context) -> Result<Desired, Problem> {
    let (mut issuers, mut asked, mut failures) = (BTreeMap::new(), Vec::new(), Vec::new());
    for entry in object.entries() {
        let name = entry.registry_ref.clone().unwrap_or_default().name;
        let declared = context.registries.object(&name).ok();
        let access = object.common().access;
        let issuer = context.registries.issuer(&name, access).await;
        let issuer = issuer.map_err(|problem| failures.push(problem)).ok();
        let offer = declared.as_ref().map(|declared| offer(declared, access, issuer.as_ref())).transpose();
        let offer = offer.map_err(|problem| failures.push(problem)).ok().flatten().flatten();
        issuers.extend(issuer.map(|issuer| (issuer.identity.clone(), issuer)));
        asked.push(Asked { entry, declared, offer });
    }
    let name = object.common().secret_name.clone().unwrap_or_else(|| object.name_any());
    let Rights { allowed, denied, cleared, refused, waiting } =
        rights(object, &name, &asked, &object.namespaces(context)?);
    Ok(Desired { name, issuers, failures, allowed, denied, cleared, refused, waiting })
}

#[derive(Default)]
struct Rights {
    allowed: BTreeMap<String, Arc<Variant>>,
    denied: BTreeSet<String>,
    cleared: BTreeSet<String>,
    refused: BTreeMap<String, Problem>,
    waiting: BTreeSet<String>,
}

/// The namespaces it means, by whether each of its registries lets them have a token, and for which repositories.
fn rights<K: PullSecret>(object: &K, name: &str, asked: &[Asked], namespaces: &[Labelled]) -> Rights {
    let access = object.common().access;
    let (mut rights, mut variants) = (Rights::default(), HashMap::new());
    for (namespace, labels) in namespaces {
        let view = NamespaceView { name: namespace, labels };
        let ceilings = asked.iter().map(|asked| ceiling_of(asked, access, view)).collect::<Result<Vec<_>, _>>();
        let ceilings = match ceilings {
            Ok(ceilings) => ceilings,
            Err(error) => {
                rights.refused.insert(namespace.clone(), Problem::new(Reason::Invalid, error.to_string()));
                continue;
            }
        };
        let denying: Vec<_> = asked.iter().zip(&ceilings).filter(|(_, ceiling)| **ceiling == Ceiling::None).collect();
        if !denying.is_empty() {
            if denying.iter().any(|(asked, _)| asked.removes_what_is_not_allowed()) {
                rights.cleared.insert(namespace.clone());
            }
            rights.denied.insert(namespace.clone());
            continue;
        }
        if !asked.iter().any(Asked::is_usable) {
            rights.waiting.insert(namespace.clone());
            continue;
        }
        let made = variants.entry(ceilings).or_insert_with_key(|ceilings| variant(object, name, asked, ceilings));
        match made {
            Ok(variant) => drop(rights.allowed.insert(namespace.clone(), Arc::clone(variant))),
            Err(problem) => drop(rights.refused.insert(namespace.clone(), problem.clone())),
        }
    }
    rights
}

/// What a registry lets a namespace have of what is asked.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Ceiling {
    None,
    Repositories(Vec<String>),
    /// The same for all who may have one: its tokens aren't cut down.
    Whole,
    /// There is no such registry to say so.
    Unknown,
}

impl Asked {
    fn removes_what_is_not_allowed(&self) -> bool {
        let pull = self.declared.as_ref().and_then(|registry| registry.spec.pull.as_ref());
        pull.is_some_and(|pull| pull.when_not_allowed == WhenNotAllowed::Remove)
    }
}

fn ceiling_of(
    Asked { entry, declared, .. }: &Asked,
    access: TokenAccess,
    namespace: NamespaceView<'_>,
) -> Result<Ceiling, ScopeError> {
    let Some(registry) = declared else { return Ok(Ceiling::Unknown) };
    let given = Access::of(registry.spec.allow.as_deref().unwrap_or_default(), namespace);
    let allowed = match access {
        TokenAccess::Pull => &given.pull,
        TokenAccess::Push if registry.spec.push.is_none() => return Ok(Ceiling::None),
        TokenAccess::Push => &given.push,
    };
    let globs = ceiling(allowed, entry.repositories.as_deref())?;
    Ok(match (globs.is_empty(), is_scoped(&registry.spec, access) && entry.public.is_none()) {
        (true, _) => Ceiling::None,
        (false, true) => Ceiling::Repositories(globs),
        (false, false) => Ceiling::Whole,
    })
}

fn variant<K: PullSecret>(
    object: &K,
    name: &str,
    asked: &[Asked],
    ceilings: &[Ceiling],
) -> Result<Arc<Variant>, Problem> {
    let requests = asked.iter().zip(ceilings).filter_map(|(asked, ceiling)| {
        let ceiling = if let Ceiling::Repositories(globs) = ceiling { globs } else { &[][..] };
        Some(Request { asked: &asked.entry, offer: asked.offer.as_ref()?, ceiling })
    });
    let requests: Vec<_> = requests.collect();
    let spec = object.common();
    let Logins { entries: logins, unusable } = logins(&requests, spec.access)?;
    let template = serde_json::to_string(&spec.secret_template).unwrap_or_default();
    let described = logins.iter().map(|login| {
        let TokenKey { identity, region, scope, .. } = &login.token;
        format!("{} {identity} {region} {scope}", login.host)
    });
    let content = fingerprint(&[name, &described.collect::<Vec<_>>().join(","), &template]);
    Ok(Arc::new(Variant { logins, unusable, content }))
}

#[cfg(test)]
#[path = "pull_secret_parse_tests.rs"]
mod tests;
