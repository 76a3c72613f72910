//! The life of the token for one key, in one process: kept until it is due, fetched, kept on when AWS has no new one.
//!
//! Two clocks count. The wall clock goes on while a machine sleeps, the monotonic one isn't set back or forward: a token is
//! due as soon as either says so.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::core::backoff;
use crate::core::token::{Life, Secret, Token, TokenFault, wait};

#[cfg(test)]
mod simulation;

/// A moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// What people call the time.
    pub wall: Timestamp,
    /// Since the process started; never set, and stands still while the machine sleeps.
    pub uptime: Duration,
}

/// What to do before the token is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is as young as wished.
    Keep,
    /// Nothing yet: AWS just had none.
    BackOff,
    /// Find out whether it outlived the session that it was asked for with.
    Probe(Arc<Token>),
    /// Ask AWS for a new one.
    Fetch,
}

/// What became of a token when the session ended that it was asked for with. AWS doesn't document it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterSession {
    /// Not seen yet.
    #[default]
    Unknown,
    /// Tokens of this identity live as long as they say.
    LivesOn,
    /// Tokens of this identity die with their session.
    Dies,
    /// The registry couldn't be asked. Until it can, they count as those that die.
    NoAnswer,
}

/// A token as it was fetched.
#[derive(Debug, Clone)]
pub struct Minted {
    /// Base64 of `AWS:password`.
    pub auth: Secret,
    /// As AWS tells it.
    pub life: Life,
    /// When the session ends that it was asked for with, if that is a session.
    pub session_ends_at: Option<Timestamp>,
}

/// At most one token, and how trying for the next one goes. `E` is why there is none.
#[derive(Debug)]
pub struct TokenSlot<E> {
    held: Option<Held>,
    failure: Option<Failure<E>>,
    /// One that was replaced and can still tell what becomes of tokens after their session.
    retired: Option<Retired>,
}

#[derive(Debug)]
struct Held {
    token: Arc<Token>,
    /// By the monotonic clock.
    due_at_uptime: Duration,
    /// Whether it lives on after its session; `None` where that is known, or of no concern.
    question: Option<Question>,
    /// What it could tell once it is replaced.
    witness: Option<Retired>,
}

#[derive(Debug, Clone, Copy)]
struct Question {
    session_ends_at: Timestamp,
    /// When it is due if it lives on.
    unless_ended: Timestamp,
}

#[derive(Debug, Clone)]
struct Retired {
    token: Arc<Token>,
    /// Shortly after its session's end.
    from: Timestamp,
    /// Its own end.
    until: Timestamp,
}

#[derive(Debug)]
struct Failure<E> {
    error: E,
    times: u32,
    until: Moment,
}

impl<E> Default for TokenSlot<E> {
    fn default() -> Self {
        Self { held: None, failure: None, retired: None }
    }
}

impl<E: Clone> TokenSlot<E> {
    /// The token at hand, however old.
    #[must_use]
    pub fn token(&self) -> Option<&Arc<Token>> {
        self.held.as_ref().map(|held| &held.token)
    }

    /// Whether it is time for another token.
    #[must_use]
    pub fn is_due(&self, now: Moment) -> bool {
        self.held.as_ref().is_none_or(|held| held.is_due(now))
    }

    /// What to do `now`.
    #[must_use]
    pub fn step(&self, now: Moment) -> Step {
        if !self.is_due(now) {
            return Step::Keep;
        }
        // Either clock may say that the wait is over: one may have been set back, the other stood still.
        let waits = |failure: &Failure<E>| now.wall < failure.until.wall && now.uptime < failure.until.uptime;
        if self.failure.as_ref().is_some_and(waits) {
            return Step::BackOff;
        }
        match &self.held {
            Some(Held { token, question: Some(open), .. }) if now.wall < open.unless_ended => {
                Step::Probe(token.clone())
            }
            _ => Step::Fetch,
        }
    }

