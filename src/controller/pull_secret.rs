//! `EcrPullSecret` and `ClusterEcrPullSecret`: which namespaces, which hosts, which tokens; write what differs; report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use crate::api::{FINALIZER, RECONCILE_AT, TokenAccess, WhenNotAllowed};
use crate::aws::Lookup;
use crate::cluster::{Applied, SecretWriter, is_conflict, is_not_found, set_finalizer, words};
use crate::controller::context::{Context, is_suspended, suspended};
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_status::{Served, report};
use crate::controller::registries::Registry;
use crate::controller::repository::Stop;
use crate::controller::service_accounts;
use crate::core::access::Access;
use crate::core::pull_secret::{Login, Marks, Offer, Request, Seen, docker_config, logins};
use crate::core::reason::{Problem, Reason};
use crate::core::selector::NamespaceView;
use crate::core::token::{Secret, Token, TokenKey, fingerprint};

/// Writes to the API server under way at once, for one object.
const CONCURRENT_WRITES: usize = 16;

/// What a pull secret asks for, with the registries it names.
pub(super) struct Desired {
    pub(super) name: String,
    pub(super) logins: Vec<Login>,
    /// A fingerprint of everything but the tokens.
    content: String,
    /// By the identity that mints: the registry and its caller.
    minters: BTreeMap<String, (Registry, String)>,
    allowed: Vec<String>,
    pub(super) denied: Vec<String>,
    remove_denied: bool,
}

impl Desired {
    /// How many namespaces are to hold the Secret.
    pub(super) fn namespaces(&self) -> usize {
        self.allowed.len()
    }

    /// Whoever mints for `login`.
    pub(super) fn caller(&self, login: &Login) -> Option<&str> {
        self.minters.get(&login.token.identity).map(|(_, caller)| caller.as_str())
    }
}

type Tokens = BTreeMap<TokenKey, Lookup>;

/// Serves one pull secret.
///
/// # Errors
/// Where the API server fails; everything else is told in the status.
pub async fn reconcile<K: PullSecret>(object: Arc<K>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let (object, context) = (&*object, &*context);
    if object.meta().deletion_timestamp.is_some() {
        return let_go(object, context).await;
    }
    if is_suspended(object) {
        return report(object, context, Err(suspended())).await;
    }
    match pass(object, context).await {
        Ok((desired, served)) => report(object, context, Ok((desired, served))).await,
        Err(Stop::Problem(problem)) => report(object, context, Err(problem)).await,
        Err(Stop::Kubernetes(error)) => Err(error),
        Err(Stop::Superseded) => Ok(Action::requeue(Duration::from_millis(200))),
    }
}

async fn pass<K: PullSecret>(object: &K, context: &Context) -> Result<(Desired, Served), Stop> {
    let desired = desired(object, context).await?;
    make_durable(object, context).await?;
    let seen = seen(object, context);

    let anew = asks_for_new_tokens(object);
    let now = Timestamp::now();
    let is_good = |namespace: &String| {
        seen.get(&(namespace.clone(), desired.name.clone())).is_some_and(|seen| seen.is_good(&desired.content, now))
    };
    let (good, due): (Vec<_>, Vec<_>) =
        desired.allowed.iter().cloned().partition(|namespace| !anew && is_good(namespace));
    let tokens = if due.is_empty() { Tokens::new() } else { tokens(context, &desired, anew.then_some(now)).await? };

    let mut served = Served::of(tokens.values());
    for namespace in good {
        let seen = seen.get(&(namespace.clone(), desired.name.clone())).and_then(|seen| seen.marks.clone());
        served.ready.extend(seen.map(|marks| (namespace, marks)));
    }
    write(object, context, &desired, &tokens, due, &seen, &mut served).await?;
    service_accounts::bring_about(object, context, &desired.name, &mut served).await;
    remove_unwanted(object, context, &desired, &seen, &mut served).await;
    Ok((desired, served))
}

async fn desired<K: PullSecret>(object: &K, context: &Context) -> Result<Desired, Problem> {
    let spec = object.common();
    object.not_implemented()?;
    let mut minters = BTreeMap::new();
    let mut asked = Vec::new();
    let mut registries = Vec::new();
    for entry in object.entries() {
        let name = entry.registry_ref.clone().unwrap_or_default().name;
        let registry = context.registries.resolve(&name).await?;
        let offer = context.registries.offer(&registry).await?;
        let caller = context.registries.pull_caller(&registry).await?;
        minters.insert(offer.identity.clone(), (registry.clone(), caller));
        registries.push(registry);
        asked.push((entry, offer));
    }
    let requests: Vec<_> = asked.iter().map(|(asked, offer): &(_, Offer)| Request { asked, offer }).collect();
    let logins = logins(&requests)?;
    let (allowed, denied) = targets(object, context, &registries)?;
    let name = spec.secret_name.clone().unwrap_or_else(|| object.name_any());
    let template = spec.secret_template.clone().unwrap_or_default();
    let remove = |registry: &Registry| {
        registry.spec.pull.as_ref().is_some_and(|pull| pull.when_not_allowed == WhenNotAllowed::Remove)
    };
    Ok(Desired {
        content: fingerprint(&[&name, &format!("{logins:?}"), &format!("{template:?}")]),
        remove_denied: registries.iter().any(remove),
        name,
        logins,
        minters,
        allowed,
        denied,
    })
}

