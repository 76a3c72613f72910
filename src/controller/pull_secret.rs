//! `EcrPullSecret` and `ClusterEcrPullSecret`: which namespaces, which hosts, which tokens; write what differs; report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Secret as KubeSecret};
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;

use crate::api::{FINALIZER, MergePolicy, OWNER_UID};
use crate::cluster::{CONCURRENT_WRITES, SecretWriter, is_conflict, is_not_found, set_finalizer, words};
use crate::controller::annotations::{asks_anew, is_suspended, suspended};
use crate::controller::contests::Place;
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::{Desired, desired};
use crate::controller::pull_secret_served::Served;
use crate::controller::pull_secret_status::report;
use crate::controller::pull_secret_tokens::overdue;
use crate::controller::pull_secret_verify::{untried, verify};
use crate::controller::pull_secret_write::write;
use crate::controller::repository_parse::Stop;
use crate::controller::service_accounts;
use crate::controller::stuck_pods::Wanted;
use crate::core::pull_secret::{MERGED, Seen, noted};
use crate::core::reason::{Problem, Reason};
use crate::core::stuck_pods::Wish;

type KubeSecretMeta = PartialObjectMeta<KubeSecret>;

/// Reads under way at once, for one object.
const CONCURRENT_READS: usize = 16;
/// Named in a message at most; all are counted.
const MOST_NAMED: usize = 5;

/// Serves one pull secret.
///
/// # Errors
/// Where the API server fails; everything else is told in the status.
pub async fn reconcile<K: PullSecret>(object: Arc<K>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let (object, context) = (&*object, &*context);
    if object.meta().deletion_timestamp.is_some() || is_suspended(object) {
        context.stuck_pods.want(&object.owner().uid, None);
    }
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
    let seen = seen(object, context).await;
    let there = |namespace: &str| seen.get(&(namespace.to_owned(), desired.name.clone()));
    let uid = object.owner().uid;

    let now = Timestamp::now();
    let handled = object.status().and_then(|status| status.last_handled_reconcile_at.as_ref());
    let since = asks_anew(object, handled).map(|asked| context.renewals.since(&uid, asked, now));
    if since == Some(now) {
        // Whoever asks anew wants it tried now.
        context.contests.forget(&uid);
    }
    let mut overdue = overdue(context, &desired);
    overdue.extend(untried(object, context, &desired, &seen).await);
    let (good, due): (Vec<_>, Vec<_>) = desired.allowed.clone().into_iter().partition(|(namespace, variant)| {
        let young = !variant.logins.iter().any(|login| overdue.contains(&login.token));
        young
            && there(namespace).is_some_and(|seen| seen.is_good(&variant.content, variant.hosts(), now, since))
            && context.contests.holds(Place { owner_uid: &uid, namespace, name: &desired.name }, now).is_none()
    });

    let mut served = Served::default();
    for (namespace, _) in good {
        let marks = there(&namespace).and_then(|seen| seen.marks.clone());
        served.ready.extend(marks.map(|marks| (namespace, marks)));
    }
    for namespace in &desired.waiting {
        served.keep(namespace, there(namespace), &desired.failures);
    }
    for (namespace, problem) in &desired.refused {
        served.grow_old(namespace, there(namespace), problem.clone());
    }
    write(object, context, &desired, due, since, &seen, &mut served).await?;
    service_accounts::bring_about(object, context, &desired, &mut served).await;
    remove_unwanted(object, context, &desired, &seen, &mut served).await;
    verify(object, context, &desired, &mut served).await;
    served.hindrance = context.stuck_pods.want(&uid, restarts(object, &desired, &served).as_ref());
    Ok((desired, served))
}

/// The pods that are to be restarted for this object, if it wants any to be.
fn restarts<K: PullSecret>(object: &K, desired: &Desired, served: &Served) -> Option<Wanted> {
    object.common().restart_stuck_pods.filter(|wanted| *wanted)?;
    let wish = Wish {
        hosts: desired.by_host().into_keys().map(str::to_owned).collect(),
        secret: desired.name.clone(),
        namespaces: served.ready.keys().cloned().collect(),
    };
    // Its version changes with every status; events needn't name it.
    let about = ObjectReference { resource_version: None, ..object.object_ref(&()) };
    Some(Wanted { wish, about })
}

