//! A docker config that others write too: its entries are set and taken out, and all the rest stays as it was, to the byte.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::core::token::{Secret, fingerprint};

/// Why a text isn't a docker config. It quotes nothing of it: there are passwords in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON.
    #[error("it isn't JSON (line {line}, column {column})")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// JSON, and something else than an object.
    #[error("it isn't a JSON object")]
    NotAnObject,
    /// `auths` is there, and isn't an object.
    #[error("its `auths` isn't a JSON object")]
    Auths,
    /// Readers would take one or the other.
    #[error("it has `auths` twice")]
    Twice,
}

/// A docker config, read only as far as its entries' names.
#[derive(Debug, Default)]
pub struct Document {
    members: Members,
    auths: Members,
}

const AUTHS: &str = "auths";

impl Document {
    /// Reads it. One that is empty or null has no entries, nor has one whose `auths` is missing or null.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        if text.trim_ascii().is_empty() || text.trim_ascii() == b"null" {
            return Ok(Self::default());
        }
        let members: Members = serde_json::from_slice(text).map_err(|error| {
            if error.is_data() {
                Malformed::NotAnObject
            } else {
                Malformed::Json { line: error.line(), column: error.column() }
            }
        })?;
        let mut found = members.0.iter().filter(|(key, _)| key == AUTHS);
        let auths = match (found.next(), found.next()) {
            (_, Some(_)) => return Err(Malformed::Twice),
            (None, None) => Members::default(),
            (Some((_, auths)), None) if auths.get() == "null" => Members::default(),
            (Some((_, auths)), None) => serde_json::from_str(auths.get()).map_err(|_| Malformed::Auths)?,
        };
        Ok(Self { members, auths })
    }

    /// A fingerprint of a host's entry; `None` where there is none.
    #[must_use]
    pub fn entry(&self, host: &str) -> Option<String> {
        self.auths.0.iter().rev().find(|(key, _)| key == host).map(|(_, entry)| entry_fingerprint(entry.get()))
    }

    /// Sets a host's entry, where it is or at the end. What isn't JSON isn't set. Of one that is there twice, readers take
    /// the last.
    pub fn set(&mut self, host: &str, entry: &Secret) {
        let Ok(entry) = RawValue::from_string(entry.expose().to_owned()) else { return };
        match self.auths.0.iter_mut().rfind(|(key, _)| key == host) {
            Some((_, there)) => *there = entry,
            None => self.auths.0.push((host.to_owned(), entry)),
        }
    }

    /// Takes a host's entry out, if it still is as it was `written`.
    pub fn take_back(&mut self, host: &str, written: &str) {
        if self.entry(host).as_deref() == Some(written) {
            self.remove(host);
        }
    }

    fn remove(&mut self, host: &str) {
        self.auths.0.retain(|(key, _)| key != host);
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.auths.0.is_empty() && self.members.0.iter().all(|(key, _)| key == AUTHS)
    }

    /// The text.
    ///
    /// # Errors
    /// Can't happen with text as keys.
    pub fn render(mut self) -> Result<Secret, serde_json::Error> {
        let auths = serde_json::value::to_raw_value(&self.auths)?;
        match self.members.0.iter_mut().find(|(key, _)| key == AUTHS) {
            Some((_, there)) => *there = auths,
            None => self.members.0.push((AUTHS.to_owned(), auths)),
        }
        serde_json::to_string(&self.members).map(Secret::new)
    }
}

/// Entries with the same meaning have the same fingerprint.
#[must_use]
pub fn entry_fingerprint(entry: &str) -> String {
    let canonical = serde_json::from_str::<Value>(entry).map(|value| value.to_string());
    fingerprint(&[canonical.as_deref().unwrap_or(entry)])
}

