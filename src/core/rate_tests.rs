use std::collections::BTreeMap;

use super::*;

/// A server that grants `rate` calls a second, and `burst` at once after a pause; what a client with `wanted` calls needs.
struct Server {
    rate: f64,
    burst: f64,
    latency: Duration,
    tokens: f64,
    refilled: Moment,
    random: u64,
}

/// How it went.
#[derive(Debug)]
struct Run {
    took: Duration,
    throttled: u32,
}

impl Server {
    fn new(rate: f64, burst: f64, latency: Duration, seed: u64) -> Self {
        Self { rate, burst, latency, tokens: burst, refilled: Moment::ZERO, random: seed.wrapping_mul(2) | 1 }
    }

    /// Up to a fifth later than usual.
    fn latency(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.latency.mul_f64(1.0 + f64::from(u32::try_from(self.random % 1000).unwrap()) / 5000.0)
    }

    fn grants(&mut self, now: Moment) -> bool {
        let refill = now.saturating_sub(self.refilled).as_secs_f64() * self.rate;
        (self.tokens, self.refilled) = ((self.tokens + refill).min(self.burst), now);
        let granted = self.tokens >= 1.0;
        self.tokens -= f64::from(u32::from(granted));
        granted
    }

    /// Does `wanted` calls, each again until it is granted, from `start` on.
    fn serve(&mut self, rate: &mut Rate, wanted: u32, start: Moment) -> Run {
        enum Event {
            Arrives(Sent, Duration),
            Answered(Sent, bool),
        }
        let (mut now, mut left, mut done, mut throttled) = (start, wanted, 0, 0);
        let mut events: BTreeMap<(Moment, u32), Event> = BTreeMap::new();
        let mut number = 0;
        while done < wanted {
            let next = rate.next(now).filter(|_| left > 0);
            let first = events.first_key_value().map(|((at, _), _)| *at);
            number += 1;
            if let Some(at) = next.filter(|at| first.is_none_or(|first| *at <= first)) {
                // All are wanted at the start: only the first goes at once.
                let wait = match (at > now, left == wanted) {
                    (true, _) => Wait::Rate,
                    (false, true) => Wait::None,
                    (false, false) => Wait::Others,
                };
                now = at;
                left -= 1;
                let (sent, latency) = (rate.send(now, wait), self.latency());
                events.insert((now + latency / 2, number), Event::Arrives(sent, latency));
                continue;
            }
            let ((at, _), event) = events.pop_first().unwrap();
            now = at;
            match event {
                Event::Arrives(sent, latency) => {
                    let granted = self.grants(now);
                    events.insert((now + latency / 2, number), Event::Answered(sent, granted));
                }
                Event::Answered(sent, true) => {
                    rate.ended(sent, Answer::Passed, now);
                    done += 1;
                }
                Event::Answered(sent, false) => {
                    rate.ended(sent, Answer::Throttled, now);
                    (left, throttled) = (left + 1, throttled + 1);
                }
            }
        }
        Run { took: now.saturating_sub(start), throttled }
    }
}

#[test]
fn a_thousand_calls_take_little_longer_than_they_must_and_few_are_throttled() {
    for granted in [1.0, 5.0, 20.0, 100.0_f64] {
        for burst in [(granted / 10.0).max(1.0), 1.0 + granted / 5.0, granted + 5.0] {
            for latency in [20, 50, 100] {
                for seed in 1..40 {
                    let mut server = Server::new(granted, burst, Duration::from_millis(latency), seed);
                    let run = server.serve(&mut Rate::default(), 1000, Moment::ZERO);
                    let over = run.took.as_secs_f64() / (1000.0 / granted);
                    let what = format!("{granted}/s, burst {burst}, {latency} ms, seed {seed}: {over:.3} {run:?}");
                    assert!(over <= 1.15, "too slow: {what}");
                    assert!(run.throttled <= 50, "too fast: {what}");
                }
            }
        }
    }
}

#[test]
fn what_was_learned_is_remembered_over_a_pause() {
    let mut server = Server::new(20.0, 5.0, Duration::from_millis(20), 7);
    let mut rate = Rate::default();
    server.serve(&mut rate, 1000, Moment::ZERO);
    let run = server.serve(&mut rate, 200, Duration::from_hours(1));
    assert!(run.took.as_secs_f64() <= 1.15 * 10.0 && run.throttled <= 5, "{run:?}");
}

