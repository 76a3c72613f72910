//! A pull secret as its metadata tells it: the Secret's data is never read, so what was written is marked beside it.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{EXPIRES_AT, OWNER_KIND, OWNER_NAME, OWNER_NAMESPACE, OWNER_UID};
use crate::core::pull_secret::token_lives::NotedToken;
use crate::core::pull_secret::{Integrity, TokenLives, secret_manager};
use crate::core::token::{Life, fingerprint};

const ISSUED_AT: &str = "ecr-operator.dev/issued-at";
const REFRESH_AT: &str = "ecr-operator.dev/refresh-at";
const CONTENT: &str = "ecr-operator.dev/content";
const TOKENS: &str = "ecr-operator.dev/tokens";

/// The pull secret that a Secret belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretOwner {
    /// `EcrPullSecret` or `ClusterEcrPullSecret`.
    pub kind: String,
    /// Absent where it is cluster-scoped.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl SecretOwner {
    /// One of which nothing but the UID is known.
    #[must_use]
    pub fn unknown(uid: String) -> Self {
        Self { kind: "pull secret".to_owned(), namespace: None, name: uid.clone(), uid }
    }
}

impl fmt::Display for SecretOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, .. } = self;
        match &self.namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

/// What is noted on a Secret when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Whose it is.
    pub owner: SecretOwner,
    /// A fingerprint of everything but the tokens: hosts, identities, template.
    pub content: String,
    /// When its tokens were issued and end, host by host.
    pub tokens: TokenLives,
    /// The life of the token in it that ends first.
    pub life: Life,
    /// When the first of its tokens is to be renewed.
    pub refresh_at: Timestamp,
}

impl Marks {
    /// As annotations.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let namespace = self.owner.namespace.clone().map(|namespace| (OWNER_NAMESPACE, namespace));
        [
            (OWNER_KIND, self.owner.kind.clone()),
            (OWNER_NAME, self.owner.name.clone()),
            (CONTENT, self.content.clone()),
            (TOKENS, self.tokens.0.clone()),
            (ISSUED_AT, self.life.issued_at.to_string()),
            (EXPIRES_AT, self.life.expires_at.to_string()),
            (REFRESH_AT, self.refresh_at.to_string()),
        ]
        .into_iter()
        .chain(namespace)
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// A short name for all of them.
    #[must_use]
    pub fn digest(&self) -> String {
        let annotations = self.annotations();
        fingerprint(&annotations.values().map(String::as_str).collect::<Vec<_>>())
    }

    /// From a Secret's metadata; `None` where a mark is missing or was spoilt.
    #[must_use]
    pub fn read(meta: &ObjectMeta) -> Option<Self> {
        let annotations = meta.annotations.as_ref()?;
        let text = |key: &str| annotations.get(key).cloned();
        let time = |key: &str| text(key)?.parse::<Timestamp>().ok();
        Some(Self {
            owner: SecretOwner {
                kind: text(OWNER_KIND)?,
                namespace: text(OWNER_NAMESPACE),
                name: text(OWNER_NAME)?,
                uid: meta.labels.as_ref()?.get(OWNER_UID)?.clone(),
            },
            content: text(CONTENT)?,
            tokens: TokenLives(text(TOKENS)?),
            life: Life { issued_at: time(ISSUED_AT)?, expires_at: time(EXPIRES_AT)? },
            refresh_at: time(REFRESH_AT)?,
        })
    }
}

/// A Secret that the operator wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The Secret's own UID.
    pub uid: String,
    /// UID of the pull secret that it was written for.
    pub owner_uid: String,
    /// The marks, if they are whole.
    pub marks: Option<Marks>,
    /// How much is left of what we wrote.
    pub integrity: Integrity,
}

impl Seen {
    /// Reads it off the metadata, `managedFields` included. `None` where the label says that it is ours and the API server
    /// doesn't: a copy, made by somebody else.
    #[must_use]
    pub fn read(meta: &ObjectMeta) -> Option<Self> {
        let owner_uid = meta.labels.as_ref()?.get(OWNER_UID)?.clone();
        let integrity = Integrity::of(meta, &secret_manager(&owner_uid))?;
        Some(Self { uid: meta.uid.clone()?, marks: Marks::read(meta), integrity, owner_uid })
    }

