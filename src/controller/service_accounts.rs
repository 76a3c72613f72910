//! The ServiceAccounts of a pull secret's namespaces: our name in their `imagePullSecrets` where it is wanted, and gone
//! where it no longer is.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::api::FINALIZER;
use crate::cluster::{ServiceAccounts, Wish, is_conflict, is_marked, is_not_found, words};
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::Desired;
use crate::controller::pull_secret_status::Served;
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
    let writer = ServiceAccounts::new(context.client.clone());
    // As it stands now: one account that can't be served holds back no other.
    let ready: BTreeSet<_> = served.ready.keys().cloned().collect();
    for account in context.stores.service_accounts.state_filter(concerns) {
        let namespace = account.namespace().unwrap_or_default();
        let is_wanted = wanted(&account.name_any());
        let in_use = is_wanted && ready.contains(&namespace);
        let stays = is_wanted && (desired.is_frozen(&namespace) || served.is_held_up(&namespace));
        if !in_use && (stays || !is_marked(&account, &owner.uid)) {
            continue;
        }
        let wish = Wish { owner_uid: &owner.uid, secret: in_use.then_some(desired.name.as_str()) };
        match turn(context, &account, &wish) {
            None | Some(Turn::Settling) => {}
            Some(Turn::Pause(until)) => {
                let (who, remedy) = if context.contests.is_stripped(&owner.uid, &account) {
                    ("an admission webhook or policy".to_owned(), "have it leave it there".to_owned())
                } else {
                    let who = writer.last_writer(&account).await.unwrap_or_else(|| "somebody".to_owned());
                    let remedy = format!("add it to what {who} applies");
                    (who, remedy)
                };
                let problem = contested(&account, &desired.name, &who, &remedy, until);
                served.contested(namespace, until, problem);
            }
            Some(Turn::Write) => match writer.apply(&account, &wish).await {
                Ok(is_so) if is_so || !in_use => context.contests.wrote(&owner.uid, &account, Timestamp::now()),
                // Its version needn't have moved, so that no watch tells of it.
                Ok(_) => {
                    context.contests.was_stripped(&owner.uid, &account, Timestamp::now());
                    served.again_soon = true;
                }
                Err(error) if is_not_found(&error) => {}
                Err(error) if is_conflict(&error) => served.again_soon = true,
                Err(error) => {
                    let message = format!("ServiceAccount {}: {}", account.name_any(), words(&error));
                    served.fail(namespace, Problem::new(Reason::Transient, message));
                }
            },
        }
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
    let writer = ServiceAccounts::new(context.client.clone());
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
        for account in accounts.items.iter().filter(|account| is_marked(account, &owner.uid)) {
            match writer.apply(account, &Wish { owner_uid: &owner.uid, secret: None }).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    let namespace = account.namespace().unwrap_or_default();
                    left.push(format!("ServiceAccount {namespace}/{}: {}", account.name_any(), words(&error)));
                }
            }
        }
        match accounts.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return left,
        }
    }
}
