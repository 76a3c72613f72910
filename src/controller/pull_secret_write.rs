//! Writing a pull secret's Secrets: each namespace gets what its rights allow, and nothing of somebody else's is lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::api::{MergePolicy, SecretFormat};
use crate::cluster::{Applied, CONCURRENT_WRITES, Data, SecretWriter, foreign};
use crate::controller::contests::Place;
use crate::controller::context::Context;
use crate::controller::pull_secret::Secrets;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::{Desired, Variant};
use crate::controller::pull_secret_served::{Served, Tokens};
use crate::controller::pull_secret_tokens::{Batches, tokens};
use crate::core::contest::Turn;
use crate::core::pull_secret::{
    ContentError, DOCKER_CONFIG_KEY, DOCKER_CONFIG_TYPE, Entries, Login, Marks, OPAQUE_TYPE, SecretOwner, Seen,
    TokenLives, docker_config, docker_entry, only_one_host, template_data,
};
use crate::core::reason::{Problem, Reason};
use crate::core::token::{Life, Token, fingerprint};

/// Writes the Secrets that are `due`, each once its tokens are there, issued at `since` or later if that can be.
///
/// # Errors
/// Where tokens couldn't be looked up; those that could be are written.
pub(super) async fn write<K: PullSecret>(
    object: &K,
    context: &Context,
    desired: &Desired,
    due: Vec<(String, Arc<Variant>)>,
    since: Option<Timestamp>,
    seen: &Secrets,
    served: &mut Served,
) -> Result<(), Problem> {
    let writer = SecretWriter::new(
        context.client.clone(),
        desired.name.clone(),
        object.owner_reference(),
        object.template_labels(),
        object.template_annotations(),
    );
    let all_usable = desired.failures.is_empty();
    let (ready, batches) = futures::channel::mpsc::unbounded();
    let lookups = tokens(object, context, desired, by_variant(due), since, ready);
    // What is to be written is made when its turn comes: of many variants, few are in memory at once.
    let batches = batches.map(|(variant, namespaces, tokens)| {
        let contents = contents(object, &variant, &tokens, all_usable).map(Arc::new);
        let lives: Arc<HashMap<_, _>> = Arc::new(lives(&variant, &tokens).collect());
        futures::stream::iter(namespaces.into_iter().map(move |namespace| (namespace, contents.clone(), lives.clone())))
    });
    let requests = batches.flatten().map(|(namespace, contents, lives)| {
        let there = seen.get(&(namespace.clone(), desired.name.clone())).cloned();
        let there = there.map(|there| there.knowing(|host| lives.get(host).copied()));
        let holder = holder(object, context, &namespace, &desired.name);
        let writer = &writer;
        async move {
            let outcome = match (holder, contents) {
                (Holder::Another(owner), _) => Err(foreign(&writer.name, &format!("it belongs to {owner}"))),
                (Holder::Leaving, _) => Err(leaving(&writer.name)),
                (_, Err(Unwritten::NoToken(problem))) => {
                    there.as_ref().and_then(Seen::intact).cloned().map(Written::Kept).ok_or(problem)
                }
                (_, Err(Unwritten::Unfit(problem))) => Err(problem),
                (Holder::Nobody(orphan), Ok(contents)) => {
                    put(context, writer, &namespace, &contents, there.as_ref(), orphan.as_ref()).await
                }
            };
            (namespace, there, outcome)
        }
    });
    let mut answers = requests.buffer_unordered(CONCURRENT_WRITES);
    let written = async {
        while let Some((namespace, there, outcome)) = answers.next().await {
            match outcome {
                Ok(Written::Kept(marks) | Written::Done(marks)) => drop(served.ready.insert(namespace, marks)),
                Ok(Written::Partly(marks, problem)) => {
                    served.ready.insert(namespace.clone(), marks);
                    served.fail(namespace, problem);
                }
                Ok(Written::Contested(until, problem)) => {
                    served.look_at(until);
                    served.grow_old(&namespace, there.as_ref(), problem);
                }
                Ok(Written::Terminating) => drop(served.terminating.insert(namespace)),
                Err(problem) => served.grow_old(&namespace, there.as_ref(), problem),
            }
        }
    };
    let (tokens, ()) = futures::join!(lookups, written);
    served.tokens = tokens?;
    Ok(())
}

