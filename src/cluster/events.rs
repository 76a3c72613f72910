//! Events: what was done, and what went wrong when it began to. Best effort: an event that can't be written is logged,
//! and never hides what it tells.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};

/// What an event tells.
#[derive(Debug, Clone)]
pub struct What {
    /// Whether it calls for attention.
    pub warning: bool,
    /// In one word: a [`crate::core::reason::Reason`], or the ECR operation that was done.
    pub reason: String,
    /// In a sentence.
    pub note: String,
}

impl What {
    /// Something that was done.
    pub fn done(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.into(), note: note.into() }
    }

    /// Something that calls for attention.
    pub fn warning(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.into(), note: note.into() }
    }
}

/// Writes events.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Through this client, as this instance.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: crate::api::GROUP.into(), instance: Some(instance) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Tells it of `object`.
    pub async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, what: &What) {
        let event = Event {
            type_: if what.warning { EventType::Warning } else { EventType::Normal },
            reason: what.reason.clone(),
            note: Some(shorten(&what.note)),
            action: what.reason.clone(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(object = object.name_any(), reason = what.reason, %error, "event not written");
        }
    }
}

/// The API refuses notes of more than 1,024 bytes.
fn shorten(note: &str) -> String {
    const MOST: usize = 1000;
    if note.len() <= MOST {
        return note.to_owned();
    }
    let end = note.char_indices().map(|(at, _)| at).take_while(|at| *at <= MOST).last().unwrap_or(0);
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_fit_the_api_and_are_cut_at_a_character() {
        assert_eq!(shorten("short"), "short");
        assert!(shorten(&"ä".repeat(2000)).len() <= 1024);
    }
}