/// The namespaces it means, by whether each of its registries lets them have a token.
fn targets<K: PullSecret>(
    object: &K,
    context: &Context,
    registries: &[Registry],
) -> Result<(Vec<String>, Vec<String>), Problem> {
    let may = |name: &str, labels: &BTreeMap<String, String>| {
        registries.iter().all(|registry| {
            let access = Access::of(registry.spec.allow.as_deref().unwrap_or_default(), NamespaceView { name, labels });
            let globs = if object.common().access == TokenAccess::Push { &access.push } else { &access.pull };
            !globs.is_empty()
        })
    };
    let selected = object.namespaces(context)?;
    let (allowed, denied): (Vec<_>, Vec<_>) = selected.into_iter().partition(|(name, labels)| may(name, labels));
    let names = |list: Vec<(String, _)>| list.into_iter().map(|(name, _)| name).collect();
    Ok((names(allowed), names(denied)))
}

/// A finalizer only where deletion has something to do: Secrets go with their owner, ServiceAccounts are set back.
async fn make_durable<K: PullSecret>(object: &K, context: &Context) -> Result<(), Stop> {
    let wanted = object.common().service_accounts.as_ref().is_some_and(|names| !names.is_empty());
    let present = object.finalizers().iter().any(|name| name == FINALIZER);
    if present && !wanted {
        service_accounts::set_back(object, context).await?;
    }
    match set_finalizer(&object.api(context.client.clone()), object, wanted).await {
        Ok(now) if now.meta().deletion_timestamp.is_some() => Err(Stop::Superseded),
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) || is_not_found(&error) => Err(Stop::Superseded),
        Err(error) => Err(error.into()),
    }
}

