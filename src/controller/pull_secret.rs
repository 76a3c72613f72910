//! `EcrPullSecret` and `ClusterEcrPullSecret`: which namespaces, which hosts, which tokens; write what differs; report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use crate::api::{FINALIZER, OWNER_UID};
use crate::aws::Lookup;
use crate::cluster::{Applied, SecretWriter, is_conflict, is_not_found, set_finalizer, words};
use crate::controller::annotations::{asks_anew, is_suspended, suspended};
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::{Desired, desired};
use crate::controller::pull_secret_status::{Served, report};
use crate::controller::repository_parse::Stop;
use crate::controller::service_accounts;
use crate::core::pull_secret::{Login, Marks, SecretOwner, Seen, docker_config};
use crate::core::reason::{Problem, Reason};
use crate::core::token::{Secret, Token, TokenKey, fingerprint};

/// Writes to the API server under way at once, for one object.
const CONCURRENT_WRITES: usize = 16;

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
    let there = |namespace: &str| seen.get(&(namespace.to_owned(), desired.name.clone()));

    let now = Timestamp::now();
    let handled = object.status().and_then(|status| status.last_handled_reconcile_at.as_ref());
    let since = asks_anew(object, handled).map(|asked| context.renewals.since(&object.owner().uid, asked, now));
    let is_good = |namespace: &String| there(namespace).is_some_and(|seen| seen.is_good(&desired.content, now, since));
    let (good, due): (Vec<_>, Vec<_>) = desired.allowed.iter().cloned().partition(is_good);
    let tokens = if due.is_empty() { Tokens::new() } else { tokens(context, &desired, since).await? };

    let mut served = Served::of(tokens.clone());
    for namespace in good {
        let marks = there(&namespace).and_then(|seen| seen.marks.clone());
        served.ready.extend(marks.map(|marks| (namespace, marks)));
    }
    write(object, context, &desired, &tokens, due, &seen, &mut served).await?;
    service_accounts::bring_about(object, context, &desired, &mut served).await;
    remove_unwanted(object, context, &desired, &seen, &mut served).await;
    Ok((desired, served))
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
    Ok(Action::await_change())
}

type Secrets = BTreeMap<(String, String), Seen>;

/// The Secrets that were written for this object, by namespace and name: of its own namespace alone, if it has one.
fn seen<K: PullSecret>(object: &K, context: &Context) -> Secrets {
    let owner = object.owner();
    let ours = context.stores.secrets.state().into_iter().filter_map(|secret| {
        let namespace = secret.metadata.namespace.clone().unwrap_or_default();
        let concerns = secret.labels().get(OWNER_UID) == Some(&owner.uid)
            && owner.namespace.as_ref().is_none_or(|own| *own == namespace);
        let seen = Seen::read(&secret.metadata).filter(|_| concerns)?;
        Some(((namespace, secret.name_any()), seen))
    });
    ours.collect()
}

async fn tokens(context: &Context, desired: &Desired, issued_since: Option<Timestamp>) -> Result<Tokens, Problem> {
    let mut tokens = Tokens::new();
    for login in &desired.logins {
        if tokens.contains_key(&login.token) {
            continue;
        }
        let Some((registry, _)) = desired.minters.get(&login.token.identity) else { continue };
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
    seen: &Secrets,
    served: &mut Served,
) -> Result<(), Problem> {
    if due.is_empty() {
        return Ok(());
    }
    let contents = contents(object, desired, tokens)?;
    let writer = SecretWriter::new(
        context.client.clone(),
        desired.name.clone(),
        object.owner_reference(),
        object.template_labels(),
        object.template_annotations(),
    );
    let requests = due.into_iter().map(|namespace| {
        let (writer, contents) = (&writer, contents.as_ref());
        let there = seen.get(&(namespace.clone(), desired.name.clone()));
        let holder = holder(object, context, &namespace, &desired.name);
        async move {
            let result = match (holder, contents) {
                (Holder::Another(owner), _) => Ok(Written::Foreign(format!("it belongs to {owner}"))),
                (_, None) => Ok(Written::Kept),
                (_, Some(contents)) if there.is_some_and(|there| outlives(there, contents)) => Ok(Written::Kept),
                (_, Some(contents)) if there.is_some_and(|there| there.holds(&contents.marks)) => Ok(Written::Done),
                (Holder::Nobody(orphan), Some(contents)) => {
                    let there = there.or(orphan.as_ref());
                    writer.apply(&namespace, &contents.marks, &contents.data, there).await.map(Written::from)
                }
            };
            (namespace, result)
        }
    });
    let mut answers = futures::stream::iter(requests).buffer_unordered(CONCURRENT_WRITES);
    while let Some((namespace, result)) = answers.next().await {
        match (result, &contents) {
            (Ok(Written::Done), Some(contents)) => drop(served.ready.insert(namespace, contents.marks.clone())),
            (Ok(Written::Done | Written::Kept), _) => {
                match seen.get(&(namespace.clone(), desired.name.clone())).and_then(|seen| seen.marks.clone()) {
                    Some(marks) => drop(served.ready.insert(namespace, marks)),
                    None => served.fail(namespace, Reason::Transient, "no token yet".to_owned()),
                }
            }
            (Ok(Written::Terminating), _) => drop(served.terminating.insert(namespace)),
            (Ok(Written::Foreign(why)), _) => served.fail(
                namespace,
                Reason::SecretConflict,
                format!("a Secret {} is there and isn't this object's, and was left as it is: {why}", desired.name),
            ),
            (Err(error), _) => served.fail(namespace, Reason::Transient, words(&error)),
        }
    }
    Ok(())
}

enum Written {
    Done,
    /// As it was.
    Kept,
    Foreign(String),
    Terminating,
}

impl From<Applied> for Written {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Done => Self::Done,
            Applied::Foreign(why) => Self::Foreign(why),
            Applied::Terminating => Self::Terminating,
        }
    }
}

