//! `spec.verify`: Ready is said once every host has let the tokens read a repository.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::SignedDuration;
use kube::ResourceExt;
use tokio::time::Instant;

use crate::aws::{Answer, RegistryError};
use crate::controller::context::Context;
use crate::controller::pull_secret::Secrets;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::{Desired, Variant};
use crate::controller::pull_secret_served::Served;
use crate::controller::pull_secret_tokens::{lookup, place};
use crate::controller::registry_tokens::Issuer;
use crate::core::conditions::is_ready;
use crate::core::pull_secret::{Login, TokenLives};
use crate::core::reason::{Problem, Reason, gather};
use crate::core::token::{Service, Token, TokenKey, fingerprint};
use crate::core::verify::Refused;

/// Registries that are asked at once, for one object.
const CONCURRENT_CALLS: usize = 8;
/// For all that registries are asked in one pass: renewals wait for it.
const PATIENCE: Duration = Duration::from_secs(15);

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

/// One that is verified, or isn't.
fn name(repository: &str, variant: &Variant, tokens: &TokenLives) -> String {
    fingerprint(&[repository, &variant.content, tokens.as_str()])
}

/// All that are verified.
fn digest(names: &BTreeSet<String>) -> String {
    fingerprint(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Tokens in Secrets that nobody has verified and that can't be, as they aren't at hand: they were had by another process.
/// What can be tried takes their place.
pub(super) async fn untried<K: PullSecret>(
    object: &K,
    context: &Context,
    desired: &Desired,
    seen: &Secrets,
) -> BTreeSet<TokenKey> {
    let Some(verify) = &object.common().verify else { return BTreeSet::new() };
    let uid = object.uid().unwrap_or_default();
    let there = |namespace: &String| seen.get(&(namespace.clone(), desired.name.clone()))?.marks.as_ref();
    let held = desired.allowed.iter().filter_map(|(namespace, variant)| {
        let tokens = &there(namespace)?.tokens;
        Some((name(&verify.repository, variant, tokens), (variant, tokens)))
    });
    let held: BTreeMap<_, _> = held.collect();
    let verified = context.verified.of(&uid).unwrap_or_else(|| {
        // What a process before this one verified is told by the status.
        let names = held.keys().cloned().collect();
        let told = object.status().and_then(|status| status.verified.as_ref());
        if told != Some(&digest(&names)) {
            return BTreeSet::new();
        }
        context.verified.remember(&uid, names.clone());
        names
    });
    let mut untried = BTreeSet::new();
    let unverified: Vec<_> = held.into_iter().filter(|(name, _)| !verified.contains(name)).collect();
    for (_, (variant, tokens)) in unverified {
        for login in &variant.logins {
            let (key, now) = (&login.token, context.clocks.now());
            let Some(issued_at) = tokens.issued(&login.host) else { continue };
            if context.tokens.at_hand(key, now).is_none_or(|token| token.life.issued_at != issued_at) {
                let after = issued_at.saturating_add(SignedDuration::from_nanos(1)).unwrap_or(issued_at);
                context.tokens.expire_before(key, now, after).await;
                untried.insert(key.clone());
            }
        }
    }
    untried
}

/// Asks where new tokens came in or nothing was verified yet, and notes what keeps the Secrets from being of use.
pub(super) async fn verify<K: PullSecret>(object: &K, context: &Context, desired: &Desired, served: &mut Served) {
    let Some(repository) = object.common().verify.as_ref().map(|verify| verify.repository.as_str()) else { return };
    let uid = object.uid().unwrap_or_default();
    let known = context.verified.of(&uid).unwrap_or_default();
    let conditions = object.status().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let was_ready = is_ready(conditions, object.meta().generation.unwrap_or_default());
    let contents = served.contents(desired);
    let named = contents.values().map(|(variant, tokens)| (name(repository, variant, tokens), (*variant, tokens)));
    let named: BTreeMap<_, _> = named.collect();
    let asks = named.iter().filter(|(name, _)| !known.contains(*name));
    let asks: Vec<_> = asks
        .flat_map(|(name, (variant, tokens))| {
            variant.logins.iter().map(move |login| prepared(object, context, desired, login, tokens, name))
        })
        .collect();
    let asks: Vec<_> = futures::stream::iter(asks).buffered(CONCURRENT_CALLS).collect().await;
    let round = Round { context, repository, silent: Mutex::default(), deadline: Instant::now() + PATIENCE };
    let round = &round;
    let answers = asks.into_iter().map(|prepared| async move {
        match prepared {
            (name, Ok(Some(ask))) => (name, round.put(&ask).await),
            (name, Ok(None)) => (name, Ok(())),
            (name, Err(problem)) => (name, Err(problem)),
        }
    });
    let answers: Vec<_> = answers.collect();
    let answers: Vec<_> = futures::stream::iter(answers).buffered(CONCURRENT_CALLS).collect().await;
    let failed: BTreeSet<_> = answers.iter().filter(|(_, answer)| answer.is_err()).map(|(name, _)| *name).collect();
    let verified: BTreeSet<_> = named.keys().filter(|name| !failed.contains(name)).cloned().collect();
    let failures: Vec<_> = answers.iter().filter_map(|(_, answer)| answer.clone().err()).collect();
    served.unverified = gather(&failures).map(|problem| (problem, was_ready));
    served.verified = Some(digest(&verified)).filter(|_| failures.is_empty());
    context.verified.remember(&uid, verified);
}

/// A question to a registry.
struct Ask<'a> {
    login: &'a Login,
    token: Arc<Token>,
    issuer: &'a Issuer,
}

/// What to ask of the host of `login`; nothing where the Secret has no token for it, which is told elsewhere.
async fn prepared<'a, K: PullSecret>(
    object: &K,
    context: &Context,
    desired: &'a Desired,
    login: &'a Login,
    tokens: &TokenLives,
    name: &'a String,
) -> (&'a String, Result<Option<Ask<'a>>, Problem>) {
    let asked = async {
        let (Some(issuer), Some(issued_at)) = (desired.issuer(login), tokens.issued(&login.host)) else {
            return Ok(None);
        };
        let found = lookup(object, context, desired, login, None).await?;
        let token = found.and_then(|(_, lookup)| lookup.token).filter(|token| token.life.issued_at == issued_at);
        let token = token.ok_or_else(|| {
            Problem::new(
                Reason::Transient,
                format!(
                    "not verified: the token for {} in the Secret isn't at hand, and there is no newer one",
                    login.host
                ),
            )
        })?;
        Ok(Some(Ask { login, token, issuer }))
    };
    (name, asked.await)
}

