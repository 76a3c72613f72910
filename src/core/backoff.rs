//! How long to wait after the n-th failure in a row, without two objects waiting in step.

use std::time::Duration;

use crate::core::token::fraction;

/// Waits that double from `first` to `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// Never longer than this.
    pub most: Duration,
}

/// For an object that can't be brought to its declared state just now.
pub const OBJECT: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(5) };
/// For a token that can't be renewed just now.
pub const TOKEN: Backoff = Backoff { first: Duration::from_secs(5), most: Duration::from_mins(5) };

impl Backoff {
    /// The wait after `failures` failures in a row (1 is the first), shortened by up to a quarter. By how much belongs
    /// to `seed` (an object's UID) and the count: the same call always gives the same answer.
    #[must_use]
    pub fn after(self, failures: u32, seed: &str) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let full = self.first.saturating_mul(1 << doublings).min(self.most);
        full.mul_f64(1.0 - 0.25 * fraction(&[seed, &failures.to_string()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_grows_to_the_ceiling_and_never_vanishes(failures in 1u32..1000, seed in ".{0,40}") {
            let wait = OBJECT.after(failures, &seed);
            prop_assert!(wait <= OBJECT.most);
            prop_assert!(wait >= OBJECT.first.mul_f64(0.75));
            if failures > 9 {
                prop_assert!(wait >= OBJECT.most.mul_f64(0.75));
            }
            prop_assert_eq!(wait, OBJECT.after(failures, &seed));
        }
    }

    #[test]
    fn different_objects_do_not_wait_in_step() {
        let waits: std::collections::BTreeSet<_> = (0..50).map(|n| OBJECT.after(3, &format!("uid-{n}"))).collect();
        assert!(waits.len() > 40);
    }
}