/// Of the tokens at hand, by host.
fn lives(variant: &Variant, tokens: &Tokens) -> impl Iterator<Item = (String, Life)> {
    variant.logins.iter().filter_map(|login| {
        let token = tokens.get(&login.token)?.token.as_ref()?;
        Some((login.host.clone(), token.life))
    })
}

fn by_variant(due: Vec<(String, Arc<Variant>)>) -> Batches {
    let mut batches = Batches::new();
    for (namespace, variant) in due {
        batches.entry(variant.content.clone()).or_insert_with(|| (variant, Vec::new())).1.push(namespace);
    }
    batches
}

enum Written {
    Done(Marks),
    /// But for some of the hosts.
    Partly(Marks, Problem),
    /// As it was.
    Kept(Marks),
    /// Somebody keeps undoing it: left alone, or watched, until then.
    Contested(Timestamp, Problem),
    Terminating,
}

/// Writes one, unless what is there is as good or better, or somebody keeps undoing just that.
async fn put(
    context: &Context,
    writer: &SecretWriter,
    namespace: &str,
    contents: &Contents,
    there: Option<&Seen>,
    orphan: Option<&Seen>,
) -> Result<Written, Problem> {
    let (marks, now) = (&contents.marks, Timestamp::now());
    let place = Place { owner_uid: &marks.owner.uid, namespace, name: &writer.name };
    // A token that is due is renewed in the midst of it.
    let look_at = |until: Timestamp| until.min(marks.refresh_at);
    if let Some(kept) = there.and_then(|there| better(there, contents)) {
        return Ok(match context.contests.holds(place, now) {
            Some(until) => Written::Contested(look_at(until), contested(writer, place, until).await),
            None => Written::Kept(kept),
        });
    }
    let what = marks.digest();
    if let Turn::Pause(until) = context.contests.lacks(place, &what, now) {
        return Ok(Written::Contested(look_at(until), contested(writer, place, until).await));
    }
    let applied = match &contents.payload {
        Payload::Whole(data) => writer.apply(namespace, marks, data, there.or(orphan)).await?,
        Payload::Entries(entries) => {
            let is_cached = |uid: &str| context.stores.is_pull_secret(uid);
            context.merged_secrets.put((namespace, &writer.name), marks, entries, is_cached).await?
        }
    };
    if let Applied::Done(Some(version)) | Applied::Partly(_, _, Some(version)) = &applied {
        context.contests.brought(place, &what, version, now);
    }
    Ok(match applied {
        Applied::Done(_) => Written::Done(marks.clone()),
        Applied::Partly(marks, problem, _) => Written::Partly(*marks, problem),
        Applied::Terminating => Written::Terminating,
    })
}

async fn contested(writer: &SecretWriter, place: Place<'_>, until: Timestamp) -> Problem {
    let who = writer.last_writer(place.namespace, place.owner_uid).await.unwrap_or_else(|| "somebody".to_owned());
    Problem::new(
        Reason::Contested,
        format!(
            "Secret {}: {who} keeps undoing what is written there; have it leave that alone, or name another Secret in spec.secretName. A new token is written all the same. Next look at {until:.0}",
            place.name
        ),
    )
}

/// The data for all namespaces with the same rights, with what is noted beside it.
struct Contents {
    payload: Payload,
    marks: Marks,
    /// Whether every host that is asked for has its token in it.
    complete: bool,
}

/// Why there is nothing to write.
#[derive(Clone)]
enum Unwritten {
    /// No token at all is to be had: what is there stays as good as it is, unless it was edited.
    NoToken(Problem),
    /// What is declared can't be written with these tokens, so that what is there is renewed no more.
    Unfit(Problem),
}

/// What a Secret gets.
enum Payload {
    /// All of its data.
    Whole(Data),
    /// Entries beside those of others.
    Entries(Entries),
}

