//! When somebody keeps undoing what the operator does: put right a few times, then left alone for a while, ever longer.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::core::backoff::Backoff;

/// So many writes within [`WINDOW`] are a contest.
const MOST_WRITES: usize = 3;
/// Left alone for so long, a contest is over.
const WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// Between the tries.
const PAUSES: Backoff = Backoff { first: Duration::from_mins(1), most: Duration::from_mins(30) };

/// What to do about a thing that isn't as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Put it right.
    Write,
    /// Nothing: what is seen is what was before our own last write.
    Settling,
    /// Leave it until then.
    Pause(Timestamp),
}

/// How it went so far with one thing. It begins with nothing done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contest {
    writes: Vec<Timestamp>,
    /// The version that was last overwritten.
    overwritten: Option<String>,
    /// The last write was undone within itself.
    stripped: bool,
    pauses: u32,
    pause_until: Option<Timestamp>,
    /// What was last written of a thing that changes by itself.
    last: Option<Written>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    what: String,
    /// The version that it became.
    version: String,
    at: Timestamp,
}

impl Contest {
    /// It isn't as it should be, in its `version`. `seed` says which pauses shouldn't end at one moment.
    pub fn differs(&mut self, version: &str, seed: &str, now: Timestamp) -> Turn {
        if self.overwritten.as_deref() == Some(version) {
            return Turn::Settling;
        }
        self.turn(seed, now)
    }

    /// It isn't `what`, which changes by itself: what is new is written whatever the contest.
    pub fn lacks(&mut self, what: &str, seed: &str, now: Timestamp) -> Turn {
        let is_new = self.last.as_ref().is_none_or(|last| last.what != what);
        if is_new { Turn::Write } else { self.turn(seed, now) }
    }

    fn turn(&mut self, seed: &str, now: Timestamp) -> Turn {
        if let Some(until) = self.pause_until {
            if now < until {
                return Turn::Pause(until);
            }
            self.pause_until = None;
            return Turn::Write;
        }
        self.forget_old(now);
        let most = if self.pauses > 0 { 1 } else { MOST_WRITES };
        if self.writes.len() < most {
            return Turn::Write;
        }
        self.pauses = self.pauses.saturating_add(1);
        let until = now + PAUSES.after(self.pauses, seed);
        self.pause_until = Some(until);
        self.writes.clear();
        Turn::Pause(until)
    }

    /// It was put right, over `version`.
    pub fn wrote(&mut self, version: &str, now: Timestamp) {
        self.writes.push(now);
        self.overwritten = Some(version.to_owned());
        self.stripped = false;
    }

    /// `what` was written, and it became this `version`. What is new is no move in a contest, unless there is one already.
    pub fn brought(&mut self, what: &str, version: &str, now: Timestamp) {
        let written = Written { what: what.to_owned(), version: version.to_owned(), at: now };
        let Some(before) = self.last.replace(written) else { return };
        // One that moved nothing was owed to an old view of what was written before.
        if before.version != version && (before.what == what || self.pauses > 0) {
            self.writes.push(now);
        }
    }

    /// It was written and the answer was without it: admission took it out. The version needn't have moved, so it tells
    /// nothing.
    pub fn was_stripped(&mut self, now: Timestamp) {
        self.writes.push(now);
        self.overwritten = None;
        self.stripped = true;
    }

    /// Whether admission took out what was last written.
    #[must_use]
    pub fn is_stripped(&self) -> bool {
        self.stripped
    }