    /// AWS gave a token.
    ///
    /// # Errors
    /// Where it is none; then nothing changed, and [`Self::failed`] is to be told.
    pub fn fetched(
        &mut self,
        now: Moment,
        minted: Minted,
        seed: &str,
        after_session: AfterSession,
    ) -> Result<(), TokenFault> {
        let Minted { auth, mut life, session_ends_at } = minted;
        let own_end = life.expires_at;
        let session_ends_at = session_ends_at.filter(|end| *end < own_end && *end > life.issued_at);
        if let (Some(end), AfterSession::Dies | AfterSession::NoAnswer) = (session_ends_at, after_session) {
            life.expires_at = end;
        }
        let mut token = Token::parse(auth, life, seed)?;
        let tells_from = session_ends_at.map(|end| life.shortly_after(end));
        let probe_at = tells_from.filter(|at| after_session == AfterSession::Unknown && *at < token.refresh_at);
        let unless_ended = probe_at.map(|probe_at| std::mem::replace(&mut token.refresh_at, probe_at));
        let question = session_ends_at.zip(unless_ended);
        let question = question.map(|(session_ends_at, unless_ended)| Question { session_ends_at, unless_ended });
        let due_at_uptime = now.uptime.saturating_add(wait(now.wall, token.refresh_at));
        let token = Arc::new(token);
        let witness = tells_from.map(|from| Retired { token: token.clone(), from, until: own_end });
        let before = self.held.replace(Held { token, due_at_uptime, question, witness });
        self.retired = self
            .retired
            .take()
            .filter(|retired| now.wall < retired.until)
            .or_else(|| before?.witness)
            .filter(|_| after_session == AfterSession::NoAnswer);
        self.failure = None;
        Ok(())
    }

    /// A token whose session has ended since and that still has life of its own: the registry may be able to tell now.
    #[must_use]
    pub fn witness(&self, now: Moment) -> Option<Arc<Token>> {
        let retired = self.retired.as_ref().filter(|retired| retired.from <= now.wall && now.wall < retired.until)?;
        Some(retired.token.clone())
    }

    /// AWS gave none: what is at hand stays, and nobody asks again for a while.
    pub fn failed(&mut self, now: Moment, error: E, seed: &str) {
        let times = self.failure.as_ref().map_or(0, |failure| failure.times).saturating_add(1);
        let pause = backoff::TOKEN.after(times, seed);
        let until = Moment {
            wall: now.wall.saturating_add(SignedDuration::try_from(pause).unwrap_or_default()).unwrap_or(now.wall),
            uptime: now.uptime.saturating_add(pause),
        };
        self.failure = Some(Failure { error, times, until });
    }

    /// What becomes of tokens after their session is known by now: this one lives on until its own end, or is to be replaced
    /// at once, since it ends with its session or may do so.
    pub fn told(&mut self, now: Moment, fate: AfterSession) {
        let Some(held) = self.held.as_mut().filter(|_| fate != AfterSession::Unknown) else { return };
        let Some(Question { session_ends_at, unless_ended }) = held.question.take() else { return };
        match fate {
            AfterSession::LivesOn => held.refresh(now, unless_ended),
            AfterSession::Dies => {
                let life = Life { expires_at: session_ends_at, ..held.token.life };
                held.token = Arc::new(Token { life, ..Token::clone(&held.token) });
                held.refresh(now, now.wall);
            }
            AfterSession::NoAnswer | AfterSession::Unknown => held.refresh(now, now.wall),
        }
    }

    /// A token issued before `since` is to be replaced as soon as it may be. It stays at hand, should AWS have no new one.
    pub fn expire_before(&mut self, now: Moment, since: Timestamp) {
        let Some(held) = self.held.as_mut().filter(|held| held.token.life.issued_at < since) else { return };
        held.question = None;
        let at = held.token.life.replaceable_at();
        if at < held.token.refresh_at {
            held.refresh(now, at);
        }
    }

    /// Why there is no newer token although it is time, and when that is tried again.
    #[must_use]
    pub fn failure(&self, now: Moment) -> Option<(E, Timestamp)> {
        let failure = self.failure.as_ref().filter(|_| self.is_due(now))?;
        Some((failure.error.clone(), failure.until.wall))
    }
}

impl Held {
    fn refresh(&mut self, now: Moment, at: Timestamp) {
        self.token = Arc::new(Token { refresh_at: at, ..Token::clone(&self.token) });
        self.due_at_uptime = now.uptime.saturating_add(wait(now.wall, at));
    }

    fn is_due(&self, now: Moment) -> bool {
        self.token.refresh_at <= now.wall || self.due_at_uptime <= now.uptime
    }
}

