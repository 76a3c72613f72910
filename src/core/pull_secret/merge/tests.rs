use jiff::Timestamp;
use k8s_openapi::ByteString;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::core::pull_secret::{TokenLives, secret_manager};
use crate::core::token::Life;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn marks(uid: &str) -> Marks {
    let at = |second| Timestamp::from_second(second).unwrap();
    Marks {
        owner: SecretOwner {
            kind: "EcrPullSecret".into(),
            namespace: Some("a".into()),
            name: format!("of-{uid}"),
            uid: uid.into(),
        },
        content: "c".into(),
        tokens: TokenLives::of([]),
        life: Life { issued_at: at(0), expires_at: at(100) },
        refresh_at: at(45),
    }
}

fn secret(text: &str) -> KubeSecret {
    let data = [(DOCKER_CONFIG_KEY.to_owned(), ByteString(text.as_bytes().to_vec()))].into();
    let metadata = ObjectMeta { name: Some("shared".into()), uid: Some("s".into()), ..ObjectMeta::default() };
    KubeSecret { metadata, type_: Some(DOCKER_CONFIG_TYPE.into()), data: Some(data), ..KubeSecret::default() }
}

fn entries(of: &[(&str, Option<&str>)]) -> Entries {
    let entry = |auth: &&str| Secret::new(json!({"auth": auth}).to_string());
    of.iter().map(|(host, auth)| ((*host).to_owned(), auth.as_ref().map(entry))).collect()
}

/// As the API server would.
fn applied(mut secret: KubeSecret, uid: &str, change: &Change) -> KubeSecret {
    let Change::Write { text, note, gone, label } = change else { panic!("deleted") };
    if let Some(text) = text {
        let bytes = ByteString(text.expose().as_bytes().to_vec());
        secret.data.get_or_insert_default().insert(DOCKER_CONFIG_KEY.to_owned(), bytes);
    }
    let annotations = secret.metadata.annotations.get_or_insert_default();
    match note {
        Some(note) => drop(annotations.insert(note_key(uid), note.clone())),
        None => drop(annotations.remove(&note_key(uid))),
    }
    annotations.retain(|key, _| !gone.iter().any(|uid| *key == note_key(uid)));
    let labels = secret.metadata.labels.get_or_insert_default();
    labels.remove(OWNER_UID);
    if *label {
        labels.insert(OWNER_UID.to_owned(), MERGED.to_owned());
    }
    secret
}

/// What `merge` changes.
fn changes(
    secret: &KubeSecret,
    marks: &Marks,
    entries: &Entries,
    gone: &BTreeSet<String>,
) -> Result<Option<Change>, Problem> {
    merge(secret, marks, entries, gone).map(|merged| merged.change)
}

fn merged(secret: KubeSecret, uid: &str, of: &[(&str, Option<&str>)]) -> KubeSecret {
    let change = changes(&secret, &marks(uid), &entries(of), &BTreeSet::new()).unwrap().unwrap();
    applied(secret, uid, &change)
}

fn read(secret: &KubeSecret) -> Value {
    serde_json::from_slice(text(secret)).unwrap()
}

fn refused(secret: &KubeSecret, uid: &str) -> Problem {
    changes(secret, &marks(uid), &entries(&[(HOST, Some("ours"))]), &BTreeSet::new()).unwrap_err()
}

#[test]
fn our_entry_is_put_beside_those_of_others_and_taken_out_again() {
    let foreign = r#"{"auths":{"example.com":{"auth":"eHg="}},"credHelpers":{"a":"b"}}"#;
    let with = merged(secret(foreign), "u", &[(HOST, Some("ours"))]);
    assert_eq!(read(&with)["auths"][HOST]["auth"], "ours");
    assert_eq!(read(&with)["auths"]["example.com"]["auth"], "eHg=");
    assert!(Note::read(&with.metadata, "u").unwrap().is_true_of(&with));
    assert!(
        changes(&with, &marks("u"), &entries(&[(HOST, Some("ours"))]), &BTreeSet::new()).unwrap().is_none(),
        "once is enough"
    );
    let without = applied(with.clone(), "u", &unmerge(&with, "u", &BTreeSet::new()).unwrap());
    assert_eq!(text(&without), foreign.as_bytes());
    assert_eq!(without.metadata.labels, Some(BTreeMap::new()));
    assert_eq!(without.metadata.annotations, Some(BTreeMap::new()));
    assert!(unmerge(&without, "u", &BTreeSet::new()).is_none());
}

