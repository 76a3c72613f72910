//! What the line in the status tells of a change, and of a doubt.

use super::tests::{desired, owner};
use super::*;
use crate::api::DeletionPolicy;
use crate::core::ownership::Owner;

#[test]
fn a_digest_tells_which_aspects_a_change_concerns() {
    let before = Digests::of(&desired());
    let cases = [
        (Desired { scan_on_push: Some(true), ..desired() }, vec![Aspect::Core]),
        (Desired { tags: [("a".to_owned(), "b".to_owned())].into(), ..desired() }, vec![Aspect::Tags]),
        (Desired { lifecycle: Wanted::Removed, ..desired() }, vec![Aspect::Lifecycle]),
        (Desired { deletion: DeletionPolicy::Delete, plan_only: true, ..desired() }, vec![]),
        (Desired { owner: Owner { uid: "u2".into(), ..owner() }, ..desired() }, Aspect::ALL.to_vec()),
    ];
    for (after, stale) in cases {
        assert_eq!(before.stale(&Digests::of(&after)), stale, "{after:?}");
    }
    assert_eq!(Digests::parse(&before.text()), before);
    assert_eq!(Digests::parse("nonsense").stale(&before), Aspect::ALL);
    let partly = Digests::default().with(&before, &[Aspect::Tags, Aspect::Core]);
    assert_eq!(Digests::parse(&partly.text()).stale(&before), [Aspect::Lifecycle, Aspect::Policy]);
}

#[test]
fn a_doubt_is_remembered_until_the_aspect_was_looked_at_and_tells_a_repair_from_a_change() {
    let wanted = Digests::of(&desired());
    let doubted = Digests::parse(&wanted.clone().doubting(&[Aspect::Core]).doubting(&[Aspect::Core]).text());
    assert_eq!(doubted.stale(&wanted), [Aspect::Core]);
    assert_eq!(doubted.never(&wanted), []);
    let changed = Digests::of(&Desired { scan_on_push: Some(true), ..desired() });
    assert_eq!(doubted.never(&changed), [Aspect::Core]);
    assert_eq!(doubted.with(&wanted, &[Aspect::Core]), wanted);
    assert_eq!(Digests::default().doubting(&Aspect::ALL), Digests::default(), "nothing was ever known");
}
