//! When a repository that seems to be as declared is looked at again: each in its turn, evenly spread, within the budget
//! of reads.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::core::token::fraction;

/// How often each of a registry's repositories can be checked, when one round of checks takes `reads` calls: not more
/// often than `interval`, nor than the budget of calls an hour allows. `None`: never (a budget of nothing).
#[must_use]
pub fn check_every(interval: Duration, reads_per_hour: u32, reads: u32) -> Option<Duration> {
    if reads_per_hour == 0 {
        return None;
    }
    let round = Duration::from_hours(1).mul_f64(f64::from(reads) / f64::from(reads_per_hour));
    Some(round.max(interval).max(Duration::from_secs(1)))
}

/// The first moment after `after` at which the object `uid` has its turn in a round of `every`. The turns of many
/// objects are spread evenly, and stay where they are over restarts.
#[must_use]
pub fn next_check(after: Timestamp, every: Duration, uid: &str) -> Timestamp {
    let round = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a moment within a round, to the millisecond"
    )]
    let turn = (fraction(&[uid]) * round as f64) as i64;
    let since = (after.as_millisecond() - turn).rem_euclid(round);
    after.saturating_add(SignedDuration::from_millis(round - since)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_budget_stretches_the_round_and_nothing_means_never() {
        let interval = Duration::from_mins(10);
        assert_eq!(check_every(interval, 0, 5), None);
        assert_eq!(check_every(interval, 3600, 10), Some(interval));
        assert_eq!(check_every(interval, 3600, 7200), Some(Duration::from_hours(2)));
    }

    #[test]
    fn turns_are_spread_evenly_over_the_round() {
        let (now, every) = (Timestamp::from_second(1_000_000).unwrap(), Duration::from_secs(1000));
        let mut tenths = [0u32; 10];
        for n in 0..10_000 {
            let wait = next_check(now, every, &format!("uid-{n}")).duration_since(now).as_secs();
            tenths[usize::try_from(wait / 100).unwrap().min(9)] += 1;
        }
        assert!(tenths.iter().all(|count| (850..1150).contains(count)), "{tenths:?}");
    }

    #[test]
    fn reads_stay_within_the_budget_hour_by_hour_and_everybody_is_read() {
        const READS_EACH: u32 = 3;
        const BUDGET: u32 = 1_000;
        let every = check_every(Duration::from_mins(10), BUDGET, 2_000 * READS_EACH).unwrap();
        assert_eq!(every, Duration::from_hours(6));
        let start = Timestamp::from_second(1_000_000).unwrap();
        let mut hours = [0u32; 6];
        for n in 0..2_000 {
            let wait = next_check(start, every, &format!("uid-{n}")).duration_since(start);
            hours[usize::try_from(wait.as_hours()).unwrap().min(5)] += READS_EACH;
        }
        assert_eq!(hours.iter().sum::<u32>(), 2_000 * READS_EACH, "everybody once a round");
        assert!(hours.iter().all(|reads| (850..1150).contains(reads)), "{hours:?}");
    }

    proptest! {
        #[test]
        fn everybody_has_one_turn_a_round(second in 0i64..2_000_000_000, every in 1u64..100_000, uid in ".{0,20}") {
            let (now, every) = (Timestamp::from_second(second).unwrap(), Duration::from_secs(every));
            let first = next_check(now, every, &uid);
            let second = next_check(first, every, &uid);
            prop_assert!(first > now);
            prop_assert!(first.duration_since(now) <= SignedDuration::try_from(every).unwrap());
            prop_assert_eq!(second.duration_since(first), SignedDuration::try_from(every).unwrap());
        }
    }
}
