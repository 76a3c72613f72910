//! Which of several processes works: the Lease of Kubernetes, used as client-go uses it.
//!
//! No clocks of two machines are ever compared. Who waits counts from the moment at which it first saw the Lease as it is;
//! who holds it counts from the moment before it sent its last renewal, and stops earlier than others may begin.

use std::time::Duration;

/// By a process's own clock that never goes back: the time since its start.
pub type Moment = Duration;

/// The duration that a holder writes, with no holder, when it lets go (so does client-go). A Lease that lost its holder in
/// another way may still have one.
pub const RELEASED: Duration = Duration::from_secs(1);

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A Lease that didn't change for so long may be taken.
    pub duration: Duration,
    /// The holder works for so long after its last renewal. What it sent by then has the rest of `duration` to arrive.
    pub renew_within: Duration,
    /// Between looks at the Lease, and between renewals.
    pub retry: Duration,
}

/// Terms under which nobody could hold a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// A Lease counts in seconds.
    #[error("the lease's duration must be whole seconds, at least one")]
    Seconds,
    /// The holder has to stop before others begin.
    #[error("the renew deadline must be at least a second shorter than the lease's duration")]
    Deadline,
    /// Or else it would stop between two renewals.
    #[error("the retry period must be at most half of the renew deadline, and more than nothing")]
    Retry,
}

impl Terms {
    /// Checks that they fit together.
    ///
    /// # Errors
    /// Where they don't.
    pub fn parse(duration: Duration, renew_within: Duration, retry: Duration) -> Result<Self, TermsError> {
        if duration.is_zero() || duration.subsec_nanos() != 0 || i32::try_from(duration.as_secs()).is_err() {
            return Err(TermsError::Seconds);
        }
        if duration.saturating_sub(renew_within) < Duration::from_secs(1) {
            return Err(TermsError::Deadline);
        }
        if retry.is_zero() || retry > renew_within / 2 {
            return Err(TermsError::Retry);
        }
        Ok(Self { duration, renew_within, retry })
    }

    /// For what the holder sends in its last moment: it has to be connected by then, so that it arrives before others begin.
    #[must_use]
    pub fn connect_within(self) -> Duration {
        self.duration.saturating_sub(self.renew_within) * 4 / 5
    }
}

/// What a Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it.
    pub holder: Option<String>,
    /// The holder's own `duration`; [`RELEASED`] where it let go.
    pub duration: Duration,
    /// How often it passed from one to another.
    pub transitions: i32,
    /// Of this Lease: another one of the same name has another.
    pub uid: String,
    /// The resourceVersion: every write changes it.
    pub version: String,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The Lease has to be read first.
    Look,
    /// Nothing, for a retry period.
    Wait,
    /// Write the Lease: over the version that was seen, or anew where there is none.
    Write(Claim),
    /// Another holds what this process held: it stops.
    Lost(String),
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Whether it is a renewal: then `acquireTime` stays.
    pub renews: bool,
    /// `leaseTransitions`.
    pub transitions: i32,
}

/// One of those who want to work.
#[derive(Debug)]
pub struct Candidate {
    me: String,
    terms: Terms,
    /// The Lease as it was last seen, and since when.
    seen: Option<(Option<Record>, Moment)>,
    /// Whether `seen` is good to write over: not after a write that may or may not have arrived.
    sure: bool,
    /// The UID of the Lease that it may work under.
    under: Option<String>,
    /// From when a claim to it counts: who creates a Lease where there was another waits, since somebody may still work
    /// under that one. The first Lease of all is good at once.
    from: Moment,
    /// Until when it may work; set once it held the Lease.
    until: Option<Moment>,
}

impl Candidate {
    /// One that knows nothing yet. No other process may ever have the same name, nor a later start of this one.
    #[must_use]
    pub fn new(me: String, terms: Terms) -> Self {
        Self { me, terms, seen: None, sure: false, under: None, from: Moment::ZERO, until: None }
    }

    /// Whether it may work. Needs to be asked just before everything that must not be done by two.
    #[must_use]
    pub fn holds(&self, now: Moment) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether the Lease, as it was last seen, is its own.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.lease().is_some_and(|lease| lease.holder.as_ref() == Some(&self.me))
    }

    /// The Lease as it was last seen.
    #[must_use]
    pub fn lease(&self) -> Option<&Record> {
        self.seen.as_ref()?.0.as_ref()
    }

    /// The Lease was read; `now` is after the answer came.
    pub fn observe(&mut self, lease: Option<Record>, now: Moment) {
        self.sure = true;
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != lease) {
            self.seen = Some((lease, now));
            self.settle(false, now);
        }
    }

    /// A claim was written: it was sent after `sent`, and the answer, which shows the Lease, came before `now`.
    pub fn claimed(&mut self, lease: Record, sent: Moment, now: Moment) {
        let put_back = self.holds(sent);
        (self.seen, self.sure) = (Some((Some(lease), now)), true);
        self.settle(put_back, now);
        if self.from <= sent {
            self.until = Some(sent + self.terms.renew_within);
        }
    }

    /// A claim failed, or nobody knows.
    pub fn doubt(&mut self) {
        self.sure = false;
    }

    /// It stops. Whether there is a Lease to be released, which another may then take at once.
    pub fn release(&mut self, now: Moment) -> bool {
        self.until = None;
        self.has_lease() && self.from <= now
    }

    /// What to do.
    #[must_use]
    pub fn next(&self, now: Moment) -> Next {
        let Some((lease, since)) = self.seen.as_ref().filter(|_| self.sure) else {
            return Next::Look;
        };
        let claim = |renews, transitions| Next::Write(Claim { renews, transitions });
        let Some(lease) = lease else {
            return claim(false, 0);
        };
        match &lease.holder {
            Some(holder) if *holder == self.me => claim(true, lease.transitions),
            Some(holder) if self.until.is_some() => Next::Lost(holder.clone()),
            None if lease.duration == RELEASED => claim(false, lease.transitions.saturating_add(1)),
            _ if now < *since + lease.duration => Next::Wait,
            _ => claim(false, lease.transitions.saturating_add(1)),
        }
    }

    /// A Lease of its own in place of another is one that it created; the answer to that may have been lost.
    fn settle(&mut self, put_back: bool, now: Moment) {
        let Some(uid) = self.lease().map(|lease| lease.uid.clone()) else { return };
        if self.under.as_ref().is_some_and(|under| *under != uid) && self.has_lease() && !put_back {
            self.from = now + self.terms.duration;
        }
        self.under = Some(uid);
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
