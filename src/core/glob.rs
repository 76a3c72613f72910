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

#[cfg(test)]
mod tests {
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
    }
}