/// Whether the wall clock went otherwise than the monotonic one between two moments: it was set, or the machine slept.
/// Whatever waits by the one clock then has to be looked at by the other.
#[must_use]
pub fn clocks_parted(before: Moment, now: Moment) -> bool {
    let wall = now.wall.duration_since(before.wall);
    let uptime = SignedDuration::try_from(now.uptime.saturating_sub(before.uptime)).unwrap_or(SignedDuration::MAX);
    wall.checked_sub(uptime).is_none_or(|apart| apart.abs() > SignedDuration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Both clocks agree.
    fn moment(second: i64) -> Moment {
        by(second, second)
    }

    fn by(wall: i64, uptime: i64) -> Moment {
        Moment { wall: at(wall), uptime: Duration::from_secs(uptime.unsigned_abs()) }
    }

    fn minted(from: i64, until: i64, session: Option<i64>) -> Minted {
        let life = Life::of(at(from), Some(at(until))).unwrap();
        Minted { auth: Secret::new("QVdTOnRva2Vu".into()), life, session_ends_at: session.map(at) }
    }

    fn holding(from: Moment, until: i64, session: Option<i64>, after: AfterSession) -> TokenSlot<&'static str> {
        let mut slot = TokenSlot::default();
        slot.fetched(from, minted(from.wall.as_second(), until, session), "seed", after).unwrap();
        slot
    }

    #[test]
    fn a_token_is_due_as_soon_as_either_clock_says_so() {
        let slot = holding(moment(0), 1_000, None, AfterSession::Unknown);
        assert_eq!(slot.step(moment(399)), Step::Keep);
        assert_eq!(slot.step(moment(501)), Step::Fetch);
        assert_eq!(slot.step(by(501, 10)), Step::Fetch, "slept");
        assert_eq!(slot.step(by(-3_000, 501)), Step::Fetch, "set back");
        assert_eq!(slot.step(by(-3_000, 399)), Step::Keep);
    }

    #[test]
    fn a_clock_set_forward_costs_one_call() {
        let mut slot = holding(moment(0), 43_200, None, AfterSession::Unknown);
        let ahead = by(6 * 3_600, 10);
        assert_eq!(slot.step(ahead), Step::Fetch);
        slot.fetched(ahead, minted(6 * 3_600, 43_210, None), "seed", AfterSession::Unknown).unwrap();
        assert_eq!(slot.step(by(6 * 3_600 + 60, 70)), Step::Keep);
        assert_eq!(slot.step(by(60, 70)), Step::Keep, "nor does setting it right");
    }

    #[test]
    fn the_pause_after_a_failure_ends_by_either_clock() {
        let mut slot = holding(moment(0), 1_000, None, AfterSession::Unknown);
        slot.failed(moment(600), "down", "seed");
        assert_eq!(slot.step(moment(602)), Step::BackOff);
        assert_eq!(slot.step(by(-900, 606)), Step::Fetch);
        assert_eq!(slot.step(by(606, 600)), Step::Fetch);
        let (error, until) = slot.failure(moment(602)).unwrap();
        assert!(error == "down" && until > at(602) && until <= at(605));
        assert!(slot.token().is_some(), "kept");
    }

    #[test]
    fn whether_a_token_outlives_its_session_is_asked_once_shortly_after_its_end() {
        let mut slot = holding(moment(0), 43_200, Some(3_600), AfterSession::Unknown);
        assert_eq!(slot.step(moment(3_601)), Step::Keep, "clocks differ a little");
        assert!(matches!(slot.step(moment(3_660)), Step::Probe(_)));
        slot.told(moment(3_660), AfterSession::LivesOn);
        assert_eq!(slot.step(moment(4 * 3_600)), Step::Keep);
        assert_eq!(slot.step(moment(6 * 3_600)), Step::Fetch);

        let mut slot = holding(moment(0), 43_200, Some(3_600), AfterSession::Unknown);
        slot.told(moment(3_660), AfterSession::Dies);
        assert_eq!(slot.token().unwrap().life.expires_at, at(3_600), "whatever AWS said");
        assert_eq!(slot.step(moment(3_660)), Step::Fetch);
        // What another token told before its own session has ended.
        let mut slot = holding(moment(0), 43_200, Some(3_600), AfterSession::Unknown);
        slot.told(moment(1_800), AfterSession::Unknown);
        assert_eq!(slot.step(moment(1_800)), Step::Keep);
        slot.told(moment(1_800), AfterSession::Dies);
        assert_eq!(slot.step(moment(1_800)), Step::Fetch);
        assert_eq!(slot.token().unwrap().life.expires_at, at(3_600));
        // Long after, as after a sleep, a new one is due whatever the answer.
        let slot = holding(moment(0), 43_200, Some(3_600), AfterSession::Unknown);
        assert_eq!(slot.step(moment(40_000)), Step::Fetch);
    }

    #[test]
    fn where_tokens_die_with_their_session_they_are_renewed_before_its_end() {
        let slot = holding(moment(0), 43_200, Some(3_600), AfterSession::Dies);
        assert_eq!(slot.token().unwrap().life.expires_at, at(3_600));
        assert_eq!(slot.step(moment(1_801)), Step::Fetch);
        let slot = holding(moment(0), 43_200, Some(3_600), AfterSession::LivesOn);
        assert_eq!(slot.step(moment(4 * 3_600)), Step::Keep);
        // A session that outlives the token is of no concern.
        let slot = holding(moment(0), 1_000, Some(3_600), AfterSession::Dies);
        assert_eq!(slot.token().unwrap().life.expires_at, at(1_000));
    }

    #[test]
    fn where_the_registry_gave_no_answer_tokens_count_as_dying_until_one_that_was_replaced_tells() {
        let mut slot = holding(moment(0), 43_200, Some(3_600), AfterSession::Unknown);
        assert!(matches!(slot.step(moment(3_660)), Step::Probe(_)));
        slot.told(moment(3_660), AfterSession::NoAnswer);
        assert_eq!(slot.token().unwrap().life.expires_at, at(43_200), "nobody said that it is dead");
        let again = |slot: &mut TokenSlot<_>, at: i64, after| {
            slot.fetched(moment(at), minted(at, at + 43_200, Some(at + 3_600)), "seed", after).unwrap();
        };
        again(&mut slot, 3_660, AfterSession::NoAnswer);
        assert_eq!(slot.token().unwrap().life.expires_at, at(7_260), "renewed before the session's end");
        assert_eq!(slot.step(moment(5_470)), Step::Fetch, "and not probed when it is too late");
        let witness = slot.witness(moment(5_470)).unwrap();
        assert_eq!(witness.life.issued_at, at(0), "whose session has ended");
        again(&mut slot, 5_470, AfterSession::NoAnswer);
        assert_eq!(slot.witness(moment(5_470)), Some(witness), "until there is an answer");
        assert_eq!(slot.witness(moment(43_200)), None, "or nothing to be learned from it");
        again(&mut slot, 43_200, AfterSession::NoAnswer);
        assert_eq!(slot.witness(moment(43_200)).unwrap().life.issued_at, at(5_470), "the next one tells");
        again(&mut slot, 43_200, AfterSession::LivesOn);
        assert_eq!(slot.witness(moment(50_000)), None);
    }

    #[test]
    fn nobody_gets_tokens_faster_than_they_may_be_replaced_however_often_it_is_wished() {
        let mut slot = holding(moment(0), 43_200, Some(3_600), AfterSession::Unknown);
        slot.expire_before(moment(0), at(0));
        assert_eq!(slot.step(moment(6)), Step::Keep, "issued at that moment");
        slot.expire_before(moment(1), at(1));
        assert_eq!(slot.step(moment(4)), Step::Keep);
        assert_eq!(slot.token().unwrap().refresh_at, at(5), "as soon as may be");
        assert_eq!(slot.step(moment(5)), Step::Fetch);
        assert_eq!(slot.step(by(-100, 5)), Step::Fetch);
        let mut short = holding(moment(0), 20, None, AfterSession::Unknown);
        short.expire_before(moment(1), at(1));
        assert_eq!(short.step(moment(1)), Step::Fetch, "tokens of tests live shorter");
    }

    #[test]
    fn clocks_part_by_sleep_and_by_being_set() {
        assert!(!clocks_parted(moment(0), moment(30)));
        assert!(!clocks_parted(moment(0), by(33, 30)), "a little is nothing");
        assert!(clocks_parted(moment(0), by(3_600, 30)));
        assert!(clocks_parted(moment(0), by(-3_600, 30)));
    }
}
