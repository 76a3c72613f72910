//! Conditions as kstatus and `kubectl wait` read them: Ready always, Reconciling and Stalled only while True.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::core::reason::{Class, Problem, Reason};

/// The state of an object in one word and one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What Ready says.
    pub ready: Ready,
    /// Why.
    pub reason: Reason,
    /// What that means for the object: the reason's own class, but for a reason that sums up others.
    pub class: Class,
    /// For a person.
    pub message: String,
}

/// The status of the Ready condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// As declared.
    True,
    /// Not as declared.
    False,
    /// Nobody looks.
    Unknown,
}

impl Verdict {
    /// As declared.
    pub fn ready(message: impl Into<String>) -> Self {
        Self { ready: Ready::True, reason: Reason::Ready, class: Class::Converged, message: message.into() }
    }

    /// Kept from the declared state by a problem. Where this generation `stays_converged` (it was as declared, and
    /// nothing says that it no longer is), a passing failure leaves Ready True.
    #[must_use]
    pub fn held_up(problem: Problem, stays_converged: bool) -> Self {
        let ready = match problem.reason {
            Reason::Suspended => Ready::Unknown,
            Reason::Transient | Reason::Throttled | Reason::Quota if stays_converged => Ready::True,
            reason if reason.class() == Class::Converged => Ready::True,
            _ => Ready::False,
        };
        Self { ready, reason: problem.reason, class: problem.reason.class(), message: problem.message }
    }

    /// The same, of another class.
    #[must_use]
    pub fn of_class(self, class: Class) -> Self {
        Self { class, ..self }
    }
}

/// The conditions that tell `verdict`, from those the object has. A transition time moves only with its status.
#[must_use]
pub fn conditions(old: &[Condition], verdict: &Verdict, generation: i64, now: Timestamp) -> Vec<Condition> {
    let make = |type_: &str, status: &str| {
        let since = old
            .iter()
            .find(|condition| condition.type_ == type_ && condition.status == status)
            .map_or_else(|| Time(whole_second(now)), |condition| condition.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.as_str().to_owned(),
            message: shorten(&verdict.message),
            last_transition_time: since,
            observed_generation: Some(generation),
        }
    };
    let ready = match verdict.ready {
        Ready::True => "True",
        Ready::False => "False",
        Ready::Unknown => "Unknown",
    };
    let mut all = vec![make("Ready", ready)];
    match verdict.class {
        Class::Retrying => all.push(make("Reconciling", "True")),
        Class::Stalled => all.push(make("Stalled", "True")),
        Class::Converged | Class::Held => {}
    }
    all
}

/// Whether these conditions say that `generation` was as declared.
#[must_use]
pub fn is_ready(conditions: &[Condition], generation: i64) -> bool {
    conditions.iter().any(|condition| {
        condition.type_ == "Ready" && condition.status == "True" && condition.observed_generation == Some(generation)
    })
}

/// Whether Ready says this.
#[must_use]
pub fn says(conditions: &[Condition], reason: Reason) -> bool {
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.reason == reason.as_str())
}

/// The API takes messages of up to 32,768 bytes; a person reads far less.
fn shorten(message: &str) -> String {
    const MOST: usize = 2048;
    match message.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &message[..at]),
        None => message.to_owned(),
    }
}

/// The API's times have no fractions; a value that comes back shorter than it was sent would look like a change.
fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_transition_time_moves_only_when_the_status_flips() {
        let failed = Verdict::held_up(Problem::new(Reason::Denied, "no"), false);
        let first = conditions(&[], &failed, 1, at(10));
        let other_reason = Verdict::held_up(Problem::new(Reason::Invalid, "bad"), false);
        let second = conditions(&first, &other_reason, 2, at(20));
        assert_eq!(second[0].last_transition_time, Time(at(10)));
        let third = conditions(&second, &Verdict::ready("ok"), 2, at(30));
        assert_eq!(third[0].last_transition_time, Time(at(30)));
        assert_eq!(third.len(), 1, "Stalled goes when it no longer holds");
    }

    #[test]
    fn the_same_verdict_later_is_the_same_value() {
        let verdict = Verdict::ready("ok");
        let first = conditions(&[], &verdict, 3, at(10));
        assert_eq!(conditions(&first, &verdict, 3, at(99)), first);
    }

    #[test]
    fn a_passing_failure_leaves_a_converged_object_ready() {
        let throttled = || Problem::new(Reason::Throttled, "slow");
        assert_eq!(Verdict::held_up(throttled(), true).ready, Ready::True);
        assert_eq!(Verdict::held_up(throttled(), false).ready, Ready::False);
        assert_eq!(Verdict::held_up(Problem::new(Reason::Denied, "no"), true).ready, Ready::False);
        let told = conditions(&[], &Verdict::held_up(throttled(), true), 1, at(1));
        assert_eq!(told.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), ["Ready", "Reconciling"]);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let told = conditions(&[], &Verdict::ready("ä".repeat(5000)), 1, at(1));
        assert_eq!(told[0].message.chars().count(), 2049);
    }
}