async fn let_go<K: PullSecret>(object: &K, context: &Context) -> Result<Action, kube::Error> {
    let uid = object.uid().unwrap_or_default();
    if object.finalizers().iter().any(|name| name == FINALIZER) {
        if is_suspended(object) {
            return report(object, context, Err(suspended())).await;
        }
        service_accounts::set_back(object, context).await?;
        match set_finalizer(&object.api(context.client.clone()), object, false).await {
            Ok(_) => {}
            Err(error) if is_conflict(&error) => return Ok(Action::requeue(Duration::from_millis(200))),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    context.attempts.reset(&uid);
    context.statuses.forget(&uid);
    context.metrics.pull_secret_gone(&K::kind(&()), object);
    Ok(Action::await_change())
}

/// The Secrets that bear this object's label, by namespace and name.
fn seen<K: PullSecret>(object: &K, context: &Context) -> BTreeMap<(String, String), Seen> {
    let uid = object.uid().unwrap_or_default();
    let ours = context.stores.secrets.state().into_iter().filter_map(|secret| {
        let seen = Seen::read(&secret.metadata)?;
        (seen.owner_uid == uid).then(|| ((secret.namespace().unwrap_or_default(), secret.name_any()), seen))
    });
    ours.collect()
}

fn asks_for_new_tokens<K: PullSecret>(object: &K) -> bool {
    let handled = object.status().and_then(|status| status.last_handled_reconcile_at.as_ref());
    object.annotations().get(RECONCILE_AT).is_some_and(|asked| Some(asked) != handled)
}

async fn tokens(context: &Context, desired: &Desired, issued_since: Option<Timestamp>) -> Result<Tokens, Problem> {
    let mut tokens = Tokens::new();
    for login in &desired.logins {
        if tokens.contains_key(&login.token) {
            continue;
        }
        let Some((registry, _)) = desired.minters.get(&login.token.identity) else {
            continue;
        };
        let session = context.registries.minter(registry, &login.token).await?;
        if let Some(since) = issued_since {
            context.tokens.expire_before(&login.token, since).await;
        }
        let lookup = context.tokens.get(&login.token, Timestamp::now, || session.token(login.token.service)).await;
        tokens.insert(login.token.clone(), lookup);
    }
    Ok(tokens)
}

async fn write<K: PullSecret>(
    object: &K,
    context: &Context,
    desired: &Desired,
    tokens: &Tokens,
    due: Vec<String>,
    seen: &BTreeMap<(String, String), Seen>,
    served: &mut Served,
) -> Result<(), Problem> {
    if due.is_empty() {
        return Ok(());
    }
    let Some((data, marks)) = contents(object, desired, tokens)? else {
        // No token to be had: what is there stays as it is.
        for namespace in due {
            match seen.get(&(namespace.clone(), desired.name.clone())).and_then(|seen| seen.marks.clone()) {
                Some(marks) => drop(served.ready.insert(namespace, marks)),
                None => served.fail(namespace, Reason::Transient, "no token yet".to_owned()),
            }
        }
        return Ok(());
    };
    let writer = SecretWriter::new(
        context.client.clone(),
        desired.name.clone(),
        object.owner_reference(),
        object.template_labels(),
        object.template_annotations(),
    );
    let requests = due.into_iter().map(|namespace| {
        let (writer, marks, data) = (&writer, &marks, &data);
        let there = seen.get(&(namespace.clone(), desired.name.clone()));
        let other = other_owner(object, context, &namespace, &desired.name);
        async move {
            let result = match (other, there) {
                (Some(other), _) => Ok(Applied::Foreign(format!("it belongs to {other}"))),
                (None, Some(there)) if there.holds(marks) => Ok(Applied::Done),
                (None, there) => writer.apply(&namespace, marks, data, there).await,
            };
            (namespace, result)
        }
    });
    let mut answers = futures::stream::iter(requests).buffer_unordered(CONCURRENT_WRITES);
    while let Some((namespace, result)) = answers.next().await {
        match result {
            Ok(Applied::Done) => drop(served.ready.insert(namespace, marks.clone())),
            Ok(Applied::Terminating) => drop(served.terminating.insert(namespace)),
            Ok(Applied::Foreign(why)) => served.fail(
                namespace,
                Reason::SecretConflict,
                format!("a Secret {} is there and isn't this object's, and was left as it is: {why}", desired.name),
            ),
            Err(error) => served.fail(namespace, Reason::Transient, words(&error)),
        }
    }
    Ok(())
}

/// The data for all namespaces with what is noted beside it; `None` where a token is missing.
fn contents<K: PullSecret>(object: &K, desired: &Desired, tokens: &Tokens) -> Result<Option<(Secret, Marks)>, Problem> {
    let token = |login: &Login| tokens.get(&login.token).and_then(|lookup| lookup.token.clone());
    let Some(held) =
        desired.logins.iter().map(|login| Some((login.host.as_str(), token(login)?))).collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    let entries = held.iter().map(|(host, token)| (*host, &**token));
    let data = docker_config(entries).map_err(|error| Problem::new(Reason::Invalid, error.to_string()))?;
    let first_to_end = held.iter().map(|(_, token)| &**token).min_by_key(|token: &&Token| token.life.expires_at);
    let first_due = held.iter().map(|(_, token)| token.refresh_at).min();
    let (Some(first_to_end), Some(refresh_at)) = (first_to_end, first_due) else {
        return Ok(None);
    };
    let marks = Marks {
        owner_uid: object.uid().unwrap_or_default(),
        owner: object.title(),
        content: desired.content.clone(),
        life: first_to_end.life,
        refresh_at,
    };
    Ok(Some((data, marks)))
}

/// Another pull secret whose Secret of that name is there.
fn other_owner<K: PullSecret>(object: &K, context: &Context, namespace: &str, name: &str) -> Option<String> {
    let secret = context.stores.secrets.get(&ObjectRef::new(name).within(namespace))?;
    let seen = Seen::read(&secret.metadata)?;
    (Some(&seen.owner_uid) != object.uid().as_ref()).then(|| seen.marks.map_or(seen.owner_uid, |marks| marks.owner))
}

/// What bears our label and is no longer wanted: another name, a namespace that was deselected or lost its right.
async fn remove_unwanted<K: PullSecret>(
    object: &K,
    context: &Context,
    desired: &Desired,
    seen: &BTreeMap<(String, String), Seen>,
    served: &mut Served,
) {
    let kept = |namespace: &String, name: &String| {
        let denied = desired.denied.contains(namespace) && !desired.remove_denied;
        // The old name goes only once the new one is there.
        let renaming =
            name != &desired.name && !served.ready.contains_key(namespace) && desired.allowed.contains(namespace);
        (name == &desired.name && desired.allowed.contains(namespace)) || denied || renaming
    };
    let unwanted: Vec<_> = seen.iter().filter(|((namespace, name), _)| !kept(namespace, name)).collect();
    let writer = SecretWriter::new(
        context.client.clone(),
        desired.name.clone(),
        object.owner_reference(),
        BTreeMap::new(),
        BTreeMap::new(),
    );
    for ((namespace, name), seen) in unwanted {
        if let Err(error) = writer.remove(namespace, name, &seen.uid).await {
            served.fail(namespace.clone(), Reason::Transient, words(&error));
        }
    }
}
