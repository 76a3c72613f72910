//! A queue in which everybody has its turn: whoever wants a thousand things waits for them one by one, like whoever wants
//! a single one.

use std::collections::VecDeque;

/// What waits, by who wants it.
#[derive(Debug)]
pub struct Turns<T>(VecDeque<(String, VecDeque<T>)>);

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Turns<T> {
    /// At the end of what `who` waits for.
    pub fn push(&mut self, who: &str, what: T) {
        match self.0.iter_mut().find(|(other, _)| other == who) {
            Some((_, waiting)) => waiting.push_back(what),
            None => self.0.push_back((who.to_owned(), VecDeque::from([what]))),
        }
    }

    /// The next: the oldest of whoever's turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let (who, mut waiting) = self.0.pop_front()?;
        let next = waiting.pop_front();
        if !waiting.is_empty() {
            self.0.push_back((who, waiting));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_wants_one_thing_waits_for_one_of_each_of_the_others() {
        let mut turns = Turns::default();
        for n in 0..1000 {
            turns.push("many", n);
        }
        turns.push("one", 1000);
        turns.push("two", 1001);
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).take(5).collect();
        assert_eq!(order, [0, 1000, 1001, 1, 2]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_each_keeps_its_order(wants in proptest::collection::vec(0u8..4, 0..60)) {
            let mut turns = Turns::default();
            for (n, who) in wants.iter().enumerate() {
                turns.push(&who.to_string(), (*who, n));
            }
            let mut order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
            for who in 0..4 {
                prop_assert!(order.iter().filter(|(of, _)| *of == who).is_sorted());
            }
            order.sort_by_key(|(_, n)| *n);
            prop_assert_eq!(order.iter().map(|(who, _)| *who).collect::<Vec<_>>(), wants);
        }
    }
}
