//! The whole life of tokens and of the Secret that holds them, against random sequences of what may happen to them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;

use super::*;
use crate::core::pull_secret::{Integrity, Marks, SecretOwner, Seen, TokenLives};

const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;
/// By how much a clock may be wrong while nobody remembers the other one, after a restart or a sleep: the slack there is.
const SLACK: i64 = 20 * MINUTE;
/// What a token of ECR lives.
const LIFE: i64 = 12 * HOUR;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aws {
    Answers,
    Fails,
    Throttles,
}

#[derive(Debug, Clone)]
enum Happens {
    Passes(i64),
    Sleeps(i64),
    ClockIsSet(i64),
    AwsIs(Aws),
    Restarts,
    AnotherReplicaLeads,
    SecretIsDeleted,
    SecretIsEdited,
}

fn anything() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (1..8 * HOUR).prop_map(Happens::Passes),
        1 => (MINUTE..10 * HOUR).prop_map(Happens::Sleeps),
        1 => (-SLACK..SLACK).prop_map(Happens::ClockIsSet),
        2 => prop_oneof![Just(Aws::Answers), Just(Aws::Fails), Just(Aws::Throttles)].prop_map(Happens::AwsIs),
        1 => Just(Happens::Restarts),
        1 => Just(Happens::AnotherReplicaLeads),
        1 => Just(Happens::SecretIsDeleted),
        1 => Just(Happens::SecretIsEdited),
    ]
}

fn a_wild_clock() -> impl Strategy<Value = Happens> {
    prop_oneof![
        2 => (1..8 * HOUR).prop_map(Happens::Passes),
        1 => (-5 * HOUR..5 * HOUR).prop_map(Happens::ClockIsSet),
    ]
}

/// A Secret, and which token it really holds: they are numbered as AWS gave them.
struct KeptSecret {
    seen: Seen,
    number: i64,
}

struct World {
    /// Seconds since the beginning.
    now: i64,
    /// By how much the wall clock is wrong, and by how much it may be.
    off: i64,
    most_off: i64,
    uptime: i64,
    aws: Aws,
    answers_since: Option<i64>,
    replicas: [TokenSlot<Aws>; 2],
    leader: usize,
    next_pass: i64,
    secret: Option<KeptSecret>,
    /// When the tokens really end, by number.
    tokens: BTreeMap<i64, i64>,
    asked: Vec<i64>,
    /// Each time the clock was set, the next token to be asked for.
    clock_set: Vec<i64>,
}

impl World {
    fn new(most_off: i64) -> Self {
        Self {
            now: 0,
            off: 0,
            most_off,
            uptime: 0,
            aws: Aws::Answers,
            answers_since: Some(0),
            replicas: Default::default(),
            leader: 0,
            next_pass: 0,
            secret: None,
            tokens: BTreeMap::new(),
            asked: Vec::new(),
            clock_set: Vec::new(),
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: Timestamp::from_second(1_000_000_000 + self.now + self.off).unwrap(),
            uptime: Duration::from_secs(self.uptime.unsigned_abs()),
        }
    }

    fn happens(&mut self, what: &Happens) {
        match what {
            Happens::Passes(seconds) => self.passes(*seconds),
            Happens::Sleeps(seconds) => {
                self.now += seconds;
                self.clocks_parted();
            }
            Happens::ClockIsSet(by) => {
                self.off = (self.off + by).clamp(-self.most_off, self.most_off);
                self.clock_set.push(i64::try_from(self.tokens.len()).unwrap());
                self.clocks_parted();
            }
            Happens::AwsIs(aws) => {
                self.aws = *aws;
                self.answers_since = (*aws == Aws::Answers).then_some(self.answers_since.unwrap_or(self.now));
            }
            Happens::Restarts => {
                self.replicas[self.leader] = TokenSlot::default();
                self.pass();
            }
            Happens::AnotherReplicaLeads => {
                self.leader = 1 - self.leader;
                self.pass();
            }
            Happens::SecretIsDeleted => {
                self.secret = None;
                self.pass();
            }
            Happens::SecretIsEdited => {
                self.secret.iter_mut().for_each(|secret| secret.seen.integrity = Integrity::Edited);
                self.pass();
            }
        }
    }

    fn passes(&mut self, seconds: i64) {
        let end = self.uptime + seconds;
        while self.next_pass <= end {
            let by = (self.next_pass - self.uptime).max(0);
            (self.now, self.uptime) = (self.now + by, self.uptime + by);
            self.pass();
        }
        (self.now, self.uptime) = (self.now + end - self.uptime, end);
    }

    /// Noticed within half a minute.
    fn clocks_parted(&mut self) {
        self.passes(30);
        self.pass();
    }