    /// It is as it should be. Until when it is watched, if there was a contest.
    pub fn is_right(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.pause_until = None;
        self.stripped = false;
        self.forget_old(now);
        if self.last.as_ref().is_some_and(|last| now.duration_since(last.at) >= WINDOW) && self.is_settled() {
            self.last = None;
        }
        let last = self.writes.last().filter(|_| self.pauses > 0)?;
        Some(*last + WINDOW)
    }

    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_settled() && self.last.is_none()
    }

    fn is_settled(&self) -> bool {
        self.writes.is_empty() && self.pauses == 0
    }

    fn forget_old(&mut self, now: Timestamp) {
        self.writes.retain(|at| now.duration_since(*at) < WINDOW);
        if self.writes.is_empty() {
            self.pauses = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn until(turn: Turn) -> Timestamp {
        let Turn::Pause(until) = turn else { panic!("{turn:?}") };
        until
    }

    /// Reverts it every second until it pauses; returns how often it was put right, and the pause.
    fn fight(contest: &mut Contest, from: i64) -> (usize, Timestamp) {
        for second in 0.. {
            let version = (from + second).to_string();
            match contest.differs(&version, "s", at(from + second)) {
                Turn::Write => contest.wrote(&version, at(from + second)),
                turn => return (usize::try_from(second).unwrap(), until(turn)),
            }
        }
        unreachable!()
    }

    #[test]
    fn after_three_times_in_a_minute_it_is_left_alone_and_ever_longer() {
        let mut contest = Contest::default();
        let (writes, first) = fight(&mut contest, 0);
        assert_eq!(writes, 3);
        assert!(first > at(40) && first <= at(63));
        assert_eq!(contest.differs("x", "s", at(20)), Turn::Pause(first), "and stays so");
        let (writes, second) = fight(&mut contest, first.as_second() + 1);
        assert_eq!(writes, 1, "tried once");
        assert!(second.duration_since(first) > SignedDuration::from_secs(80));
    }

    #[test]
    fn it_is_over_when_it_is_left_alone() {
        let mut contest = Contest::default();
        let (_, pause) = fight(&mut contest, 0);
        let tried = pause.as_second() + 1;
        assert_eq!(contest.differs("y", "s", at(tried)), Turn::Write);
        contest.wrote("y", at(tried));
        assert_eq!(contest.is_right(at(tried + 5)), Some(at(tried + 60)), "watched for a minute");
        assert_eq!(contest.is_right(at(tried + 60)), None);
        assert!(contest.is_over());
        assert_eq!(fight(&mut contest, tried + 100).0, 3, "a new one begins anew");
    }

    #[test]
    fn who_puts_it_right_himself_ends_it_at_once() {
        let mut contest = Contest::default();
        fight(&mut contest, 0);
        assert_eq!(contest.is_right(at(10)), None);
        assert!(contest.is_over());
    }

    #[test]
    fn an_old_view_of_our_own_write_is_no_revert() {
        let mut contest = Contest::default();
        assert_eq!(contest.differs("7", "s", at(0)), Turn::Write);
        contest.wrote("7", at(0));
        assert_eq!(contest.differs("7", "s", at(0)), Turn::Settling);
    }

    #[test]
    fn what_admission_takes_out_is_a_contest_although_the_version_never_moves() {
        let mut contest = Contest::default();
        for second in 0..3 {
            assert_eq!(contest.differs("7", "s", at(second)), Turn::Write);
            contest.was_stripped(at(second));
        }
        let pause = until(contest.differs("7", "s", at(3)));
        assert!(contest.is_stripped());
        assert_eq!(contest.differs("7", "s", pause), Turn::Write, "tried again");
        contest.was_stripped(pause);
        assert!(matches!(contest.differs("7", "s", pause), Turn::Pause(_)));
    }

    #[test]
    fn somebody_who_undoes_it_now_and_then_is_no_contest() {
        let mut contest = Contest::default();
        for minute in 0..50 {
            let version = minute.to_string();
            assert_eq!(contest.differs(&version, "s", at(minute * 31)), Turn::Write);
            contest.wrote(&version, at(minute * 31));
        }
    }

    /// Undoes every second what is written, until it pauses; returns how often it was written, and the pause.
    fn undo(contest: &mut Contest, what: &str, from: i64) -> (usize, Timestamp) {
        for second in 0.. {
            match contest.lacks(what, "s", at(from + second)) {
                Turn::Write => contest.brought(what, &(from + second).to_string(), at(from + second)),
                turn => return (usize::try_from(second).unwrap(), until(turn)),
            }
        }
        unreachable!()
    }

    #[test]
    fn what_is_new_is_written_in_spite_of_a_contest_and_does_not_end_it() {
        let mut contest = Contest::default();
        let (writes, pause) = undo(&mut contest, "old", 0);
        assert_eq!(writes, 4, "written, and put right three times");
        assert_eq!(contest.lacks("new", "s", at(10)), Turn::Write);
        contest.brought("new", "n", at(10));
        assert_eq!(contest.lacks("new", "s", at(11)), Turn::Pause(pause), "undone again, it waits as before");
        assert_eq!(contest.is_right(at(12)), Some(at(70)), "left alone, it is watched");
        let longer = until(contest.lacks("new", "s", at(13)));
        assert!(longer.duration_since(at(13)) > SignedDuration::from_secs(80));
        assert_eq!(contest.is_right(at(70)), None);
        assert!(contest.is_over());
    }

    #[test]
    fn renewals_and_writes_that_move_nothing_are_no_contest() {
        let mut contest = Contest::default();
        for number in 0..20 {
            let what = number.to_string();
            assert_eq!(contest.lacks(&what, "s", at(number)), Turn::Write);
            contest.brought(&what, &what, at(number));
            for _ in 0..5 {
                assert_eq!(contest.lacks(&what, "s", at(number)), Turn::Write, "as an old view has it");
                contest.brought(&what, &what, at(number));
            }
        }
        assert_eq!(contest.is_right(at(79)), None);
        assert!(contest.is_over(), "and nothing is remembered of it");
    }

    proptest! {
        #[test]
        fn never_more_than_three_writes_in_any_minute(gaps in proptest::collection::vec(0i64..90, 1..200)) {
            let (mut contest, mut now, mut writes) = (Contest::default(), 0, Vec::new());
            for (number, gap) in gaps.into_iter().enumerate() {
                now += gap;
                let version = number.to_string();
                if contest.differs(&version, "s", at(now)) == Turn::Write {
                    contest.wrote(&version, at(now));
                    writes.push(now);
                }
                prop_assert!(writes.iter().filter(|at| now - **at < 60).count() <= 4);
            }
        }
    }
}
