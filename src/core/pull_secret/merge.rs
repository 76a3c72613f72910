//! Sharing a Secret with others: which entries of it are ours, what to change in it, and what to leave.
//!
//! What a pull secret put into a Secret is noted there in an annotation of its own, with a fingerprint of each entry: so
//! much is known without any memory of the operator's. A host is only ever written where nobody holds it, and only what
//! still is as it was written is ever taken out.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::api::OWNER_UID;
use crate::core::pull_secret::document::{Document, entry_fingerprint};
use crate::core::pull_secret::{DOCKER_CONFIG_KEY, DOCKER_CONFIG_TYPE, MOST_BYTES, Marks, SecretOwner, Seen};
use crate::core::reason::{Problem, Reason, gather};
use crate::core::token::Secret;

/// Stands in the label [`OWNER_UID`] of a Secret that may have several owners.
pub const MERGED: &str = "merged";
/// Annotation on a Secret that wasn't there before the first entry.
pub const CREATED: &str = "ecr-operator.dev/created";
const NOTE: &str = "ecr-operator.dev/merged-";

/// Hosts with their entries, as JSON; `None` where there is no token just now: an entry that is there stays.
pub type Entries = BTreeMap<String, Option<Secret>>;

/// What one pull secret put into a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whose, and from which tokens.
    pub marks: Marks,
    /// Fingerprints of the entries, by host.
    pub entries: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    marks: BTreeMap<String, String>,
    entries: BTreeMap<String, String>,
}

impl Note {
    /// That of a pull secret.
    #[must_use]
    pub fn read(meta: &ObjectMeta, owner_uid: &str) -> Option<Self> {
        let text = meta.annotations.as_ref()?.get(&note_key(owner_uid))?;
        let Written { marks, entries } = serde_json::from_str(text).ok()?;
        let labels = Some([(OWNER_UID.to_owned(), owner_uid.to_owned())].into());
        let marks = Marks::read(&ObjectMeta { labels, annotations: Some(marks), ..ObjectMeta::default() })?;
        Some(Self { marks, entries })
    }