fn contents<K: PullSecret>(
    object: &K,
    variant: &Variant,
    tokens: &Tokens,
    all_usable: bool,
) -> Result<Contents, Unwritten> {
    let now = Timestamp::now();
    // One that is dead opens nothing: where it is, it stays.
    let alive = |token: &&Token| token.life.expires_at > now;
    let token = |login: &Login| tokens.get(&login.token)?.token.as_deref().filter(alive);
    let held: Vec<(&Login, &Token)> = variant.logins.iter().filter_map(|login| Some((login, token(login)?))).collect();
    let first_to_end = held.iter().map(|(_, token)| *token).min_by_key(|token| token.life.expires_at);
    let first_due = held.iter().map(|(_, token)| token.refresh_at).min();
    let (Some(first_to_end), Some(refresh_at)) = (first_to_end, first_due) else {
        let failures = variant.logins.iter().filter_map(|login| tokens.get(&login.token)?.failure.as_ref());
        let problem = failures.map(|(error, _)| error.problem("*")).next();
        return Err(Unwritten::NoToken(problem.unwrap_or_else(|| Problem::new(Reason::Transient, "no token yet"))));
    };
    let entries: Vec<_> = held.iter().map(|(login, token)| (login.host.as_str(), *token)).collect();
    let payload = payload(object, variant, &entries).map_err(Unwritten::Unfit)?;
    let rights: Vec<_> = held.iter().map(|(login, _)| fingerprint(&[&login.token.scope.to_string()])).collect();
    let lives = entries.iter().zip(&rights).map(|((host, token), rights)| (*host, token.life, rights.as_str()));
    let marks = Marks {
        owner: object.owner(),
        content: variant.content.clone(),
        tokens: TokenLives::of(lives),
        life: first_to_end.life,
        refresh_at,
    };
    Ok(Contents { payload, marks, complete: all_usable && held.len() == variant.logins.len() })
}

fn payload<K: PullSecret>(object: &K, variant: &Variant, held: &[(&str, &Token)]) -> Result<Payload, Problem> {
    let spec = object.common();
    let unwritable = |error: ContentError| Problem::new(Reason::Invalid, error.to_string());
    if spec.merge_policy == MergePolicy::Merge {
        let without = variant.logins.iter().map(|login| Ok((login.host.clone(), None)));
        let with = held.iter().map(|(host, token)| Ok(((*host).to_owned(), Some(docker_entry(token)?))));
        return without.chain(with).collect::<Result<_, _>>().map(Payload::Entries).map_err(unwritable);
    }
    let (type_, values) = match spec.format {
        SecretFormat::Template if variant.logins.len() != 1 => return Err(only_one_host(variant.logins.len())),
        SecretFormat::Template => {
            let template = spec.secret_template.as_ref().and_then(|template| template.data.as_ref());
            (OPAQUE_TYPE, template_data(template.unwrap_or(&BTreeMap::new()), held)?)
        }
        SecretFormat::DockerConfigJson => {
            let config = docker_config(held.iter().copied()).map_err(unwritable)?;
            (DOCKER_CONFIG_TYPE, [(DOCKER_CONFIG_KEY.to_owned(), config)].into())
        }
    };
    Ok(Payload::Whole(Data { type_, values }))
}

/// The marks of a Secret that is better left alone: it holds the very same, or what outlasts it.
fn better(there: &Seen, contents: &Contents) -> Option<Marks> {
    let better = there.holds(&contents.marks) || there.outlasts(&contents.marks, contents.complete, Timestamp::now());
    there.marks.clone().filter(|_| better)
}

/// Who holds the Secret of that name.
enum Holder {
    /// Another pull secret.
    Another(SecretOwner),
    /// One that is no more, and takes it along as soon as garbage is collected.
    Leaving,
    /// Nobody, or this object; a Secret that was written for one that no longer exists may be taken over.
    Nobody(Option<Seen>),
}

fn holder<K: PullSecret>(object: &K, context: &Context, namespace: &str, name: &str) -> Holder {
    let secret = context.stores.secrets.get(&ObjectRef::new(name).within(namespace));
    let Some((secret, seen)) = secret.and_then(|secret| Seen::read(&secret.metadata).map(|seen| (secret, seen))) else {
        return Holder::Nobody(None);
    };
    if seen.owner_uid == object.owner().uid {
        return Holder::Nobody(Some(seen));
    }
    if context.stores.is_pull_secret(&seen.owner_uid) {
        let unknown = || SecretOwner::unknown(seen.owner_uid.clone());
        return Holder::Another(seen.marks.as_ref().map_or_else(unknown, |marks| marks.owner.clone()));
    }
    // An object has one controller: ours can't be added to that.
    let is_held = secret.owner_references().iter().any(|reference| reference.uid == seen.owner_uid);
    if is_held { Holder::Leaving } else { Holder::Nobody(Some(seen)) }
}

fn leaving(name: &str) -> Problem {
    Problem::new(
        Reason::Transient,
        format!(
            "a Secret {name} is there that goes with the pull secret it was written for, which is no more; then it is written anew"
        ),
    )
}
