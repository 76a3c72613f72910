//! Globs as IAM has them: `*` is any run of characters, `/` included; nothing else is special.

/// Whether `text` fits `pattern`.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        // The earliest place is as good as any later one: what follows may only need less room.
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    true
}

/// Whether whatever fits `narrow` fits `wide`: a star of `narrow` is a letter that only a star takes.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    matches(wide, narrow)
}

/// Without those that another one covers; sorted. More than [`MOST_COMPARED`] are only sorted: so many fit no policy.
#[must_use]
pub fn minimal(mut globs: Vec<String>) -> Vec<String> {
    for glob in &mut globs {
        while glob.contains("**") {
            *glob = glob.replace("**", "*");
        }
    }
    globs.sort();
    globs.dedup();
    if globs.len() > MOST_COMPARED {
        return globs;
    }
    let covered = |glob: &String| globs.iter().any(|other| other != glob && covers(other, glob));
    globs.iter().filter(|glob| !covered(glob)).cloned().collect()
}

/// Globs that are compared with each other at most.
const MOST_COMPARED: usize = 1_000;

/// The most globs that an intersection is told as: many stars on both sides overlap in very many ways.
const MOST_COMMON: usize = 64;

/// What may be spent on intersections: letters looked at, as often as they are. Globs of people cost hundreds; whoever may
/// write a pull secret could else keep the operator busy with a few lines.
#[derive(Debug)]
pub struct Effort(usize);

impl Default for Effort {
    fn default() -> Self {
        Self(2_000_000)
    }
}

impl Effort {
    fn spend(&mut self, letters: usize) -> Option<()> {
        self.0 = self.0.checked_sub(letters)?;
        Some(())
    }
}

/// What fits both: text fits one of these globs exactly if it fits `a` and `b`. `None` where that would be too many, or too
/// much to find out.
#[must_use]
pub fn intersect(a: &str, b: &str, effort: &mut Effort) -> Option<Vec<String>> {
    effort.spend(a.len() + b.len())?;
    if covers(a, b) {
        return Some(minimal(vec![b.to_owned()]));
    }
    if covers(b, a) {
        return Some(minimal(vec![a.to_owned()]));
    }
    if !begin_alike(a.bytes(), b.bytes()) || !begin_alike(a.bytes().rev(), b.bytes().rev()) {
        return Some(Vec::new());
    }
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    effort.spend(a.len() * b.len())?;
    // Row by row from the ends: what the rests from here on have in common.
    let mut below: Vec<Vec<String>> = Vec::new();
    for i in (0..=a.len()).rev() {
        let mut row = vec![Vec::new(); b.len() + 1];
        for j in (0..=b.len()).rev() {
            let longer = |rests: &[String], c: char| rests.iter().map(|rest| format!("{c}{rest}")).collect::<Vec<_>>();
            let common = match (a.get(i), b.get(j)) {
                (None, None) => vec![String::new()],
                // Each star takes at least as much as the other, or the other at least as much as it.
                (Some('*'), Some('*')) => [longer(&below[j], '*'), longer(&row[j + 1], '*')].concat(),
                // The star takes nothing more, or the next letter of the other.
                (Some('*'), Some(c)) => [below[j].clone(), longer(&row[j + 1], *c)].concat(),
                (Some(c), Some('*')) => [row[j + 1].clone(), longer(&below[j], *c)].concat(),
                (Some('*'), None) => below[j].clone(),
                (None, Some('*')) => row[j + 1].clone(),
                (Some(c), Some(d)) if c == d => longer(&below[j + 1], *c),
                _ => Vec::new(),
            };
            effort.spend(common.len() * common.iter().map(String::len).sum::<usize>())?;
            let common = minimal(common);
            if common.len() > MOST_COMMON {
                return None;
            }
            row[j] = common;
        }
        below = row;
    }
    below.into_iter().next()
}

/// Whether they are the same as far as neither has a star.
fn begin_alike(a: impl Iterator<Item = u8>, b: impl Iterator<Item = u8>) -> bool {
    a.zip(b).take_while(|(a, b)| *a != b'*' && *b != b'*').all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use std::ops::Add as _;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_is_any_run_and_crosses_slashes() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "a/b"),
            ("team-a/*", "team-a/x/y"),
            ("a*b*c", "abc"),
            ("a*b*c", "a-b-b-c"),
            ("*a", "aa"),
            ("a", "a"),
            ("a**b", "ab"),
            ("", ""),
        ] {
            assert!(matches(pattern, text), "{pattern} ~ {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("team-a/*", "team-ab/x"),
            ("a*b*c", "acb"),
            ("*a", "ab"),
            ("a?", "ab"),
            ("a*a", "a"),
            ("[ab]", "a"),
        ] {
            assert!(!matches(pattern, text), "{pattern} !~ {text}");
        }
    }

    #[test]
    fn globs_with_many_stars_are_refused_rather_than_worked_on_for_ever() {
        let intersect = |a: &str, b: &str| intersect(a, b, &mut Effort::default());
        assert_eq!(intersect("team-a/*", "team-a/app-*").unwrap(), ["team-a/app-*"]);
        assert_eq!(intersect("team-a/*", "*/app").unwrap(), ["team-a/*/app", "team-a/app"]);
        assert!(intersect("a", "b").unwrap().is_empty());
        assert_eq!(intersect(&"*a".repeat(40), &"*b".repeat(40)), Some(Vec::new()));
        assert_eq!(intersect(&"*a".repeat(40).add("*"), &"*b".repeat(40).add("*")), None);
    }

    #[test]
    fn no_more_effort_is_spent_than_there_is() {
        let long = "a".repeat(20);
        let (a, b) = (format!("*{long}"), format!("{long}*"));
        assert!(intersect(&a, &b, &mut Effort::default()).is_some());
        assert_eq!(intersect(&a, &b, &mut Effort(1_000)), None);
        let mut effort = Effort(1_000);
        assert!((0..1_000).any(|_| intersect("team-a/*", "*/app", &mut effort).is_none()), "for all pairs together");
    }

    /// The definition, slow and plain.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|n| by_definition(rest, &text[n..])),
            Some((c, rest)) => text.first() == Some(c) && by_definition(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn matches_agrees_with_the_definition(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, &text), by_definition(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn an_intersection_fits_exactly_what_both_fit(a in "[ab*]{0,6}", b in "[ab*]{0,6}", text in "[ab]{0,8}") {
            let common = intersect(&a, &b, &mut Effort::default()).unwrap();
            let fits = common.iter().any(|glob| matches(glob, &text));
            prop_assert_eq!(fits, matches(&a, &text) && matches(&b, &text), "{:?}", common);
        }

        #[test]
        fn what_is_covered_fits_and_what_is_left_out_was_covered(
            globs in proptest::collection::vec("[ab*]{0,5}", 0..5),
            text in "[ab]{0,6}",
        ) {
            let fits = |globs: &[String]| globs.iter().any(|glob| matches(glob, &text));
            let kept = minimal(globs.clone());
            prop_assert_eq!(fits(&kept), fits(&globs));
            prop_assert!(kept.iter().all(|a| kept.iter().all(|b| a == b || !covers(a, b))));
        }
    }
}