/// The members of an object in their order, each value as it was written.
#[derive(Default)]
struct Members(Vec<(String, Box<RawValue>)>);

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(auth: &str) -> Secret {
        Secret::new(format!(r#"{{"auth":"{auth}"}}"#))
    }

    fn edited(text: &str, edit: impl FnOnce(&mut Document)) -> String {
        let mut document = Document::parse(text.as_bytes()).unwrap();
        edit(&mut document);
        document.render().unwrap().expose().to_owned()
    }

    #[test]
    fn what_others_wrote_stays_to_the_byte_and_in_its_place() {
        let foreign = r#"{"credHelpers":{"a":"b"},"auths":{"z.example":{"auth" : "eg==","n":12345678901234567890.10},"host":{"auth":"old"}},"HttpHeaders":{"x":1e400}}"#;
        let set = edited(foreign, |document| document.set("host", &entry("new")));
        assert_eq!(set, foreign.replace(r#"{"auth":"old"}"#, r#"{"auth":"new"}"#));
        let removed = edited(foreign, |document| document.remove("host"));
        assert_eq!(removed, foreign.replace(r#","host":{"auth":"old"}"#, ""));
    }

    #[test]
    fn of_an_entry_that_is_there_twice_the_one_that_readers_take_is_set() {
        let mut document = Document::parse(br#"{"auths":{"host":{"auth":"a"},"host":{"auth":"b"}}}"#).unwrap();
        document.set("host", &entry("new"));
        assert_eq!(document.entry("host"), Some(entry_fingerprint(entry("new").expose())));
    }

    #[test]
    fn a_document_without_entries_gets_them() {
        let with = r#"{"auths":{"host":{"auth":"a"}}}"#;
        for text in ["", " \n", "null", "{}", r#"{"auths":null}"#, r#"{"auths":{}}"#] {
            assert_eq!(edited(text, |document| document.set("host", &entry("a"))), with, "{text}");
            assert!(Document::parse(text.as_bytes()).unwrap().is_empty());
        }
        assert!(!Document::parse(br#"{"credsStore":"x"}"#).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_docker_config_is_refused_without_quoting_it() {
        for (text, why) in [
            (r#"{"auths":"hush""#, Malformed::Json { line: 1, column: 15 }),
            (r#""hush""#, Malformed::NotAnObject),
            (r#"["hush"]"#, Malformed::NotAnObject),
            (r#"{"auths":["hush"]}"#, Malformed::Auths),
            (r#"{"auths":{},"auths":{}}"#, Malformed::Twice),
        ] {
            assert_eq!(Document::parse(text.as_bytes()).unwrap_err(), why, "{text}");
            assert!(!why.to_string().contains("hush"));
        }
        assert!(!format!("{:?}", Document::parse(br#"{"auths":{"a":"hush"}}"#)).contains("hush"));
    }

    #[test]
    fn an_entry_is_known_by_its_meaning() {
        let document = Document::parse(br#"{"auths":{"a":{ "x":1, "y":2 }}}"#).unwrap();
        assert_eq!(document.entry("a"), Some(entry_fingerprint(r#"{"y":2,"x":1}"#)));
        assert_eq!(document.entry("b"), None);
    }

    proptest! {
        #[test]
        fn what_is_set_and_taken_out_again_leaves_no_trace(
            foreign in proptest::collection::btree_map("[a-z]{1,8}", "[a-zA-Z0-9=]{0,12}", 0..6),
            others in proptest::collection::btree_map("[A-Z]{1,8}", any::<i64>(), 0..4),
            hosts in proptest::collection::btree_set("[0-9]{1,4}", 0..4),
        ) {
            let mut value = serde_json::to_value(&others).unwrap();
            value["auths"] = foreign.iter().map(|(key, auth)| (key.clone(), serde_json::json!({"auth": auth}))).collect();
            let before = value.to_string();
            let mut document = Document::parse(before.as_bytes()).unwrap();
            for host in &hosts {
                document.set(host, &entry("ours"));
            }
            let merged = document.render().unwrap();
            let mut document = Document::parse(merged.expose().as_bytes()).unwrap();
            for host in foreign.keys() {
                prop_assert!(document.entry(host).is_some());
            }
            for host in &hosts {
                document.set(host, &entry("ours"));
            }
            let again = document.render().unwrap();
            prop_assert_eq!(again.expose(), merged.expose(), "a second time changes nothing");
            let mut document = Document::parse(merged.expose().as_bytes()).unwrap();
            for host in &hosts {
                document.remove(host);
            }
            let left = document.render().unwrap();
            prop_assert_eq!(left.expose(), before);
        }
    }
}
