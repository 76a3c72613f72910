//! How fast one API of one account may be called, learned from its answers: AWS documents few of its limits, and they
//! differ by account.
//!
//! Before the first throttling, calls are bounded as TCP bounds them in slow start: one at a time at first, one more with
//! each success, so that the bound doubles with each round trip. The first throttling turns that into a rate. It falls
//! until a call passes again, rises quickly to the next throttling, and from then on creeps: the number of calls that
//! passed between two throttlings is what the account grants, whatever its burst. Where nothing passed between two, it
//! falls again: the limit was lowered.

use std::time::Duration;

/// By the process's own clock: the time since some start.
pub type Moment = Duration;

/// Calls under way at once.
const MOST_AT_ONCE: u32 = 16;
/// Calls a second: slower than this makes nothing better.
const FLOOR: f64 = 0.5;
/// While nothing passes, each further throttling divides the rate by this.
const FALL: f64 = 3.0;
/// After that, each success multiplies it by this until the next throttling.
const RISE: f64 = 1.2;
/// From then on each success adds this part of the rate …
const CREEP: f64 = 0.001;
/// … and more, with the square, after so many successes without throttling: limits get raised.
const CLEAN: f64 = 40.0;
/// … or, where few calls take so long that it can't be counted, this part a second, with the square of how often so much time
/// went by: others may have used up what is granted.
const SURGE: f64 = 0.2;
const LONG: f64 = 60.0;
/// But never more than this part.
const MOST_CREEP: f64 = 0.1;
/// A throttling leaves at most this much of the rate, and this much of what was granted since the one before.
const DOWN: f64 = 0.95;
const GRANTED: f64 = 0.98;
/// But at least this much of the rate: where it had grown for long, what was granted on average says little of the end.
const LEAST: f64 = 0.25;
/// Fewer successes than this between two throttlings don't tell what is granted. Then so much of the rate is left, but no
/// more than had let two more pass.
const TELLING: u32 = 8;
const DOWN_UNTOLD: f64 = 0.8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Fall,
    Rise,
    Creep,
}

/// What a call waited for before it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: until then, no more was wanted than was sent.
    None,
    /// Others, as many as may be under way at once.
    Others,
    /// The rate: only then does its success say that there could be more.
    Rate,
}

/// A call that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    at: Moment,
    waited: Wait,
}

/// How a call ended, as far as its rate is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// AWS did what it does: it may well have been an error.
    Passed,
    /// Too fast.
    Throttled,
    /// None came.
    None,
}

/// What is known of one API's limit.
#[derive(Debug, Clone)]
pub struct Rate {
    phase: Phase,
    window: u32,
    under_way: u32,
    /// Calls a second, from the first throttling on.
    per_second: f64,
    last_sent: Option<Moment>,
    /// Answers to what was sent before the last change of course say nothing of the new one.
    changed: Moment,
    /// Successes since, and since when they are counted.
    passed: u32,
    counted_from: Moment,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            phase: Phase::Start,
            window: 1,
            under_way: 0,
            per_second: f64::INFINITY,
            last_sent: None,
            changed: Moment::ZERO,
            passed: 0,
            counted_from: Moment::ZERO,
        }
    }
}

impl Rate {
    /// When the next call may be sent; `None`: not before one that is under way has ended.
    #[must_use]
    pub fn next(&self, now: Moment) -> Option<Moment> {
        let window = if self.phase == Phase::Start { self.window } else { MOST_AT_ONCE };
        if self.under_way >= window {
            return None;
        }
        let pause = Duration::from_secs_f64(1.0 / self.per_second);
        Some(self.last_sent.map_or(now, |last| now.max(last + pause)))
    }

    /// A call leaves. `waited`: for what, at last.
    pub fn send(&mut self, now: Moment, waited: Wait) -> Sent {
        if self.last_sent.is_none() || waited == Wait::None {
            (self.counted_from, self.passed) = (now, 0);
        }
        self.last_sent = Some(now);
        self.under_way += 1;
        Sent { at: now, waited }
    }

    /// It ended.
    pub fn ended(&mut self, sent: Sent, answer: Answer, now: Moment) {
        self.under_way = self.under_way.saturating_sub(1);
        match answer {
            Answer::Passed => self.pass(sent, now),
            Answer::Throttled => self.throttle(sent, now),
            Answer::None => {}
        }
    }

    /// Calls a second, once it is known: as good as unlimited before.
    #[must_use]
    pub fn learned(&self) -> Option<f64> {
        self.per_second.is_finite().then_some(self.per_second)
    }

    fn pass(&mut self, sent: Sent, now: Moment) {
        self.passed = self.passed.saturating_add(1);
        if self.phase == Phase::Start {
            self.window = MOST_AT_ONCE.min(self.window + 1);
            return;
        }
        if sent.at <= self.changed {
            return;
        }
        if self.phase == Phase::Fall {
            self.phase = Phase::Rise;
        }
        // A rate that needs more calls under way than there may be (by Little's law) bounds nothing any more.
        let needs = self.per_second * now.saturating_sub(sent.at).as_secs_f64();
        if sent.waited != Wait::Rate || needs >= f64::from(MOST_AT_ONCE) {
            return;
        }
        let growth = if self.phase == Phase::Rise {
            RISE
        } else {
            let clean = (f64::from(self.passed) / CLEAN).max(1.0);
            let long = (now.saturating_sub(self.counted_from).as_secs_f64() / LONG - 1.0).max(0.0);
            1.0 + (CREEP * clean * clean).max(SURGE * long * long / self.per_second).min(MOST_CREEP)
        };
        self.per_second *= growth;
    }

    fn throttle(&mut self, sent: Sent, now: Moment) {
        let since = now.saturating_sub(self.counted_from).as_secs_f64().max(0.001);
        let granted = f64::from(self.passed) / since;
        match self.phase {
            Phase::Start => {
                (self.per_second, self.phase) = (granted.max(1.0 / since) / 2.0, Phase::Fall);
            }
            _ if sent.at <= self.changed => return,
            phase if phase == Phase::Fall || self.passed == 0 => {
                (self.per_second, self.phase) = (self.per_second / FALL, Phase::Fall);
            }
            _ => {
                let left = if self.passed < TELLING {
                    (self.per_second * DOWN_UNTOLD).min(f64::from(self.passed + 2) / since)
                } else {
                    (self.per_second * DOWN).min(granted * GRANTED).max(self.per_second * LEAST)
                };
                (self.per_second, self.phase) = (left, Phase::Creep);
            }
        }
        self.per_second = self.per_second.max(FLOOR);
        (self.changed, self.counted_from, self.passed) = (now, now, 0);
    }
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
