use proptest::prelude::*;

use super::*;

const TERMS: Terms =
    Terms { duration: Duration::from_secs(15), renew_within: Duration::from_secs(10), retry: Duration::from_secs(2) };

fn s(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn record(holder: Option<&str>, version: &str) -> Record {
    let duration = if holder.is_some() { s(15) } else { RELEASED };
    let (uid, version) = ("u".to_owned(), version.to_owned());
    Record { holder: holder.map(str::to_owned), duration, transitions: 3, uid, version }
}

fn looked(lease: Option<Record>, now: Moment) -> Candidate {
    let mut me = Candidate::new("me".to_owned(), TERMS);
    me.observe(lease, now);
    me
}

#[test]
fn who_knows_nothing_looks_first() {
    assert_eq!(Candidate::new("me".to_owned(), TERMS).next(s(0)), Next::Look);
}

#[test]
fn what_is_done_about_a_lease_as_it_is_seen() {
    let taken = Next::Write(Claim { renews: false, transitions: 4 });
    for (lease, after, next, why) in [
        (Some(record(None, "1")), 0, taken.clone(), "released: taken at once"),
        (Some(Record { duration: s(15), ..record(None, "1") }), 14, Next::Wait, "edited by hand"),
        (Some(record(Some("other"), "1")), 14, Next::Wait, "it may be renewed yet"),
        (Some(record(Some("other"), "1")), 15, taken, "nobody renewed it"),
        (None, 0, Next::Write(Claim { renews: false, transitions: 0 }), "there is none"),
        (Some(record(Some("me"), "1")), 0, Next::Write(Claim { renews: true, transitions: 3 }), "a lost answer"),
    ] {
        assert_eq!(looked(lease, s(100)).next(s(100 + after)), next, "{why}");
    }
}

#[test]
fn every_change_of_the_lease_starts_the_wait_anew() {
    let mut me = looked(Some(record(Some("other"), "1")), s(0));
    me.observe(Some(record(Some("other"), "1")), s(10));
    assert!(matches!(me.next(s(15)), Next::Write(_)));
    me.observe(Some(record(Some("other"), "2")), s(14));
    assert_eq!(me.next(s(28)), Next::Wait);
}

#[test]
fn the_holder_counts_from_before_it_sent_its_claim() {
    let mut me = looked(Some(record(None, "1")), s(0));
    me.claimed(record(Some("me"), "2"), s(1), s(3));
    assert!(me.holds(Duration::from_millis(10_999)));
    assert!(!me.holds(s(11)));
    assert_eq!(me.next(s(3)), Next::Write(Claim { renews: true, transitions: 3 }));
}

#[test]
fn a_holder_whose_time_is_up_goes_on_only_if_nobody_took_over() {
    let mut me = looked(Some(record(None, "1")), s(0));
    me.claimed(record(Some("me"), "2"), s(0), s(0));
    me.doubt();
    assert_eq!(me.next(s(60)), Next::Look);
    me.observe(Some(record(Some("me"), "2")), s(60));
    assert!(matches!(me.next(s(60)), Next::Write(Claim { renews: true, .. })), "the API server was away for a minute");
    me.observe(Some(record(Some("other"), "3")), s(61));
    assert_eq!(me.next(s(61)), Next::Lost("other".to_owned()));
    assert_eq!(me.next(s(600)), Next::Lost("other".to_owned()), "for good");
}

fn anew(holder: &str, uid: &str) -> Record {
    Record { uid: uid.to_owned(), ..record(Some(holder), "9") }
}

#[test]
fn the_first_lease_of_all_is_good_at_once() {
    let mut me = looked(None, s(0));
    me.claimed(anew("me", "v"), s(0), s(1));
    assert!(me.holds(s(1)));
    let mut lost = looked(None, s(0));
    lost.doubt();
    lost.observe(Some(anew("me", "v")), s(4));
    lost.claimed(anew("me", "v"), s(4), s(4));
    assert!(lost.holds(s(4)), "also where the answer to its creation was lost");
}

#[test]
fn who_creates_a_lease_anew_works_only_once_nobody_works_under_one_that_was_deleted() {
    let mut me = looked(Some(record(Some("other"), "1")), s(0));
    me.observe(None, s(0));
    me.claimed(anew("me", "v"), s(0), s(1));
    assert!(!me.holds(s(1)));
    assert!(!me.release(s(1)), "nor may another begin: it isn't released");
    me.claimed(anew("me", "v"), s(15), s(17));
    assert!(!me.holds(s(17)));
    me.claimed(anew("me", "v"), s(16), s(17));
    assert!(me.holds(s(17)), "it was there all the time");

    let mut lost = looked(None, s(0));
    lost.doubt();
    lost.observe(Some(record(Some("other"), "1")), s(2));
    lost.observe(Some(anew("me", "v")), s(4));
    lost.claimed(anew("me", "v"), s(4), s(4));
    assert!(!lost.holds(s(4)), "nor where the creation arrived late and its answer was lost");
}

#[test]
fn a_lease_that_was_deleted_is_put_back_by_its_holder() {
    let mut me = looked(Some(record(None, "1")), s(0));
    me.claimed(record(Some("me"), "2"), s(0), s(0));
    me.observe(None, s(4));
    me.claimed(anew("me", "v"), s(4), s(4));
    assert!(me.holds(s(4)), "it never stopped holding it");
    me.observe(None, s(20));
    me.claimed(anew("me", "w"), s(20), s(20));
    assert!(!me.holds(s(20)), "it was too late, and waits as everybody");
}

#[test]
fn only_the_holder_releases() {
    assert!(!looked(Some(record(Some("other"), "1")), s(0)).release(s(0)));
    let mut me = looked(Some(record(None, "1")), s(0));
    me.claimed(record(Some("me"), "2"), s(0), s(0));
    assert!(me.holds(s(0)));
    assert!(me.release(s(0)));
    assert!(!me.holds(s(0)), "and works no more");
}

#[test]
fn terms_that_do_not_fit_together_are_refused() {
    let half = Duration::from_millis(500);
    assert_eq!(Terms::parse(s(15), s(10), s(2)), Ok(TERMS));
    assert_eq!(Terms::parse(s(1) + half, s(1), half), Err(TermsError::Seconds));
    assert_eq!(Terms::parse(s(15), s(15), s(2)), Err(TermsError::Deadline));
    assert_eq!(Terms::parse(s(15), s(14) + half, s(2)), Err(TermsError::Deadline));
    assert_eq!(TERMS.connect_within(), s(4));
    for terms in [TERMS, Terms::parse(s(15), s(14), s(2)).unwrap()] {
        assert!(terms.renew_within + terms.connect_within() < terms.duration, "{terms:?}");
    }
    assert_eq!(Terms::parse(s(15), s(10), s(6)), Err(TermsError::Retry));
    assert_eq!(Terms::parse(s(15), s(10), s(0)), Err(TermsError::Retry));
}

/// A few processes and an API server, in true time. Whatever can be late, lost or frozen is.
struct World {
    random: u64,
    now: Duration,
    processes: Vec<Process>,
    lease: Option<Record>,
    /// The latest.
    version: u64,
    uid: u64,
    requests: u64,
    events: Vec<(Duration, usize, Event)>,
}

struct Process {
    candidate: Candidate,
    /// Its clock: when it shows 0, and how fast it goes, in thousandths.
    started: Duration,
    speed: u32,
    frozen_until: Duration,
    /// Answers to earlier requests don't count.
    request: u64,
}

enum Event {
    Turn,
    /// A request reaches the API server: a look, or a write.
    Request(u64, Option<Written>),
    Answer(u64, Answer),
}

/// A claim as it travels.
struct Written {
    claim: Claim,
    by: String,
    over: Option<String>,
    sent: Moment,
}

enum Answer {
    Seen(Option<Record>),
    Claimed(Record, Moment),
    Failed,
}

impl World {
    fn new(seed: u64) -> Self {
        let world = Self {
            random: seed | 1,
            now: s(3600),
            processes: Vec::new(),
            lease: None,
            version: 0,
            uid: 0,
            requests: 0,
            events: Vec::new(),
        };
        (0..3).fold(world, |mut world, n| {
            let process = world.process();
            world.processes.push(process);
            world.events.push((world.now, n, Event::Turn));
            world
        })
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Mostly quick; now and then far too slow.
    fn delay(&mut self) -> Duration {
        let most = if self.random(20) == 0 { 40_000 } else { 300 };
        Duration::from_millis(self.random(most))
    }

    fn process(&mut self) -> Process {
        let (name, speed) = (self.random(u64::MAX), 900 + u32::try_from(self.random(200)).unwrap());
        let started = self.now.saturating_sub(Duration::from_millis(self.random(3_000_000)));
        let candidate = Candidate::new(name.to_string(), TERMS);
        Process { candidate, started, speed, frozen_until: self.now, request: 0 }
    }

    fn clock(&self, n: usize) -> Moment {
        let process = &self.processes[n];
        self.now.saturating_sub(process.started) * process.speed / 1000
    }

    fn step(&mut self) {
        let earliest = (0..self.events.len()).min_by_key(|at| self.events[*at].0).unwrap();
        let (at, n, event) = self.events.swap_remove(earliest);
        self.now = at;
        match self.random(400) {
            // Whoever starts at the very time at which the Lease is deleted takes it for the first start of all.
            0 if self.processes.iter().all(|process| process.candidate.under.is_some()) => self.lease = None,
            1 if self.lease.is_some() => {
                self.processes[n] = self.process();
                self.events.retain(|(_, of, event)| *of != n || matches!(event, Event::Request(..)));
                return self.events.push((self.now, n, Event::Turn));
            }
            2..6 => self.processes[n].frozen_until = self.now + Duration::from_millis(self.random(60_000)),
            _ => {}
        }
        let frozen_until = self.processes[n].frozen_until;
        if frozen_until > self.now && !matches!(event, Event::Request(..)) {
            return self.events.push((frozen_until, n, event));
        }
        match event {
            Event::Turn => self.turn(n),
            Event::Request(id, claim) => {
                let answer = self.served(claim);
                let lost = self.random(15) == 0;
                let at = self.now + self.delay();
                self.events.push((at, n, Event::Answer(id, if lost { Answer::Failed } else { answer })));
            }
            Event::Answer(id, answer) if id == self.processes[n].request => self.answered(n, answer),
            Event::Answer(..) => {}
        }
    }

    fn turn(&mut self, n: usize) {
        let now = self.clock(n);
        let process = &mut self.processes[n];
        let claim = match process.candidate.next(now) {
            Next::Look => None,
            Next::Write(claim) => {
                let seen = process.candidate.seen.as_ref().and_then(|(lease, _)| lease.as_ref());
                let over = seen.map(|lease| lease.version.clone());
                Some(Written { claim, by: process.candidate.me.clone(), over, sent: now })
            }
            Next::Wait => {
                process.candidate.doubt();
                return self.events.push((self.now + TERMS.retry, n, Event::Turn));
            }
            // It ends, and another process starts in its place.
            Next::Lost(_) => {
                let after = if self.lease.is_some() { Duration::ZERO } else { TERMS.retry };
                if after.is_zero() {
                    self.processes[n] = self.process();
                }
                return self.events.push((self.now + after, n, Event::Turn));
            }
        };
        self.requests += 1;
        let id = self.requests;
        process.request = id;
        let arrives = self.now + self.delay();
        self.events.push((arrives, n, Event::Request(id, claim)));
        // It doesn't wait for an answer for ever.
        self.events.push((self.now + s(5), n, Event::Answer(id, Answer::Failed)));
    }

    fn served(&mut self, claim: Option<Written>) -> Answer {
        let Some(Written { claim, by, over, sent }) = claim else {
            return Answer::Seen(self.lease.clone());
        };
        if self.lease.as_ref().map(|lease| &lease.version) != over.as_ref() {
            return Answer::Failed;
        }
        self.version += 1;
        let holder = Some(by);
        self.uid += u64::from(over.is_none());
        let (uid, version) = (self.uid.to_string(), self.version.to_string());
        let record = Record { holder, duration: TERMS.duration, transitions: claim.transitions, uid, version };
        self.lease = Some(record.clone());
        Answer::Claimed(record, sent)
    }

    fn answered(&mut self, n: usize, answer: Answer) {
        let now = self.clock(n);
        let process = &mut self.processes[n];
        process.request = 0;
        match answer {
            Answer::Seen(lease) => {
                process.candidate.observe(lease, now);
                return self.events.push((self.now, n, Event::Turn));
            }
            Answer::Claimed(record, sent) => process.candidate.claimed(record, sent, now),
            Answer::Failed => process.candidate.doubt(),
        }
        self.events.push((self.now + TERMS.retry, n, Event::Turn));
    }

    fn holders(&self) -> usize {
        (0..self.processes.len()).filter(|n| self.processes[*n].candidate.holds(self.clock(*n))).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn never_do_two_processes_believe_that_they_hold_it(seed: u64) {
        let mut world = World::new(seed);
        let mut held = 0;
        for _ in 0..4000 {
            world.step();
            prop_assert!(world.holders() <= 1, "two at {:?}", world.now);
            held += world.holders();
        }
        prop_assert!(held > 400, "and mostly one does: {held} of 4000");
    }
}
