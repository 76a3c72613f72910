//! What a pull secret asks for, with the registries it names and the rights of its namespaces.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use crate::api::{RegistryEntry, TokenAccess, WhenNotAllowed};
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::registries::Registry;
use crate::core::access::Access;
use crate::core::pull_secret::{Login, Offer, Request, logins};
use crate::core::reason::{Problem, gather};
use crate::core::selector::NamespaceView;
use crate::core::token::{TokenKey, fingerprint};

/// What a pull secret asks for, with the registries it names.
pub(super) struct Desired {
    pub(super) name: String,
    pub(super) logins: Vec<Login>,
    /// A fingerprint of everything but the tokens.
    pub(super) content: String,
    /// By the identity that mints: the registry and its caller.
    pub(super) minters: BTreeMap<String, (Registry, String)>,
    /// Registries that can't be used just now: they hold back no other.
    pub(super) failures: Vec<Problem>,
    /// Namespaces that are to hold the Secret.
    pub(super) allowed: BTreeSet<String>,
    /// Namespaces that are selected and have no right to it.
    pub(super) denied: BTreeSet<String>,
    /// Those of the denied that lose what they have.
    cleared: BTreeSet<String>,
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
}

/// Resolves and parses; registries that can't be used are left out and told.
///
/// # Errors
/// Where nothing of it can be served.
pub(super) async fn desired<K: PullSecret>(object: &K, context: &Context) -> Result<Desired, Problem> {
    let spec = object.common();
    object.not_implemented()?;
    let (mut minters, mut asked, mut failures) = (BTreeMap::new(), Vec::new(), Vec::new());
    for entry in object.entries() {
        match offered(&entry, context).await {
            Ok((registry, offer, caller)) => {
                minters.insert(offer.identity.clone(), (registry.clone(), caller));
                asked.push((entry, registry, offer));
            }
            Err(problem) => failures.push(problem),
        }
    }
    if let Some(problem) = gather(&failures).filter(|_| asked.is_empty()) {
        return Err(problem);
    }
    let requests: Vec<_> = asked.iter().map(|(asked, _, offer)| Request { asked, offer }).collect();
    let logins = logins(&requests)?;
    let registries: Vec<_> = asked.iter().map(|(_, registry, _)| registry).collect();
    let rights = rights(object, context, &registries)?;
    let name = spec.secret_name.clone().unwrap_or_else(|| object.name_any());
    let template = serde_json::to_string(&spec.secret_template).unwrap_or_default();
    let described = logins.iter().map(|login| {
        let TokenKey { identity, region, .. } = &login.token;
        format!("{} {identity} {region}", login.host)
    });
    let shape = fingerprint(&[&name, &described.collect::<Vec<_>>().join(","), &template]);
    let Rights { allowed, denied, cleared } = rights;
    Ok(Desired { name, logins, content: shape, minters, failures, allowed, denied, cleared })
}

async fn offered(entry: &RegistryEntry, context: &Context) -> Result<(Registry, Offer, String), Problem> {
    let name = entry.registry_ref.clone().unwrap_or_default().name;
    let registry = context.registries.resolve(&name).await?;
    let offer = context.registries.offer(&registry).await?;
    let caller = context.registries.pull_caller(&registry).await?;
    Ok((registry, offer, caller))
}

#[derive(Default)]
struct Rights {
    allowed: BTreeSet<String>,
    denied: BTreeSet<String>,
    cleared: BTreeSet<String>,
}

/// The namespaces it means, by whether each of its registries lets them have a token.
fn rights<K: PullSecret>(object: &K, context: &Context, registries: &[&Registry]) -> Result<Rights, Problem> {
    let mut rights = Rights::default();
    for (name, labels) in object.namespaces(context)? {
        let view = NamespaceView { name: &name, labels: &labels };
        let denies = |registry: &&&Registry| {
            let access = Access::of(registry.spec.allow.as_deref().unwrap_or_default(), view);
            let globs = if object.common().access == TokenAccess::Push { &access.push } else { &access.pull };
            globs.is_empty()
        };
        let removes = |registry: &&Registry| {
            registry.spec.pull.as_ref().is_some_and(|pull| pull.when_not_allowed == WhenNotAllowed::Remove)
        };
        let denying: Vec<_> = registries.iter().filter(denies).copied().collect();
        if denying.is_empty() {
            rights.allowed.insert(name);
            continue;
        }
        if denying.iter().any(removes) {
            rights.cleared.insert(name.clone());
        }
        rights.denied.insert(name);
    }
    Ok(rights)
}
