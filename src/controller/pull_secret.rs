//! `EcrPullSecret` and `ClusterEcrPullSecret`: which namespaces, which hosts, which tokens; write what differs; report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use crate::api::{FINALIZER, OWNER_UID};
use crate::cluster::{SecretWriter, is_conflict, is_not_found, set_finalizer, words};
use crate::controller::annotations::{asks_anew, is_suspended, suspended};
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::{Desired, desired};
use crate::controller::pull_secret_status::{Served, report};
use crate::controller::pull_secret_tokens::{overdue, tokens};
use crate::controller::pull_secret_verify::verify;
use crate::controller::pull_secret_write::write;
use crate::controller::repository_parse::Stop;
use crate::controller::service_accounts;
use crate::core::pull_secret::Seen;
use crate::core::reason::{Problem, Reason};

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
    let overdue = overdue(context, &desired).await;
    let (good, due): (Vec<_>, Vec<_>) = desired.allowed.clone().into_iter().partition(|(namespace, variant)| {
        let young = !variant.logins.iter().any(|login| overdue.contains(&login.token));
        young && there(namespace).is_some_and(|seen| seen.is_good(&variant.content, now, since))
    });
    let tokens = tokens(object, context, &desired, &due, since).await?;

    let mut served = Served::of(tokens);
    for (namespace, _) in good {
        let marks = there(&namespace).and_then(|seen| seen.marks.clone());
        served.ready.extend(marks.map(|marks| (namespace, marks)));
    }
    for (namespace, problem) in &desired.refused {
        served.fail(namespace.clone(), problem.clone());
    }
    write(object, context, &desired, due, &seen, &mut served).await;
    service_accounts::bring_about(object, context, &desired, &mut served).await;
    remove_unwanted(object, context, &desired, &seen, &mut served).await;
    verify(object, context, &desired, &mut served).await;
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

pub(super) type Secrets = BTreeMap<(String, String), Seen>;

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
            name != &desired.name && !served.ready.contains_key(namespace) && desired.allowed.contains_key(namespace);
        (name == &desired.name && desired.allowed.contains_key(namespace)) || frozen || renaming
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
            served.fail(namespace.clone(), Problem::new(Reason::Transient, words(&error)));
        }
    }
}