    /// As the controller does it: the Secret first, then the slot, then what is to be written.
    fn pass(&mut self) {
        let now = self.moment();
        let slot = &self.replicas[self.leader];
        let young = slot.token().is_none() || !slot.is_due(now);
        let is_good = |secret: &KeptSecret| young && secret.seen.is_good("content", ["host"], now.wall, None);
        if !self.secret.as_ref().is_some_and(is_good) {
            if slot.step(now) == Step::Fetch {
                self.ask(now);
            }
            self.write(now);
        }
        let slot = &self.replicas[self.leader];
        let refresh_at = self.secret.as_ref().and_then(|secret| Some(secret.seen.marks.as_ref()?.refresh_at));
        let retry_at = slot.failure(now).map(|(_, at)| at);
        let next = [refresh_at, retry_at].into_iter().flatten().filter(|at| *at > now.wall).min();
        let pause = next.map_or(HOUR, |at| i64::try_from(wait(now.wall, at).as_secs()).unwrap() + 1);
        self.next_pass = self.uptime + pause;
        self.check();
    }

    fn ask(&mut self, now: Moment) {
        self.asked.push(self.now);
        let slot = &mut self.replicas[self.leader];
        if self.aws != Aws::Answers {
            return slot.failed(now, self.aws, "seed");
        }
        let number = i64::try_from(self.tokens.len()).unwrap();
        self.tokens.insert(number, self.now + LIFE);
        let expires_at = Timestamp::from_second(1_000_000_000 + self.now + LIFE).unwrap();
        let auth = Secret::new(BASE64_STANDARD.encode(format!("AWS:{number}")));
        let life = Life::of(now.wall, Some(expires_at)).unwrap();
        let minted = Minted { auth, life, session_ends_at: None };
        slot.fetched(now, minted, "seed", AfterSession::Unknown).unwrap();
    }

    fn write(&mut self, now: Moment) {
        let slot = &self.replicas[self.leader];
        let Some(token) = slot.token() else { return };
        let owner = SecretOwner { kind: "k".into(), namespace: None, name: "n".into(), uid: "u".into() };
        let marks = Marks {
            owner,
            content: "content".into(),
            tokens: TokenLives::of([("host", token.life, "all")]),
            life: token.life,
            refresh_at: token.refresh_at,
        };
        if self.secret.as_ref().is_some_and(|secret| secret.seen.outlasts(&marks, true, now.wall)) {
            return;
        }
        let number = token.password.expose().parse().expect("never empty");
        let before =
            self.secret.as_ref().filter(|secret| secret.seen.is_intact() && self.tokens[&secret.number] > self.now);
        // Of two tokens, the clock tells the newer one unless it was set in between.
        let set_between = |before: &KeptSecret| self.clock_set.iter().any(|set| number < *set && *set <= before.number);
        let as_old = |before: &KeptSecret| self.tokens[&number] >= self.tokens[&before.number];
        let kept = before.is_none_or(|before| as_old(before) || set_between(before));
        assert!(kept, "a valid token gives way to an older one");
        let seen = Seen { uid: "s".into(), owner_uid: "u".into(), marks: Some(marks), integrity: Integrity::Whole };
        self.secret = Some(KeptSecret { seen, number });
    }

    fn check(&self) {
        if self.answers_since.is_some_and(|since| self.now - since >= 6 * HOUR) {
            let secret = self.secret.as_ref().expect("AWS answered, so there is one");
            let left = self.tokens[&secret.number] - self.now;
            assert!(left >= 5 * HOUR, "{left} s of a token's life are left");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_a_secret_is_neither_blanked_nor_set_back_nor_left_to_grow_old(
        all in prop::collection::vec(anything(), 1..60)
    ) {
        let mut world = World::new(SLACK);
        world.pass();
        let mut excused = 1;
        for what in &all {
            world.happens(what);
            excused += i64::from(!matches!(what, Happens::Passes(_) | Happens::AwsIs(_)));
        }
        let failed = i64::try_from(world.asked.len() - world.tokens.len()).unwrap();
        let got = i64::try_from(world.tokens.len()).unwrap();
        // The shortest half life there is: less a tenth, by a clock that is ahead.
        prop_assert!(got <= world.now / (LIFE * 2 / 5 - 3 * HOUR) + excused, "{got} tokens in {} h", world.now / HOUR);
        prop_assert!(failed <= world.now / 3 + excused, "{failed} calls in vain");
    }

    #[test]
    fn a_clock_that_is_set_while_the_process_runs_misleads_nobody(all in prop::collection::vec(a_wild_clock(), 1..60)) {
        let mut world = World::new(5 * HOUR);
        world.pass();
        for what in &all {
            world.happens(what);
        }
    }

    #[test]
    fn restarts_cost_nothing_while_the_secret_is_young(pauses in prop::collection::vec(1..HOUR, 1..100)) {
        let mut world = World::new(SLACK);
        world.pass();
        for pause in pauses {
            world.happens(&Happens::Restarts);
            world.happens(&Happens::Passes(pause));
        }
        let got = i64::try_from(world.asked.len()).unwrap();
        prop_assert!(got <= world.now / (LIFE * 2 / 5) + 1, "{got} calls in {} h", world.now / HOUR);
    }
}
