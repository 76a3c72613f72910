//! What a pull secret asks for, with the registries it names and the rights of its namespaces.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube::ResourceExt;

use crate::api::{RegistryEntry, TokenAccess, WhenNotAllowed};
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::{Labelled, PullSecret};
use crate::controller::registries::Registry;
use crate::core::access::Access;
use crate::core::pull_secret::{Login, Offer, Request, logins};
use crate::core::reason::{Problem, gather};
use crate::core::scope::ceiling;
use crate::core::selector::NamespaceView;
use crate::core::token::{TokenKey, fingerprint};

/// What a pull secret asks for, with the registries it names.
pub(super) struct Desired {
    pub(super) name: String,
    /// By the identity that mints: the registry and its caller.
    pub(super) minters: BTreeMap<String, (Registry, String)>,
    /// Registries that can't be used just now: they hold back no other.
    pub(super) failures: Vec<Problem>,
    /// Namespaces that are to hold the Secret, with what is to be in it.
    pub(super) allowed: BTreeMap<String, Arc<Variant>>,
    /// Namespaces that are selected and have no right to it.
    pub(super) denied: BTreeSet<String>,
    /// Those of the denied that lose what they have.
    cleared: BTreeSet<String>,
}

/// What is to be in a Secret: one and the same wherever the rights are the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) logins: Vec<Login>,
    /// A fingerprint of everything but the tokens.
    pub(super) content: String,
}

impl Desired {
    /// Whoever mints for `login`.
    pub(super) fn caller(&self, login: &Login) -> Option<&str> {
        self.minters.get(&login.token.identity).map(|(_, caller)| caller.as_str())
    }

    /// Whether the namespace keeps what it has, and gets nothing new.
    pub(super) fn is_frozen(&self, namespace: &str) -> bool {
        self.denied.contains(namespace) && !self.cleared.contains(namespace)
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

/// An entry of `spec.registries` with its registry, as it is.
struct Asked {
    entry: RegistryEntry,
    registry: Registry,
    offer: Offer,
}

/// Resolves and parses; registries that can't be used are left out and told.
///
/// # Errors
/// Where nothing of it can be served.
pub(super) async fn desired<K: PullSecret>(object: &K, context: &Context) -> Result<Desired, Problem> {
    object.not_implemented()?;
    let (mut minters, mut asked, mut failures) = (BTreeMap::new(), Vec::new(), Vec::new());
    for entry in object.entries() {
        match offered(entry, context).await {
            Ok((found, caller)) => {
                minters.insert(found.offer.identity.clone(), (found.registry.clone(), caller));
                asked.push(found);
            }
            Err(problem) => failures.push(problem),
        }
    }
    if let Some(problem) = gather(&failures).filter(|_| asked.is_empty()) {
        return Err(problem);
    }
    let name = object.common().secret_name.clone().unwrap_or_else(|| object.name_any());
    let Rights { allowed, denied, cleared } = rights(object, &name, &asked, &object.namespaces(context)?)?;
    Ok(Desired { name, minters, failures, allowed, denied, cleared })
}

async fn offered(entry: RegistryEntry, context: &Context) -> Result<(Asked, String), Problem> {
    let name = entry.registry_ref.clone().unwrap_or_default().name;
    let registry = context.registries.resolve(&name).await?;
    let offer = context.registries.offer(&registry).await?;
    let caller = context.registries.pull_caller(&registry).await?;
    Ok((Asked { entry, registry, offer }, caller))
}

#[derive(Default)]
struct Rights {
    allowed: BTreeMap<String, Arc<Variant>>,
    denied: BTreeSet<String>,
    cleared: BTreeSet<String>,
}

/// The namespaces it means, by whether each of its registries lets them have a token, and for which repositories.
fn rights<K: PullSecret>(object: &K, name: &str, asked: &[Asked], namespaces: &[Labelled]) -> Result<Rights, Problem> {
    let access = object.common().access;
    let (mut rights, mut variants) = (Rights::default(), HashMap::new());
    for (namespace, labels) in namespaces {
        let view = NamespaceView { name: namespace, labels };
        let (ceilings, denying): (Vec<_>, Vec<_>) =
            asked.iter().map(|asked| ceiling_of(asked, access, view)).partition(Result::is_ok);
        if !denying.is_empty() {
            if denying.into_iter().any(|denial| denial == Err(WhenNotAllowed::Remove)) {
                rights.cleared.insert(namespace.clone());
            }
            rights.denied.insert(namespace.clone());
            continue;
        }
        let ceilings: Vec<_> = ceilings.into_iter().flatten().collect();
        let variant = match variants.get(&ceilings) {
            Some(variant) => Arc::clone(variant),
            None => Arc::new(variant(object, name, asked, &ceilings)?),
        };
        variants.insert(ceilings, variant.clone());
        rights.allowed.insert(namespace.clone(), variant);
    }
    Ok(rights)
}

/// What a registry lets a namespace have of what is asked; else what becomes of what the namespace has. Tokens that aren't
/// cut down are the same for all who may have one.
fn ceiling_of(
    Asked { entry, registry, offer }: &Asked,
    access: TokenAccess,
    namespace: NamespaceView<'_>,
) -> Result<Vec<String>, WhenNotAllowed> {
    let given = Access::of(registry.spec.allow.as_deref().unwrap_or_default(), namespace);
    let allowed = if access == TokenAccess::Push { &given.push } else { &given.pull };
    let globs = ceiling(allowed, entry.repositories.as_deref());
    match (globs.is_empty(), offer.scoped && entry.public.is_none()) {
        (true, _) => Err(registry.spec.pull.as_ref().map(|pull| pull.when_not_allowed).unwrap_or_default()),
        (false, true) => Ok(globs),
        (false, false) => Ok(Vec::new()),
    }
}

fn variant<K: PullSecret>(
    object: &K,
    name: &str,
    asked: &[Asked],
    ceilings: &[Vec<String>],
) -> Result<Variant, Problem> {
    let requests = asked.iter().zip(ceilings);
    let requests: Vec<_> =
        requests.map(|(asked, ceiling)| Request { asked: &asked.entry, offer: &asked.offer, ceiling }).collect();
    let spec = object.common();
    let logins = logins(&requests, spec.access)?;
    let template = serde_json::to_string(&spec.secret_template).unwrap_or_default();
    let described = logins.iter().map(|login| {
        let TokenKey { identity, region, scope, .. } = &login.token;
        format!("{} {identity} {region} {scope}", login.host)
    });
    let content = fingerprint(&[name, &described.collect::<Vec<_>>().join(","), &template]);
    Ok(Variant { logins, content })
}