/// A finalizer only where deletion has something to do: Secrets of our own go with their owner, but ServiceAccounts are set
/// back, and our entries taken out of Secrets of others.
async fn make_durable<K: PullSecret>(object: &K, context: &Context) -> Result<(), Stop> {
    let wanted = merges(object) || object.common().service_accounts.as_ref().is_some_and(|names| !names.is_empty());
    let present = object.finalizers().iter().any(|name| name == FINALIZER);
    // What can't be set back yet keeps it, and nothing else from being served: the pass tells of each of them.
    let needed = wanted || (present && !service_accounts::set_back(object, context).await.is_empty());
    match set_finalizer(&object.api(context.client.clone()), object, needed).await {
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
        let mut left = service_accounts::set_back(object, context).await;
        left.extend(
            context.merged_secrets.take_out_everywhere(&object.owner(), |uid| context.stores.is_pull_secret(uid)).await,
        );
        if !left.is_empty() {
            return report(object, context, Err(not_undone(&left))).await;
        }
        match set_finalizer(&object.api(context.client.clone()), object, false).await {
            Ok(_) => {}
            Err(error) if is_conflict(&error) => return Ok(Action::requeue(Duration::from_millis(200))),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Action::await_change())
}

/// What keeps an object that is to go: all of it counted, some of it named.
fn not_undone(left: &[String]) -> Problem {
    Problem::new(
        Reason::PartiallyFailed,
        format!(
            "deletion waits: {} of the ServiceAccounts and Secrets of others couldn't be set back; let the operator write them, or take the finalizer {FINALIZER} off, and they stay as they are: {}",
            left.len(),
            left.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join("; ")
        ),
    )
}

pub(super) type Secrets = BTreeMap<(String, String), Seen>;

fn merges<K: PullSecret>(object: &K) -> bool {
    object.common().merge_policy == MergePolicy::Merge
}

/// The Secrets that were written for this object, by namespace and name: of its own namespace alone, if it has one. Those
/// that are shared are read where they changed since they were last looked at: their `managedFields` can't tell who wrote
/// which entry.
async fn seen<K: PullSecret>(object: &K, context: &Context) -> Secrets {
    let owner = object.owner();
    let label = if merges(object) { MERGED } else { &owner.uid };
    let marked = context.stores.secrets.state().into_iter().filter(|secret| {
        secret.labels().get(OWNER_UID).is_some_and(|value| value == label)
            && (owner.namespace.is_none() || owner.namespace == secret.metadata.namespace)
    });
    let key = |secret: &KubeSecretMeta| (secret.metadata.namespace.clone().unwrap_or_default(), secret.name_any());
    if !merges(object) {
        return marked.filter_map(|secret| Some((key(&secret), Seen::read(&secret.metadata)?))).collect();
    }
    let ours = marked.filter(|secret| noted(&secret.metadata).any(|uid| uid == owner.uid));
    let uid = &owner.uid;
    let looks = ours.map(|secret| async move {
        let seen = context.merged_secrets.seen(&secret.metadata, uid).await;
        seen.map(|seen| (key(&secret), seen))
    });
    let found: Vec<_> = futures::stream::iter(looks).buffer_unordered(CONCURRENT_READS).collect().await;
    found.into_iter().flatten().collect()
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
    let unwanted = seen.iter().filter(|((namespace, name), _)| !kept(namespace, name));
    let writer = &SecretWriter::new(
        context.client.clone(),
        desired.name.clone(),
        object.owner_reference(),
        BTreeMap::new(),
        BTreeMap::new(),
    );
    let removals = unwanted.map(|((namespace, name), seen)| async move {
        let removed = if merges(object) {
            let is_cached = |uid: &str| context.stores.is_pull_secret(uid);
            context.merged_secrets.take_out((namespace, name), &seen.owner_uid, is_cached).await
        } else {
            writer.remove(namespace, name, &seen.uid).await
        };
        context.contests.leave(Place { owner_uid: &object.owner().uid, namespace, name });
        Some((namespace, removed.err()?))
    });
    let removals: Vec<_> = removals.collect();
    let refused: Vec<_> = futures::stream::iter(removals).buffer_unordered(CONCURRENT_WRITES).collect().await;
    for (namespace, error) in refused.into_iter().flatten() {
        served.fail(namespace.clone(), Problem::new(Reason::Transient, words(&error)));
    }
}