#[test]
fn what_somebody_did_to_our_entry_is_seen_and_taken_back() {
    let with = merged(secret("{}"), "u", &[(HOST, Some("ours"))]);
    for text in
        [r#"{"auths":{}}"#.to_owned(), json!({"auths": {HOST: {"auth": "theirs"}}}).to_string(), "nonsense".into()]
    {
        let mut edited = secret(&text);
        edited.metadata = with.metadata.clone();
        assert!(!Note::read(&edited.metadata, "u").unwrap().is_true_of(&edited), "{text}");
    }
    let mut edited = secret(&json!({"auths": {HOST: {"auth": "theirs"}}}).to_string());
    edited.metadata = with.metadata;
    assert_eq!(read(&merged(edited, "u", &[(HOST, Some("ours"))]))["auths"][HOST]["auth"], "ours");
}

#[test]
fn an_entry_that_became_somebody_elses_stays_when_ours_are_taken_out() {
    let with = merged(secret("{}"), "u", &[(HOST, Some("ours"))]);
    let mut edited = secret(&json!({"auths": {HOST: {"auth": "theirs"}}}).to_string());
    edited.metadata = with.metadata;
    let left = applied(edited.clone(), "u", &unmerge(&edited, "u", &BTreeSet::new()).unwrap());
    assert_eq!(read(&left)["auths"][HOST]["auth"], "theirs");
}

#[test]
fn a_host_that_somebody_holds_is_refused_by_name() {
    let foreign = secret(&json!({"auths": {HOST: {"auth": "theirs"}}}).to_string());
    let problem = refused(&foreign, "u");
    assert_eq!(problem.reason, Reason::SecretConflict);
    assert!(problem.message.contains(HOST) && !problem.message.contains("theirs"), "{problem}");
    let first = merged(secret("{}"), "u1", &[(HOST, Some("ours"))]);
    let problem = refused(&first, "u2");
    assert_eq!(problem.reason, Reason::Conflict);
    assert!(problem.message.contains("EcrPullSecret a/of-u1"), "{problem}");
    let gone = BTreeSet::from(["u1".to_owned()]);
    let late = changes(&first, &marks("u2"), &entries(&[(HOST, Some("mine"))]), &gone);
    let late = applied(first, "u2", &late.unwrap().expect("one that is no more holds nothing"));
    let third = changes(&late, &marks("u3"), &entries(&[(HOST, Some("third"))]), &gone).unwrap_err();
    assert!(third.message.contains("EcrPullSecret a/of-u2"), "nor does it hide one that is there: {third}");
    let marked_by_hand = secret(&json!({"auths": {HOST: {"auth": "ours"}}}).to_string());
    assert!(
        Note::read(&merged(marked_by_hand, "u", &[(HOST, Some("ours"))]).metadata, "u").is_some(),
        "the very same is ours"
    );
}

#[test]
fn a_host_that_somebody_holds_keeps_no_other_from_being_renewed() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let life = |from| Life { issued_at: at(from), expires_at: at(from + 100) };
    let with = |from| {
        let lives = ["foreign", "mine", "of-another"].map(|host| (host, life(from), "r"));
        Marks { tokens: TokenLives::of(lives), ..marks("u") }
    };
    let foreign = secret(r#"{"auths":{"foreign":{"auth":"theirs"}}}"#);
    let mut there = merged(foreign, "another", &[("of-another", Some("other"))]);
    for (from, auth) in [(0, "first"), (50, "second")] {
        let wanted = entries(&[("foreign", Some(auth)), ("mine", Some(auth)), ("of-another", Some(auth))]);
        let merged = merge(&there, &with(from), &wanted, &BTreeSet::new()).unwrap();
        let told = merged.left_out.unwrap();
        assert_eq!(told.reason, Reason::SecretConflict);
        assert!(told.message.contains("for foreign") && told.message.contains("a/of-another"), "{told}");
        there = applied(there, "u", &merged.change.unwrap());
        let kept = json!({"foreign": {"auth": "theirs"}, "mine": {"auth": auth}, "of-another": {"auth": "other"}});
        assert_eq!(read(&there)["auths"], kept);
        let note = Note::read(&there.metadata, "u").unwrap();
        assert_eq!(note.entries.keys().collect::<Vec<_>>(), ["mine"]);
        assert_eq!(["foreign", "mine"].map(|host| note.marks.tokens.issued(host)), [None, Some(at(from))]);
        assert_eq!(note.marks, merged.marks);
        let again = merge(&there, &with(from), &wanted, &BTreeSet::new()).unwrap();
        assert!(again.change.is_none() && again.left_out.is_some(), "once is enough, and it is told again");
    }
}

#[test]
fn two_of_ours_share_a_secret_and_each_takes_out_its_own() {
    let both = merged(merged(secret("{}"), "u1", &[("one", Some("a"))]), "u2", &[("two", Some("b"))]);
    let left = applied(both.clone(), "u1", &unmerge(&both, "u1", &BTreeSet::new()).unwrap());
    assert_eq!(read(&left), json!({"auths": {"two": {"auth": "b"}}}));
    assert!(is_labelled(&left.metadata));
    assert_eq!(noted(&left.metadata).collect::<Vec<_>>(), ["u2"]);
}

#[test]
fn what_those_left_who_are_no_more_goes_with_the_next_write_of_another() {
    let gone = &BTreeSet::from(["gone".to_owned()]);
    let left = merged(secret("{}"), "gone", &[("old", Some("a")), ("edited", Some("b")), (HOST, Some("c"))]);
    let both = merged(left, "there", &[("other", Some("d"))]);
    let mut document = read(&both);
    document["auths"]["edited"] = json!({"auth": "by somebody"});
    let mut both = both;
    both.data = secret(&document.to_string()).data;

    let wanted = entries(&[(HOST, None), ("mine", Some("e"))]);
    let change = changes(&both, &marks("u"), &wanted, gone).unwrap().unwrap();
    let now = applied(both.clone(), "u", &change);
    assert_eq!(noted(&now.metadata).collect::<Vec<_>>(), ["there", "u"]);
    let auths = read(&now)["auths"].clone();
    let kept =
        json!({"other": {"auth": "d"}, "edited": {"auth": "by somebody"}, HOST: {"auth": "c"}, "mine": {"auth": "e"}});
    assert_eq!(auths, kept, "a host that is taken over stays until there is a token for it");
    assert!(changes(&now, &marks("u"), &wanted, gone).unwrap().is_none(), "once is enough");
    let taken_over = changes(&now, &marks("u"), &entries(&[(HOST, Some("f")), ("mine", Some("e"))]), gone);
    assert_eq!(read(&applied(now, "u", &taken_over.unwrap().unwrap()))["auths"][HOST]["auth"], "f");

    let without = applied(both.clone(), "there", &unmerge(&both, "there", gone).unwrap());
    assert_eq!(noted(&without.metadata).count(), 0);
    assert_eq!(read(&without), json!({"auths": {"edited": {"auth": "by somebody"}}}));
    let mut made = merged(merged(secret("{}"), "gone", &[("old", Some("a"))]), "u", &[(HOST, Some("b"))]);
    made.metadata.annotations.as_mut().unwrap().insert(CREATED.to_owned(), "true".to_owned());
    assert!(matches!(unmerge(&made, "u", gone), Some(Change::Delete)), "nobody is left in it");
}

#[test]
fn without_a_token_an_entry_stays_and_hosts_that_are_no_longer_wanted_go() {
    let with = merged(secret("{}"), "u", &[("one", Some("a")), ("two", Some("b")), ("three", Some("c"))]);
    let kept = merged(with, "u", &[("one", None), ("two", Some("new"))]);
    assert_eq!(read(&kept), json!({"auths": {"one": {"auth": "a"}, "two": {"auth": "new"}}}));
    assert!(Note::read(&kept.metadata, "u").unwrap().is_true_of(&kept));
    let still = merged(kept, "u", &[("one", Some("a2")), ("two", Some("new"))]);
    assert_eq!(read(&still)["auths"]["one"]["auth"], "a2");
}

#[test]
fn what_cannot_be_shared_is_refused_by_name() {
    let mut opaque = secret("{}");
    opaque.type_ = Some("Opaque".into());
    let mut immutable = secret("{}");
    immutable.immutable = Some(true);
    let mut own = secret("{}");
    own.metadata.labels = Some([(OWNER_UID.to_owned(), "u1".to_owned())].into());
    own.metadata.annotations = Some(marks("u1").annotations());
    let fields = json!([{"manager": secret_manager("u1"), "operation": "Apply", "fieldsV1": {"f:data": {}}}]);
    own.metadata.managed_fields = serde_json::from_value(fields).unwrap();
    for (secret, why) in [
        (opaque, "its type is Opaque"),
        (immutable, "immutable: true"),
        (own, "EcrPullSecret a/of-u1"),
        (secret(r#"{"auths":["hush"]}"#), "`auths` isn't a JSON object"),
    ] {
        let problem = refused(&secret, "u");
        assert_eq!(problem.reason, Reason::SecretConflict);
        assert!(problem.message.contains(why) && !problem.message.contains("hush"), "{problem}");
    }
    let large = secret(&json!({"a": "x".repeat(MOST_BYTES - 20)}).to_string());
    let problem = refused(&large, "u");
    assert_eq!(problem.reason, Reason::Invalid);
    assert!(problem.message.contains("a Secret holds 1048576"), "{problem}");
}

#[test]
fn a_secret_goes_only_if_we_made_it_and_nothing_foreign_is_in_it() {
    let made = |annotations: &[&str], text: &str| {
        let mut secret = secret(text);
        secret.metadata.annotations = Some(annotations.iter().map(|key| ((*key).to_owned(), String::new())).collect());
        merged(secret, "u", &[(HOST, Some("ours"))])
    };
    let goes = |secret: &KubeSecret| matches!(unmerge(secret, "u", &BTreeSet::new()), Some(Change::Delete));
    assert!(goes(&made(&[CREATED], "{}")));
    assert!(!goes(&made(&[], "{}")), "it was there before");
    assert!(!goes(&made(&[CREATED, "theirs"], "{}")));
    assert!(!goes(&made(&[CREATED], r#"{"auths":{"example.com":{}}}"#)));
    assert!(!goes(&made(&[CREATED], r#"{"credsStore":"x"}"#)));
    let mut other_key = made(&[CREATED], "{}");
    other_key.data.as_mut().unwrap().insert("theirs".into(), ByteString(vec![]));
    assert!(!goes(&other_key));
    assert!(!goes(&merged(made(&[CREATED], "{}"), "u2", &[("two", Some("b"))])), "another is still in it");
}

fn documents() -> impl Strategy<Value = String> {
    let auths = proptest::collection::btree_map("[a-c]\\.example", "[a-zA-Z0-9=]{0,8}", 0..4);
    let others = proptest::collection::btree_map("[A-Z][a-z]{0,6}", any::<Option<i64>>(), 0..3);
    (auths, others).prop_map(|(auths, others)| {
        let mut value = json!(others);
        value["auths"] = auths.into_iter().map(|(host, auth)| (host, json!({"auth": auth}))).collect();
        value.to_string()
    })
}

proptest! {
    #[test]
    fn whatever_several_of_ours_do_the_foreign_part_is_as_it_was(
        foreign in documents(),
        steps in proptest::collection::vec((0..3usize, proptest::option::of(proptest::option::of("[a-z]{1,4}"))), 1..12),
    ) {
        let mut secret = secret(&foreign);
        let before = read(&secret);
        for (who, wanted) in steps {
            let (uid, host) = (format!("u{who}"), format!("host-{who}"));
            let change = match &wanted {
                Some(auth) => {
                    let wanted = entries(&[(host.as_str(), auth.as_deref())]);
                    let change = changes(&secret, &marks(&uid), &wanted, &BTreeSet::new()).unwrap();
                    if let Some(change) = &change {
                        let after = applied(secret.clone(), &uid, change);
                        prop_assert!(changes(&after, &marks(&uid), &wanted, &BTreeSet::new()).unwrap().is_none(), "a second time changes nothing");
                    }
                    change
                }
                None => unmerge(&secret, &uid, &BTreeSet::new()),
            };
            if let Some(change) = change {
                secret = applied(secret, &uid, &change);
            }
            for (host, entry) in before["auths"].as_object().unwrap() {
                prop_assert_eq!(&read(&secret)["auths"][host], entry);
            }
        }
        for uid in ["u0", "u1", "u2"] {
            if let Some(change) = unmerge(&secret, uid, &BTreeSet::new()) {
                secret = applied(secret, uid, &change);
            }
        }
        prop_assert_eq!(text(&secret), foreign.as_bytes());
    }
}
