//! The ServiceAccounts of a pull secret's namespaces: our name in their `imagePullSecrets` where it is wanted, and gone
//! where it no longer is.

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::api::FINALIZER;
use crate::cluster::{CONCURRENT_WRITES, ServiceAccounts, Wish, in_time, is_conflict, is_marked, is_not_found, words};
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::Desired;
use crate::controller::pull_secret_served::Served;
use crate::core::contest::Turn;
use crate::core::reason::{Problem, Reason};

/// Adds the name where its Secret is there, and takes it out where this object once added it and no longer wants it.
pub(super) async fn bring_about<K: PullSecret>(object: &K, context: &Context, desired: &Desired, served: &mut Served) {
    let names = object.common().service_accounts.clone().unwrap_or_default();
    let owner = object.owner();
    let had_some = object.finalizers().iter().any(|name| name == FINALIZER);
    if names.is_empty() && !had_some {
        return;
    }
    let wanted = |account: &str| names.iter().any(|name| name == "*" || name == account);
    let concerns =
        |account: &ServiceAccount| owner.namespace.is_none() || account.metadata.namespace == owner.namespace;
    let writer = &ServiceAccounts::new(context.client.clone());
    let ready = |namespace: &String| served.ready.contains_key(namespace);
    let due = context.stores.service_accounts.state_filter(concerns).into_iter().filter_map(|account| {
        let namespace = account.namespace().unwrap_or_default();
        let is_wanted = wanted(&account.name_any());
        let in_use = is_wanted && ready(&namespace);
        let stays = is_wanted && (desired.is_frozen(&namespace) || served.is_held_up(&namespace));
        let concerned = in_use || (!stays && is_marked(&account, &owner.uid));
        concerned.then_some((namespace, account, in_use.then_some(desired.name.as_str())))
    });
    let uid = owner.uid.as_str();
    let turns = due.map(|(namespace, account, secret)| async move {
        (namespace, serve(context, writer, &account, &Wish { owner_uid: uid, secret }).await)
    });
    let turns: Vec<_> = turns.collect();
    // One account that can't be served holds back no other.
    let mut outcomes = futures::stream::iter(turns).buffer_unordered(CONCURRENT_WRITES);
    while let Some((namespace, outcome)) = outcomes.next().await {
        match outcome {
            Outcome::Fine => {}
            Outcome::Soon => served.again_soon = true,
            Outcome::Contested(until, problem) => served.contested(namespace, until, problem),
            Outcome::Failed(problem) => served.fail(namespace, problem),
        }
    }
}

/// What became of an account.
enum Outcome {
    /// As wished, or on the way there.
    Fine,
    /// To be looked at again at once.
    Soon,
    /// Left alone until then.
    Contested(Timestamp, Problem),
    Failed(Problem),
}

async fn serve(context: &Context, writer: &ServiceAccounts, account: &ServiceAccount, wish: &Wish<'_>) -> Outcome {
    let uid = wish.owner_uid;
    match (turn(context, account, wish), wish.secret) {
        (None | Some(Turn::Settling), _) => Outcome::Fine,
        (Some(Turn::Pause(until)), secret) => {
            let (who, remedy) = if context.contests.is_stripped(uid, account) {
                ("an admission webhook or policy".to_owned(), "have it leave it there".to_owned())
            } else {
                let who = writer.last_writer(account).await.unwrap_or_else(|| "somebody".to_owned());
                let remedy = format!("add it to what {who} applies");
                (who, remedy)
            };
            Outcome::Contested(until, contested(account, secret.unwrap_or_default(), &who, &remedy, until))
        }
        (Some(Turn::Write), secret) => match in_time(writer.apply(account, wish)).await {
            Ok(is_so) if is_so || secret.is_none() => {
                context.contests.wrote(uid, account, Timestamp::now());
                Outcome::Fine
            }
            // Its version needn't have moved, so that no watch tells of it.
            Ok(_) => {
                context.contests.was_stripped(uid, account, Timestamp::now());
                Outcome::Soon
            }
            Err(error) if is_not_found(&error) => Outcome::Fine,
            Err(error) if is_conflict(&error) => Outcome::Soon,
            Err(error) => {
                let message = format!("ServiceAccount {}: {}", account.name_any(), words(&error));
                Outcome::Failed(Problem::new(Reason::Transient, message))
            }
        },
    }
}

/// What to do about an account; `None` where it is as wished. Taking our name out is no contest: nobody puts it back.
fn turn(context: &Context, account: &ServiceAccount, wish: &Wish<'_>) -> Option<Turn> {
    let now = Timestamp::now();
    match (ServiceAccounts::differs(account, wish), wish.secret) {
        (true, Some(_)) => Some(context.contests.differs(wish.owner_uid, account, now)),
        (true, None) => Some(Turn::Write),
        (false, _) => context.contests.is_right(wish.owner_uid, account, now).map(Turn::Pause),
    }
}

fn contested(account: &ServiceAccount, secret: &str, who: &str, remedy: &str, until: Timestamp) -> Problem {
    Problem::new(
        Reason::Contested,
        format!(
            "ServiceAccount {}: {who} keeps taking {secret} out of its imagePullSecrets; {remedy}, or take the ServiceAccount out of spec.serviceAccounts. Next look at {until:.0}",
            account.name_any()
        ),
    )
}

/// Takes the name out wherever this object added it: as the API server has it now, since the cache may lag behind what was
/// written a moment ago. Returns what couldn't be set back, and why: one that is refused holds back no other.
pub(super) async fn set_back<K: PullSecret>(object: &K, context: &Context) -> Vec<String> {
    let owner = object.owner();
    let writer = &ServiceAccounts::new(context.client.clone());
    let api: Api<ServiceAccount> = match &owner.namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let mut page = ListParams::default().limit(500);
    let mut left = Vec::new();
    loop {
        let accounts = match api.list(&page).await {
            Ok(accounts) => accounts,
            Err(error) => {
                left.push(format!("the list of ServiceAccounts: {}", words(&error)));
                return left;
            }
        };
        let wish = &Wish { owner_uid: &owner.uid, secret: None };
        let marked = accounts.items.iter().filter(|account| is_marked(account, &owner.uid));
        let removals = marked.map(|account| async move {
            let error = in_time(writer.apply(account, wish)).await.err().filter(|error| !is_not_found(error))?;
            let namespace = account.namespace().unwrap_or_default();
            Some(format!("ServiceAccount {namespace}/{}: {}", account.name_any(), words(&error)))
        });
        let removals: Vec<_> = removals.collect();
        let refused: Vec<_> = futures::stream::iter(removals).buffered(CONCURRENT_WRITES).collect().await;
        left.extend(refused.into_iter().flatten());
        match accounts.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return left,
        }
    }
}