    fn render(&self) -> String {
        let written = Written { marks: self.marks.annotations(), entries: self.entries.clone() };
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Whether the entries in the Secret are as they were written.
    #[must_use]
    pub fn is_true_of(&self, secret: &KubeSecret) -> bool {
        Document::parse(text(secret)).is_ok_and(|document| {
            self.entries.iter().all(|(host, written)| document.entry(host).as_ref() == Some(written))
        })
    }
}

/// The annotation of a pull secret's note.
#[must_use]
pub fn note_key(owner_uid: &str) -> String {
    format!("{NOTE}{owner_uid}")
}

/// The UIDs of the pull secrets that noted something on a Secret.
pub fn noted(meta: &ObjectMeta) -> impl Iterator<Item = &str> {
    meta.annotations.iter().flatten().filter_map(|(key, _)| key.strip_prefix(NOTE))
}

/// A change of a Secret that is there.
#[derive(Debug)]
pub enum Change {
    /// The members to write: the text, where it changes, the note (`None`: taken away), others' notes, and whether our label stays.
    Write {
        /// The docker config.
        text: Option<Secret>,
        /// Our note.
        note: Option<String>,
        /// UIDs of pull secrets that are no more, whose notes go.
        gone: Vec<String>,
        /// Whether others of ours are left, or we are.
        label: bool,
    },
    /// We made it and nothing is left in it.
    Delete,
}

/// What a merge comes to.
#[derive(Debug)]
pub struct Merged {
    /// What is to be changed; `None` where all is there.
    pub change: Option<Change>,
    /// The marks of what is then in it.
    pub marks: Marks,
    /// Why some of the hosts are left to those who hold them.
    pub left_out: Option<Problem>,
}

/// Whom a Secret is marked as belonging to: the pull secret that has it to itself, and all that noted something on it.
pub fn owners(meta: &ObjectMeta) -> impl Iterator<Item = SecretOwner> {
    let noted = noted(meta).map(|uid| match Note::read(meta, uid) {
        Some(note) => note.marks.owner,
        None => SecretOwner::unknown(uid.to_owned()),
    });
    sole_owner(meta).into_iter().chain(noted)
}

/// What is to be changed in `secret` so that it has `entries`, but for those that others hold. `gone` are the UIDs of its
/// [`owners`] that are no more: what is left of them is taken out.
///
/// # Errors
/// Where the Secret can't be shared: another type, immutable, malformed, too large, or others hold all of the hosts.
pub fn merge(
    secret: &KubeSecret,
    marks: &Marks,
    entries: &Entries,
    gone: &BTreeSet<String>,
) -> Result<Merged, Problem> {
    let name = secret.metadata.name.clone().unwrap_or_default();
    let refuse =
        |why: String| Problem::new(Reason::SecretConflict, format!("nothing was merged into the Secret {name}: {why}"));
    let type_ = secret.type_.as_deref().unwrap_or("Opaque");
    if type_ != DOCKER_CONFIG_TYPE {
        return Err(refuse(format!("its type is {type_}, and pods pull with {DOCKER_CONFIG_TYPE}")));
    }
    if let Some(owner) = sole_owner(&secret.metadata).filter(|owner| !gone.contains(&owner.uid)) {
        return Err(refuse(format!("it belongs to {owner} (mergePolicy Own)")));
    }
    let before = Note::read(&secret.metadata, &marks.owner.uid);
    let mut document = Document::parse(text(secret)).map_err(|error| refuse(error.to_string()))?;
    let left = Left::by_those_who_are_gone(&secret.metadata, &marks.owner.uid, gone);
    let (mut written, mut left_out) = (BTreeMap::new(), Vec::new());
    for (host, entry) in entries {
        let there = document.entry(host);
        let held = before.as_ref().and_then(|note| note.entries.get(host)).or_else(|| left.entries.get(host));
        if let Some(other) = holder(&secret.metadata, host, &marks.owner.uid, gone) {
            left_out.push(Problem::new(
                Reason::Conflict,
                format!("the Secret {name} has its entry for {host} from {other}; take the host out of one of them"),
            ));
            continue;
        }
        match entry {
            // No token now: whatever is there stays, and stays noted as it was.
            None => written.extend(held.map(|held| (host.clone(), held.clone()))),
            Some(entry) => {
                let wanted = entry_fingerprint(entry.expose());
                if held.is_none() && there.as_ref().is_some_and(|there| *there != wanted) {
                    left_out.push(Problem::new(
                        Reason::SecretConflict,
                        format!(
                            "the Secret {name} has an entry for {host} that isn't this object's, and was left as it is; take it out, and the operator fills it"
                        ),
                    ));
                    continue;
                }
                if there.as_ref() != Some(&wanted) {
                    document.set(host, entry);
                }
                written.insert(host.clone(), wanted);
            }
        }
    }
    let left_out = gather(&left_out);
    if let Some(problem) = left_out.clone().filter(|_| written.is_empty()) {
        return Err(problem);
    }
    for (host, fingerprint) in before.iter().flat_map(|note| &note.entries).chain(&left.entries) {
        if !entries.contains_key(host) {
            document.take_back(host, fingerprint);
        }
    }
    let marks = Marks { tokens: marks.tokens.only(|host| written.contains_key(host)), ..marks.clone() };
    let note = Note { marks: marks.clone(), entries: written };
    let text = changed(secret, document)?;
    if text.is_none() && left.uids.is_empty() && before.as_ref() == Some(&note) && is_labelled(&secret.metadata) {
        return Ok(Merged { change: None, marks, left_out });
    }
    if text.is_some() && secret.immutable == Some(true) {
        return Err(refuse("it is `immutable: true`; delete it, or use another secretName".to_owned()));
    }
    let bytes = size(secret, text.as_ref());
    if bytes > MOST_BYTES {
        return Err(Problem::new(
            Reason::Invalid,
            format!(
                "the Secret {name} would have {bytes} bytes; a Secret holds {MOST_BYTES}: ask for fewer hosts, or use another secretName"
            ),
        ));
    }
    let change = Change::Write { text, note: Some(note.render()), gone: left.uids, label: true };
    Ok(Merged { change: Some(change), marks, left_out })
}

/// What is to be changed in `secret` so that nothing of the pull secret is left in it; `None` where nothing is. An entry that
/// isn't as it was written is somebody else's by now. `gone` is as in [`merge`].
#[must_use]
pub fn unmerge(secret: &KubeSecret, owner_uid: &str, gone: &BTreeSet<String>) -> Option<Change> {
    let meta = &secret.metadata;
    noted(meta).find(|uid| *uid == owner_uid)?;
    let left = Left::by_those_who_are_gone(meta, owner_uid, gone);
    let alone = noted(meta).count() == left.uids.len() + 1;
    let note = Note::read(meta, owner_uid);
    let entries = note.iter().flat_map(|note| &note.entries).chain(&left.entries);
    let taken = Document::parse(text(secret)).ok().map(|mut document| {
        entries.for_each(|(host, written)| document.take_back(host, written));
        document
    });
    if alone && taken.as_ref().is_some_and(Document::is_empty) && is_only_ours(secret) {
        return Some(Change::Delete);
    }
    let text = taken.filter(|_| secret.immutable != Some(true)).and_then(|document| changed(secret, document).ok()?);
    Some(Change::Write { text, note: None, gone: left.uids, label: !alone })
}

/// The pull secret that has the whole Secret to itself.
fn sole_owner(meta: &ObjectMeta) -> Option<SecretOwner> {
    let seen = Seen::read(meta)?;
    Some(seen.marks.map_or_else(|| SecretOwner::unknown(seen.owner_uid), |marks| marks.owner))
}

/// Another pull secret that noted `host`, and is there.
fn holder(meta: &ObjectMeta, host: &str, but: &str, gone: &BTreeSet<String>) -> Option<SecretOwner> {
    let notes = noted(meta).filter(|uid| *uid != but && !gone.contains(*uid)).filter_map(|uid| Note::read(meta, uid));
    notes.filter(|note| note.entries.contains_key(host)).map(|note| note.marks.owner).next()
}

/// What pull secrets left behind that are no more and had no time to take it out: their finalizer was taken off by hand.
struct Left {
    uids: Vec<String>,
    /// Fingerprints by host, but for hosts that somebody else of ours noted.
    entries: BTreeMap<String, String>,
}

impl Left {
    fn by_those_who_are_gone(meta: &ObjectMeta, but: &str, gone: &BTreeSet<String>) -> Self {
        let uids: Vec<_> = noted(meta).filter(|uid| *uid != but && gone.contains(*uid)).map(str::to_owned).collect();
        let mut entries: BTreeMap<_, _> =
            uids.iter().filter_map(|uid| Note::read(meta, uid)).flat_map(|note| note.entries).collect();
        entries.retain(|host, _| holder(meta, host, but, gone).is_none());
        Self { uids, entries }
    }
}

fn is_labelled(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().and_then(|labels| labels.get(OWNER_UID)).is_some_and(|value| value == MERGED)
}

/// Whether the operator made it and nobody else put anything on it.
fn is_only_ours(secret: &KubeSecret) -> bool {
    let meta = &secret.metadata;
    let ours = |key: &String| key.starts_with("ecr-operator.dev/");
    meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(CREATED))
        && meta.annotations.iter().flatten().all(|(key, _)| ours(key))
        && meta.labels.iter().flatten().all(|(key, _)| ours(key))
        && meta.owner_references.iter().flatten().next().is_none()
        && secret.data.iter().flatten().all(|(key, _)| key == DOCKER_CONFIG_KEY)
}

fn text(secret: &KubeSecret) -> &[u8] {
    secret.data.as_ref().and_then(|data| data.get(DOCKER_CONFIG_KEY)).map_or(&[], |bytes| &bytes.0)
}

/// The document's text where it isn't the one that is there.
fn changed(secret: &KubeSecret, document: Document) -> Result<Option<Secret>, Problem> {
    let unwritable = |error: serde_json::Error| Problem::new(Reason::Invalid, error.to_string());
    let before = Document::parse(text(secret)).unwrap_or_default().render().map_err(unwritable)?;
    let after = document.render().map_err(unwritable)?;
    Ok((before != after).then_some(after))
}

fn size(secret: &KubeSecret, text: Option<&Secret>) -> usize {
    let others = secret.data.iter().flatten().filter(|(key, _)| *key != DOCKER_CONFIG_KEY || text.is_none());
    others.map(|(_, bytes)| bytes.0.len()).sum::<usize>() + text.map_or(0, |text| text.expose().len())
}

#[cfg(test)]
mod tests;
