//! The model's clock: real time plus what a test has moved it by.

use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Number, Value};

use crate::lock;

/// What the model's clock follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Time {
    /// The machine's clock.
    #[default]
    Wall,
    /// Tokio's clock: in a test with paused time the model's time stands still with it.
    Tokio,
}

#[derive(Debug)]
pub(crate) struct Clock {
    source: Time,
    started: (Timestamp, tokio::time::Instant),
    offset: Mutex<SignedDuration>,
}

impl Clock {
    pub fn new(source: Time) -> Self {
        Self {
            source,
            started: (Timestamp::now(), tokio::time::Instant::now()),
            offset: Mutex::new(SignedDuration::ZERO),
        }
    }

    pub fn now(&self) -> Timestamp {
        let base = match self.source {
            Time::Wall => Timestamp::now(),
            Time::Tokio => later(self.started.0, self.started.1.elapsed()),
        };
        base.checked_add(*lock(&self.offset)).unwrap_or(Timestamp::MAX)
    }

    pub fn advance(&self, by: Duration) {
        let mut offset = lock(&self.offset);
        *offset = offset.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX));
    }
}

/// A time that much later, or the end of time.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A time as the JSON protocol has it: seconds since 1970 with milliseconds.
pub(crate) fn epoch_seconds(time: Timestamp) -> Value {
    let seconds = SignedDuration::from_millis(time.as_millisecond()).as_secs_f64();
    Number::from_f64(seconds).map_or(Value::Null, Value::Number)
}