    /// Whether what it holds is what we put in.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.integrity > Integrity::Edited
    }

    /// What is noted on it, where it still holds what we put in.
    #[must_use]
    pub fn intact(&self) -> Option<&Marks> {
        self.marks.as_ref().filter(|_| self.is_intact())
    }

    /// Whether it needs neither new tokens nor repair at `now`, and has one for each of `hosts`, issued at `since` or later.
    #[must_use]
    pub fn is_good<'a>(
        &self,
        content: &str,
        hosts: impl IntoIterator<Item = &'a str>,
        now: Timestamp,
        since: Option<Timestamp>,
    ) -> bool {
        let is_good = |marks: &Marks| {
            marks.content == content
                && marks.tokens.lacking(hosts).next().is_none()
                && marks.refresh_at > now
                && since.is_none_or(|since| marks.life.issued_at >= since)
        };
        self.integrity == Integrity::Whole && self.marks.as_ref().is_some_and(is_good)
    }

    /// The same, as its tokens turned out to live: `at_hand` tells of each host's token when it was issued and ends.
    #[must_use]
    pub fn knowing(mut self, at_hand: impl Fn(&str) -> Option<Life>) -> Self {
        let Some(marks) = &mut self.marks else { return self };
        let known =
            |host: &str, life: Life| at_hand(host).filter(|known| known.issued_at == life.issued_at).unwrap_or(life);
        let lives: Vec<_> =
            marks.tokens.all().map(|told| (told.host, known(told.host, told.life), told.rights)).collect();
        let first_to_end = lives.iter().map(|(_, life, _)| *life).min_by_key(|life| life.expires_at);
        let tokens = TokenLives::of(lives);
        marks.life = first_to_end.unwrap_or(marks.life);
        marks.tokens = tokens;
        self
    }

    /// Whether it is better left as it is than overwritten with `offered`: because it holds a token that works for a while
    /// yet and isn't on offer although all are wanted (`complete` says that all of them are); or because what is on offer
    /// is older, as another process may have written what lives longer than what this one has at hand. Never where a token
    /// in it may do something else than it now should.
    #[must_use]
    pub fn outlasts(&self, offered: &Marks, complete: bool, now: Timestamp) -> bool {
        let Some(marks) = self.intact() else {
            return false;
        };
        let pairs = || offered.tokens.all().map(|token| (marks.tokens.token(token.host), token));
        if pairs().any(|(there, token)| there.is_some_and(|there| there.rights != token.rights)) {
            return false;
        }
        let lives_on = |there: &NotedToken<'_>| there.life.dies_soon_at() > now;
        let holds_more =
            || marks.tokens.all().any(|there| lives_on(&there) && offered.tokens.token(there.host).is_none());
        let is_after = |a: Life, b: Life| a.issued_at > b.issued_at || a.expires_at > b.expires_at;
        let brings_newer = || pairs().any(|(there, token)| there.is_none_or(|there| is_after(token.life, there.life)));
        let holds_newer = || pairs().any(|(there, token)| there.is_some_and(|there| is_after(there.life, token.life)));
        (!complete && holds_more()) || (marks.content == offered.content && holds_newer() && !brings_newer())
    }

    /// Whether writing `marks` would change nothing.
    #[must_use]
    pub fn holds(&self, marks: &Marks) -> bool {
        self.integrity == Integrity::Whole && self.marks.as_ref() == Some(marks)
    }
}

