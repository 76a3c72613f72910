//! Events: what was done, and what went wrong when it began to. Best effort: an event that can't be written is logged,
//! and never hides what it tells.
//!
//! Written as they are, each on its own: kube's recorder counts events of one reason as the same, whatever they tell.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client, Resource};

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
    client: Client,
    instance: String,
}

impl Events {
    /// Through this client, as this instance.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance }
    }

    /// Tells it of `object`.
    pub async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, what: &What) {
        self.tell_of(object.object_ref(&()), what).await;
    }

    /// Tells it of an object that isn't at hand.
    pub async fn tell_of(&self, about: ObjectReference, what: &What) {
        let name = about.name.clone();
        let event = event(about, what, &self.instance, Timestamp::now());
        // Those of cluster-scoped objects are kept in the namespace default, as everywhere in Kubernetes.
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::debug!(object = name, reason = what.reason, %error, "event not written");
        }
    }
}

fn event(about: ObjectReference, what: &What, instance: &str, now: Timestamp) -> Event {
    let name = about.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            // Object names have up to 253 characters, and so have these.
            name: Some(format!("{}.{:x}", name.chars().take(230).collect::<String>(), now.as_nanosecond())),
            namespace: Some(about.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        action: Some(what.reason.clone()),
        event_time: Some(MicroTime(now)),
        note: Some(shorten(&what.note)),
        reason: Some(what.reason.clone()),
        regarding: Some(about),
        reporting_controller: Some(crate::api::GROUP.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(if what.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
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

    #[test]
    fn two_events_of_one_reason_are_two_events() {
        let told = |note: &str, second| {
            event(
                ObjectReference::default(),
                &What::done("TagResource", note),
                "x",
                Timestamp::from_second(second).unwrap(),
            )
        };
        assert_ne!(told("set a=1", 1).metadata.name, told("set b=2", 2).metadata.name);
    }
}
