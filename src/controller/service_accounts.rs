//! The ServiceAccounts of a pull secret's namespaces: our name in their `imagePullSecrets` where it is wanted, and gone
//! where it no longer is.

use kube::ResourceExt;

use crate::cluster::{ServiceAccounts, Wish, is_conflict, is_marked, is_not_found, words};
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_status::Served;
use crate::core::reason::Reason;

/// Adds the name where its Secret is there, and takes it out where this object once added it and no longer wants it.
pub(super) async fn bring_about<K: PullSecret>(object: &K, context: &Context, secret: &str, served: &mut Served) {
    let names = object.common().service_accounts.clone().unwrap_or_default();
    let uid = object.uid().unwrap_or_default();
    let wanted = |account: &str| names.iter().any(|name| name == "*" || name == account);
    let writer = ServiceAccounts::new(context.client.clone());
    for account in context.stores.service_accounts.state() {
        let namespace = account.namespace().unwrap_or_default();
        let in_use = wanted(&account.name_any()) && served.ready.contains_key(&namespace);
        if !in_use && (!is_marked(&account, &uid) || served.is_held_up(&namespace)) {
            continue;
        }
        let wish = Wish { owner_uid: &uid, secret: in_use.then_some(secret) };
        match writer.apply(&account, &wish).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) if is_conflict(&error) => served.again_soon = true,
            Err(error) => served.fail(
                namespace,
                Reason::Transient,
                format!("ServiceAccount {}: {}", account.name_any(), words(&error)),
            ),
        }
    }
}

/// Takes the name out wherever this object added it.
///
/// # Errors
/// Where the API server refuses: the finalizer stays until it is done.
pub(super) async fn set_back<K: PullSecret>(object: &K, context: &Context) -> Result<(), kube::Error> {
    let uid = object.uid().unwrap_or_default();
    let writer = ServiceAccounts::new(context.client.clone());
    for account in context.stores.service_accounts.state_filter(|account| is_marked(account, &uid)) {
        match writer.apply(&account, &Wish { owner_uid: &uid, secret: None }).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