#[test]
fn a_limit_that_was_raised_or_lowered_is_noticed() {
    let mut rate = Rate::default();
    Server::new(5.0, 2.0, Duration::from_millis(20), 3).serve(&mut rate, 300, Moment::ZERO);
    let start = Duration::from_hours(1);
    let more = Server::new(50.0, 5.0, Duration::from_millis(20), 3).serve(&mut rate, 2000, start);
    assert!(more.took < Duration::from_mins(2), "at 5/s it would be 400 s: {more:?}");
    let start = Duration::from_hours(2);
    let less = Server::new(2.0, 2.0, Duration::from_millis(20), 3).serve(&mut rate, 200, start);
    assert!(less.took < Duration::from_mins(2) && less.throttled < 20, "{less:?}");
}

/// Others had used up what the account grants: a call passed now and then, whatever the rate.
#[test]
fn after_a_storm_that_others_made_the_rate_is_back_within_minutes() {
    let mut rate = Rate::default();
    let mut now = Moment::ZERO;
    for call in 0..200 {
        let sent = rate.send(now, Wait::Rate);
        now += Duration::from_millis(20);
        rate.ended(sent, if call % 3 == 0 { Answer::Passed } else { Answer::Throttled }, now);
        now = rate.next(now).unwrap();
    }
    assert!(rate.learned().unwrap() < 1.0, "{rate:?}");
    let run = Server::new(50.0, 5.0, Duration::from_millis(20), 3).serve(&mut rate, 2000, now);
    assert!(run.took < Duration::from_mins(4), "{run:?}");
    assert!(run.throttled <= 40, "{run:?}");
}

#[test]
fn a_rate_that_no_longer_binds_does_not_grow_and_is_soon_unlearned() {
    for latency in [1, 20, 100] {
        for seed in 1..6 {
            let latency = Duration::from_millis(latency);
            let mut rate = Rate::default();
            // One throttling, then as much as can be under way at once.
            let sent = rate.send(Moment::ZERO, Wait::None);
            rate.ended(sent, Answer::Throttled, latency);
            Server::new(1e6, 1e6, latency, seed).serve(&mut rate, 5000, Duration::from_secs(1));
            let most = f64::from(MOST_AT_ONCE) / latency.as_secs_f64();
            assert!(rate.learned().unwrap() <= RISE * most, "{latency:?}, seed {seed}: {rate:?}");
            let run = Server::new(5.0, 5.0, latency, seed).serve(&mut rate, 300, Duration::from_hours(1));
            let what = format!("{latency:?}, seed {seed}: {run:?}");
            assert!(run.throttled <= 40, "too fast: {what}");
            assert!(run.took.as_secs_f64() <= 1.15 * 60.0, "too slow: {what}");
        }
    }
}

#[test]
fn an_account_that_never_throttles_is_hardly_held_back() {
    let mut server = Server::new(1e6, 1e6, Duration::from_millis(20), 1);
    let run = server.serve(&mut Rate::default(), 1000, Moment::ZERO);
    // 16 at once, 22 ms each on average.
    assert!(run.took < Duration::from_millis(1000 * 24 / 16 + 150), "{run:?}");
    assert_eq!(run.throttled, 0);
}

#[test]
fn calls_that_never_had_to_wait_do_not_raise_the_rate() {
    let mut rate = Rate::default();
    Server::new(5.0, 1.0, Duration::from_millis(20), 1).serve(&mut rate, 200, Moment::ZERO);
    let before = rate.learned().unwrap();
    for second in 0..1000 {
        let now = Duration::from_secs(3600 + second);
        let sent = rate.send(now, Wait::None);
        rate.ended(sent, Answer::Passed, now + Duration::from_millis(20));
    }
    assert!((rate.learned().unwrap() - before).abs() < 1e-9);
}

#[test]
fn the_rate_never_falls_below_the_floor_and_a_lost_answer_frees_its_place() {
    let mut rate = Rate::default();
    for second in 0..100 {
        let now = Duration::from_secs(second);
        let sent = rate.send(now, Wait::Rate);
        rate.ended(sent, Answer::Throttled, now + Duration::from_millis(20));
    }
    assert!((rate.learned().unwrap() - FLOOR).abs() < 1e-9);
    let sent = rate.send(Duration::from_secs(200), Wait::Rate);
    rate.ended(sent, Answer::None, Duration::from_secs(230));
    assert_eq!(rate.under_way, 0);
}