/// All questions of one pass.
struct Round<'a> {
    context: &'a Context,
    repository: &'a str,
    /// Hosts that didn't answer: they aren't asked again.
    silent: Mutex<BTreeSet<String>>,
    deadline: Instant,
}

impl Round<'_> {
    async fn put(&self, Ask { login, token, issuer }: &Ask<'_>) -> Result<(), Problem> {
        let (host, repository) = (&login.host, self.repository);
        let unverified = |why: String| Err(Problem::new(Reason::Transient, format!("not verified: {why}")));
        let silent = || self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent().contains(host) {
            return unverified(format!("registry {host} gave no answer"));
        }
        if Instant::now() >= self.deadline {
            return unverified(format!("there was no time to ask registry {host}: other registries took it all"));
        }
        let (client, place) = (&self.context.registry_client, place(issuer, login));
        let asked = async {
            match login.token.service {
                Service::Private => client.pull(&place, repository, token).await,
                // Everybody's repositories there are public: there is nothing to allow but the token itself.
                Service::Public => client.login(&place, token).await,
            }
        };
        let Ok(answer) = tokio::time::timeout_at(self.deadline, asked).await else {
            return unverified(format!("no answer of registry {host} in time"));
        };
        match answer {
            Ok(Answer::Allowed) => Ok(()),
            Ok(Answer::Refused(refusal)) => {
                let (status, message) = (refusal.status, refusal.message.as_str());
                let Issuer { account, caller, .. } = issuer;
                Err(Refused { host, repository, caller, account, status, message }.problem())
            }
            Err(error) => {
                if matches!(error, RegistryError::Unreachable { .. }) {
                    silent().insert(host.clone());
                }
                unverified(error.to_string())
            }
        }
    }
}
