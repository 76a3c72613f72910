//! The annotations by which people steer an object.

use kube::{Resource, ResourceExt};

use crate::api::{RECONCILE_AT, SUSPEND};
use crate::core::reason::{Problem, Reason};

/// Whether the object's annotation stops all work on it.
pub fn is_suspended<K: Resource>(object: &K) -> bool {
    object.annotations().get(SUSPEND).is_some_and(|value| value == "true")
}

/// What a suspended object says.
#[must_use]
pub fn suspended() -> Problem {
    Problem::new(
        Reason::Suspended,
        format!("suspended by the annotation {SUSPEND}; nothing is done until it is removed"),
    )
}

/// The wish for a look now that wasn't met yet; `handled` is the last that was.
pub fn asks_anew<'a, K: Resource>(object: &'a K, handled: Option<&String>) -> Option<&'a str> {
    object.annotations().get(RECONCILE_AT).filter(|asked| Some(*asked) != handled).map(String::as_str)
}
