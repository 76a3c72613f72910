//! When a pull secret is looked at again.

use super::*;
use crate::core::pull_secret::SecretOwner;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A Secret whose token was had at 0 and lives for 100 seconds, to be renewed at `refresh_at`.
fn holds(refresh_at: i64) -> Marks {
    let life = Life { issued_at: at(0), expires_at: at(100) };
    Marks {
        owner: SecretOwner {
            kind: "EcrPullSecret".to_owned(),
            namespace: None,
            name: "pull".to_owned(),
            uid: "u".to_owned(),
        },
        content: "content".to_owned(),
        tokens: TokenLives::of([(HOST, life, "all")]),
        life,
        refresh_at: at(refresh_at),
    }
}

#[test]
fn the_next_look_is_when_the_token_is_due_however_late_the_last_one_was() {
    let mut served = Served::default();
    served.ready.insert("team-a".to_owned(), holds(45));
    for now in [0, 20, 40, 44] {
        let left = Duration::from_secs(u64::try_from(45 - now).unwrap());
        let wait = served.soonest(None, at(now));
        assert!((left..left + Duration::from_secs(1)).contains(&wait), "at {now}: {wait:?}");
    }
    // Of many the first.
    served.ready.insert("team-b".to_owned(), holds(30));
    assert!(served.soonest(None, at(25)) < Duration::from_secs(6));
}