/// Leaves of `managedFields` what [`Seen::read`] looks for: they are larger than all the rest of the metadata.
pub fn prune(meta: &mut ObjectMeta) {
    let Some(seen) = Seen::read(meta) else {
        meta.managed_fields = None;
        return;
    };
    meta.managed_fields = Some(vec![seen.integrity.entry(meta, secret_manager(&seen.owner_uid))]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn life(end: i64) -> Life {
        Life { issued_at: at(0), expires_at: at(end) }
    }

    fn marks() -> Marks {
        Marks {
            owner: SecretOwner {
                kind: "EcrPullSecret".into(),
                namespace: Some("a".into()),
                name: "b".into(),
                uid: "u".into(),
            },
            content: "c".into(),
            tokens: TokenLives::of([("a.example", life(100), "r"), ("b.example", life(200), "r")]),
            life: Life { issued_at: at(0), expires_at: at(100) },
            refresh_at: at(45),
        }
    }

    /// With nobody's hand on it but ours.
    fn written() -> ObjectMeta {
        let by = |manager| json!([{"manager": manager, "operation": "Apply", "fieldsV1": {"f:data": {}}}]);
        ObjectMeta {
            uid: Some("s".into()),
            labels: Some([(OWNER_UID.to_owned(), "u".to_owned())].into()),
            annotations: Some(marks().annotations()),
            managed_fields: serde_json::from_value(by("ecr-operator/u")).unwrap(),
            ..ObjectMeta::default()
        }
    }

    fn whole() -> Seen {
        Seen { integrity: Integrity::Whole, ..Seen::read(&written()).unwrap() }
    }

    #[test]
    fn a_secret_tells_the_end_of_each_of_its_tokens() {
        let lives = whole().marks.unwrap().tokens;
        assert_eq!(["a.example", "b.example", "a"].map(|host| lives.end(host)), [Some(at(100)), Some(at(200)), None]);
    }

    #[test]
    fn marks_that_were_written_are_read_back() {
        let seen = whole();
        assert!(seen.holds(&marks()));
        let hosts = ["a.example", "b.example"];
        assert!(seen.is_good("c", hosts, at(44), None));
        assert!(!seen.is_good("c", hosts, at(45), None), "due");
        assert!(!seen.is_good("other hosts", hosts, at(44), None));
        assert!(!seen.is_good("c", hosts, at(44), Some(at(1))), "newer ones are wished for");
        assert!(!seen.is_good("c", ["a.example", "c.example"], at(44), None), "one is still to be had");
        assert!(
            !seen.holds(&Marks { tokens: TokenLives::of([("a.example", life(100), "r")]), ..marks() }),
            "one of several tokens was renewed"
        );
    }

    #[test]
    fn a_secret_is_as_good_as_its_tokens_turned_out_to_be() {
        let seen = || Seen::read(&written()).unwrap();
        let told = |host: &str, life: Life| seen().knowing(|asked| (asked == host).then_some(life)).marks.unwrap();
        let ended = told("b.example", life(60));
        assert_eq!((ended.life, ended.tokens.end("b.example")), (life(60), Some(at(60))));
        let another = Life { issued_at: at(30), expires_at: at(60) };
        assert_eq!(told("b.example", another), marks(), "that isn't the one it holds");
    }

    #[test]
    fn tokens_of_one_second_are_told_apart() {
        let half = Timestamp::from_millisecond(500).unwrap();
        let of = |issued_at| TokenLives::of([("a.example", Life { issued_at, expires_at: at(100) }, "r")]);
        assert_ne!(of(at(0)), of(half));
        assert_eq!(of(half).token("a.example").unwrap().life.issued_at, half);
    }

    #[test]
    fn a_secret_is_kept_for_what_only_it_holds_and_never_for_rights_that_changed() {
        let life = |from, until| Life { issued_at: at(from), expires_at: at(until) };
        let seen = whole();
        let offer = |content: &str, tokens: &[(&'static str, Life, &'static str)]| Marks {
            content: content.into(),
            tokens: TokenLives::of(tokens.iter().copied()),
            ..marks()
        };
        let newer = offer("c", &[("a.example", life(50, 150), "r")]);
        assert!(seen.outlasts(&newer, false, at(60)), "it holds a token for b.example, which isn't on offer");
        assert!(!seen.outlasts(&newer, true, at(60)), "b.example isn't wanted any more");
        assert!(!seen.outlasts(&newer, false, at(190)), "that token is nearly dead");
        let all = offer("c", &[("a.example", life(50, 150), "r"), ("b.example", life(0, 200), "r")]);
        assert!(!seen.outlasts(&all, false, at(60)), "a registry that is gone for good holds up no renewal");
        let narrower = offer("d", &[("a.example", life(50, 150), "fewer")]);
        assert!(!seen.outlasts(&narrower, false, at(60)), "rights that were withdrawn go at once");
        let older = offer("c", &[("a.example", life(-9, 91), "r"), ("b.example", life(-9, 191), "r")]);
        assert!(seen.outlasts(&older, true, at(60)), "another process wrote newer ones");
        let known_to_live_on = Marks { refresh_at: at(90), ..marks() };
        assert!(!seen.outlasts(&known_to_live_on, true, at(60)), "the same tokens, to be renewed at another time");
        let new_session = offer("c", &[("a.example", life(50, 90), "r"), ("b.example", life(50, 90), "r")]);
        assert!(!seen.outlasts(&new_session, true, at(60)), "the old ones may have ended with their session");
    }

    #[test]
    fn a_secret_that_lost_a_label_is_written_again_and_loses_no_token_by_it() {
        let stripped = Seen { integrity: Integrity::Stripped, ..whole() };
        assert!(!stripped.is_good("c", ["a.example", "b.example"], at(44), None) && !stripped.holds(&marks()));
        let part = Marks { tokens: TokenLives::of([("a.example", life(100), "r")]), ..marks() };
        assert!(stripped.outlasts(&part, false, at(44)), "the token for b.example is only there");
    }

    #[test]
    fn a_copy_that_somebody_made_is_not_ours_whatever_its_label_says() {
        for (manager, operation) in
            [("kubectl", "Update"), ("ecr-operator/another", "Apply"), ("ecr-operator/u", "Update")]
        {
            let mut meta = written();
            let entry = json!([{"manager": manager, "operation": operation, "fieldsV1": {"f:data": {}}}]);
            meta.managed_fields = serde_json::from_value(entry).unwrap();
            assert_eq!(Seen::read(&meta), None);
            prune(&mut meta);
            assert_eq!((Seen::read(&meta), meta.managed_fields), (None, None));
        }
    }
}
