//! The tokens that a pull secret's Secrets need: those at hand, or new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::channel::mpsc::UnboundedSender;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::aws::{Answer, AwsError, Lookup, Minter, Place, RegistryClient, Session};
use crate::cluster::What;
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::{Desired, Variant};
use crate::controller::pull_secret_served::Tokens;
use crate::controller::registry_tokens::Issuer;
use crate::core::names::AccountId;
use crate::core::pull_secret::Login;
use crate::core::reason::Problem;
use crate::core::token::{Token, TokenKey};
use crate::core::token_slot::Minted;

/// Tokens that are fetched at once, for one object.
const CONCURRENT_CALLS: usize = 16;

/// Tokens at hand whose time has come by either clock, whatever is noted on the Secrets that hold them.
pub(super) fn overdue(context: &Context, desired: &Desired) -> BTreeSet<TokenKey> {
    let now = context.clocks.now();
    let mut overdue = BTreeSet::new();
    for key in desired.variants().into_iter().flat_map(|variant| &variant.logins).map(|login| &login.token) {
        if !overdue.contains(key) && context.tokens.is_due(key, now) {
            overdue.insert(key.clone());
        }
    }
    overdue
}

/// Namespaces whose Secrets get the same, by what that is.
pub(super) type Batches = BTreeMap<String, (Arc<Variant>, Vec<String>)>;

/// What some Secrets get, with their tokens as far as these are to be had.
pub(super) type Ready = (Arc<Variant>, Vec<String>, Tokens);

/// Looks tokens up, and hands each batch on to `ready` once its own are there: none waits for those of another.
pub(super) async fn tokens<K: PullSecret>(
    object: &K,
    context: &Context,
    desired: &Desired,
    batches: Batches,
    issued_since: Option<Timestamp>,
    ready: UnboundedSender<Ready>,
) -> Result<Tokens, Problem> {
    let ready = &ready;
    let lookups = batches.into_values().map(|(variant, namespaces)| async move {
        let by_key: BTreeMap<_, _> = variant.logins.iter().map(|login| (&login.token, login)).collect();
        let mut lookups = Vec::new();
        for login in by_key.into_values() {
            lookups.push(lookup(object, context, desired, login, issued_since));
        }
        let found = futures::stream::iter(lookups).buffer_unordered(CONCURRENT_CALLS);
        let found: Tokens = found.try_filter_map(|found| std::future::ready(Ok(found))).try_collect().await?;
        // Nobody receives where the pass was given up.
        let _ = ready.unbounded_send((variant.clone(), namespaces, found.clone()));
        Ok(found)
    });
    let lookups: Vec<_> = lookups.collect();
    let found: Vec<_> = futures::stream::iter(lookups).buffer_unordered(CONCURRENT_CALLS).collect().await;
    found.into_iter().try_fold(Tokens::new(), |mut all, found: Result<Tokens, Problem>| {
        all.extend(found?);
        Ok(all)
    })
}

/// The token for one host; `None` where its registry can't be used just now.
pub(super) async fn lookup<K: PullSecret>(
    object: &K,
    context: &Context,
    desired: &Desired,
    login: &Login,
    issued_since: Option<Timestamp>,
) -> Result<Option<(TokenKey, Lookup)>, Problem> {
    let key = &login.token;
    let Some(issuer) = desired.issuer(login) else { return Ok(None) };
    let session = context.registries.session(issuer, &key.region).await?;
    if let Some(since) = issued_since {
        context.tokens.expire_before(key, context.clocks.now(), since).await;
    }
    let place = place(issuer, login);
    let source = Source { session, account: &issuer.account, key, registry: &context.registry_client, place };
    let lookup = context.tokens.get(key, || context.clocks.now(), &source).await;
    if lookup.ended_with_session {
        let note = format!(
            "{} refused the token once the session of {} had ended that signed it; from now on tokens are renewed before that",
            login.host, issuer.caller
        );
        context.events.tell(object, &What::warning("TokenEndedWithSession", note)).await;
    }
    Ok(Some((key.clone(), lookup)))
}

/// Where the registry of `login` answers.
pub(super) fn place(issuer: &Issuer, login: &Login) -> Place {
    let url = issuer.spec.endpoint.as_ref().and_then(|endpoint| endpoint.url.clone());
    Place { host: login.host.clone(), url }
}

/// Where tokens come from, and where they are tried.
struct Source<'a> {
    session: Arc<Session>,
    account: &'a AccountId,
    key: &'a TokenKey,
    registry: &'a RegistryClient,
    place: Place,
}

impl Minter for Source<'_> {
    async fn mint(&self) -> Result<Minted, AwsError> {
        self.session.mint(self.account, self.key.service, &self.key.scope).await
    }

    async fn is_accepted(&self, token: &Token) -> Option<bool> {
        match self.registry.login(&self.place, token).await {
            Ok(answer) => Some(answer == Answer::Allowed),
            Err(error) => {
                tracing::warn!(%error, "whether a token outlived its session isn't known, so it is renewed");
                None
            }
        }
    }
}
