//! `spec.verify`: Ready is said once every host has let the tokens read a repository.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use kube::ResourceExt;

use crate::aws::{Answer, RegistryError};
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::{Desired, Variant};
use crate::controller::pull_secret_status::Served;
use crate::controller::pull_secret_tokens::{lookup, place};
use crate::core::conditions::is_ready;
use crate::core::pull_secret::Login;
use crate::core::reason::{Problem, Reason, gather};
use crate::core::token::{Service, fingerprint};
use crate::core::verify::Refused;

/// Registries that are asked at once, for one object.
const CONCURRENT_CALLS: usize = 8;

/// What was verified, by the UID of the pull secret: which repository, with which contents.
#[derive(Debug, Default)]
pub struct Verified(Mutex<HashMap<String, BTreeSet<String>>>);

impl Verified {
    /// `None` where nothing was asked yet.
    fn of(&self, uid: &str) -> Option<BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    fn remember(&self, uid: &str, verified: BTreeSet<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), verified);
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Asks where new tokens came in or nothing was verified yet, and notes what keeps the Secrets from being of use.
pub(super) async fn verify<K: PullSecret>(object: &K, context: &Context, desired: &Desired, served: &mut Served) {
    let Some(repository) = object.common().verify.as_ref().map(|verify| verify.repository.as_str()) else { return };
    let uid = object.uid().unwrap_or_default();
    let known = context.verified.of(&uid);
    let conditions = object.status().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let was_ready = is_ready(conditions, object.meta().generation.unwrap_or_default());
    let (mut verified, mut failures) = (BTreeSet::new(), Vec::new());
    for (variant, tokens) in served.contents(desired).into_values() {
        let name = fingerprint(&[repository, &variant.content, &tokens]);
        let renewed = variant.logins.iter().any(|login| served.tokens.contains_key(&login.token));
        let verified_before = match &known {
            Some(known) => known.contains(&name),
            // What a process before this one said of tokens that are still in place, it said after it had asked.
            None => was_ready && !renewed,
        };
        if !verified_before {
            let problems = refusals(object, context, desired, variant, repository).await;
            if !problems.is_empty() {
                failures.extend(problems);
                continue;
            }
        }
        verified.insert(name);
    }
    context.verified.remember(&uid, verified);
    served.unverified = gather(&failures).map(|problem| (problem, was_ready));
}

/// Why hosts of a Secret don't show the repository.
async fn refusals<K: PullSecret>(
    object: &K,
    context: &Context,
    desired: &Desired,
    variant: &Variant,
    repository: &str,
) -> Vec<Problem> {
    let asked = variant.logins.iter().map(|login| ask(object, context, desired, login, repository));
    let asked: Vec<_> = asked.collect();
    futures::stream::iter(asked)
        .buffered(CONCURRENT_CALLS)
        .filter_map(|answer| std::future::ready(answer.err()))
        .collect()
        .await
}

async fn ask<K: PullSecret>(
    object: &K,
    context: &Context,
    desired: &Desired,
    login: &Login,
    repository: &str,
) -> Result<(), Problem> {
    let Some((registry, caller)) = desired.minters.get(&login.token.identity) else { return Ok(()) };
    let found = lookup(object, context, desired, login, None).await?;
    // Hosts without a token are told of elsewhere.
    let Some(token) = found.and_then(|(_, lookup)| lookup.token) else { return Ok(()) };
    let place = place(registry, login);
    let answer = match login.token.service {
        Service::Private => context.registry_client.pull(&place, repository, &token).await,
        // Everybody's repositories there are public: there is nothing to allow but the token itself.
        Service::Public => context.registry_client.login(&place, &token).await,
    };
    match answer {
        Ok(Answer::Allowed) => Ok(()),
        Ok(Answer::Refused(refusal)) => Err(Refused {
            host: &login.host,
            repository,
            caller,
            account: &registry.account,
            status: refusal.status,
            message: &refusal.message,
        }
        .problem()),
        Err(error @ (RegistryError::Unreachable { .. } | RegistryError::Unexpected { .. })) => {
            Err(Problem::new(Reason::Transient, format!("not verified: {error}")))
        }
    }
}