/// The data for all namespaces, with what is noted beside it.
struct Contents {
    data: Secret,
    marks: Marks,
    /// Whether every host that is asked for has its token in it.
    complete: bool,
}

/// `None` where no token at all is to be had.
fn contents<K: PullSecret>(object: &K, desired: &Desired, tokens: &Tokens) -> Result<Option<Contents>, Problem> {
    let token = |login: &Login| tokens.get(&login.token).and_then(|lookup| lookup.token.clone());
    let held: Vec<_> = desired.logins.iter().filter_map(|login| Some((login.host.as_str(), token(login)?))).collect();
    let entries = held.iter().map(|(host, token)| (*host, &**token));
    let data = docker_config(entries).map_err(|error| Problem::new(Reason::Invalid, error.to_string()))?;
    let first_to_end = held.iter().map(|(_, token)| &**token).min_by_key(|token: &&Token| token.life.expires_at);
    let first_due = held.iter().map(|(_, token)| token.refresh_at).min();
    let (Some(first_to_end), Some(refresh_at)) = (first_to_end, first_due) else {
        return Ok(None);
    };
    let lives = held.iter().map(|(host, token)| format!("{host} {} {}", token.life.issued_at, token.life.expires_at));
    let marks = Marks {
        owner: object.owner(),
        content: desired.content.clone(),
        tokens: fingerprint(&[&lives.collect::<Vec<_>>().join(",")]),
        life: first_to_end.life,
        refresh_at,
    };
    let complete = held.len() == desired.logins.len() && desired.failures.is_empty();
    Ok(Some(Contents { data, marks, complete }))
}

/// Whether the Secret that is there is better left alone: what could be written lacks a token, which it may still hold, and
/// its own are good for a while.
fn outlives(there: &Seen, contents: &Contents) -> bool {
    let now = Timestamp::now();
    let lives = |marks: &Marks| marks.life.dies_soon_at() > now;
    !contents.complete && there.intact && there.marks.as_ref().is_some_and(lives)
}

/// Who holds the Secret of that name.
enum Holder {
    /// Another pull secret.
    Another(SecretOwner),
    /// Nobody, or this object; a Secret that was written for one that no longer exists may be taken over.
    Nobody(Option<Seen>),
}

fn holder<K: PullSecret>(object: &K, context: &Context, namespace: &str, name: &str) -> Holder {
    let secret = context.stores.secrets.get(&ObjectRef::new(name).within(namespace));
    let Some(seen) = secret.and_then(|secret| Seen::read(&secret.metadata)) else {
        return Holder::Nobody(None);
    };
    if seen.owner_uid == object.owner().uid || !context.stores.is_pull_secret(&seen.owner_uid) {
        return Holder::Nobody(Some(seen));
    }
    let unknown = || SecretOwner {
        kind: "pull secret".into(),
        namespace: None,
        name: seen.owner_uid.clone(),
        uid: seen.owner_uid.clone(),
    };
    Holder::Another(seen.marks.as_ref().map_or_else(unknown, |marks| marks.owner.clone()))
}

/// What bears our label and is no longer wanted: another name, a namespace that was deselected or lost its right.
async fn remove_unwanted<K: PullSecret>(
    object: &K,
    context: &Context,
    desired: &Desired,
    seen: &Secrets,
    served: &mut Served,
) {
    let kept = |namespace: &String, name: &String| {
        let frozen = desired.is_frozen(namespace);
        // The old name goes only once the new one is there.
        let renaming =
            name != &desired.name && !served.ready.contains_key(namespace) && desired.allowed.contains(namespace);
        (name == &desired.name && desired.allowed.contains(namespace)) || frozen || renaming
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
