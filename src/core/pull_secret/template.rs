//! The data of a Secret from a template, for tools that don't read docker configs.

use std::collections::BTreeMap;

use crate::core::pull_secret::MOST_BYTES;
use crate::core::reason::{Problem, Reason};
use crate::core::token::{Secret, Token, USERNAME};

/// `{host}`, `{username}` and `{password}` filled in. Any other brace stays as it is, so that a value may be JSON.
///
/// # Errors
/// `Invalid` unless there is exactly one host, and where it is more than a Secret holds.
pub fn template_data(
    template: &BTreeMap<String, String>,
    logins: &[(&str, &Token)],
) -> Result<BTreeMap<String, Secret>, Problem> {
    let [(host, token)] = logins else {
        return Err(only_one_host(logins.len()));
    };
    let fill = |text: &String| {
        fill(text, &[("{host}", host), ("{username}", USERNAME), ("{password}", token.password.expose())])
    };
    let data: BTreeMap<_, _> = template.iter().map(|(key, text)| (key.clone(), fill(text))).collect();
    let bytes: usize = data.values().map(|value| value.expose().len()).sum();
    if bytes > MOST_BYTES {
        return Err(Problem::new(
            Reason::Invalid,
            format!("secretTemplate.data filled in has {bytes} bytes; a Secret holds {MOST_BYTES}"),
        ));
    }
    Ok(data)
}

/// Why a template can't be filled in with so many hosts.
#[must_use]
pub fn only_one_host(hosts: usize) -> Problem {
    Problem::new(
        Reason::Invalid,
        format!(
            "format Template has room for one host, and spec.registries means {hosts}: narrow accounts, regions and hosts to one, and create an object for each of the others"
        ),
    )
}

/// In one go: what is filled in isn't looked at again.
fn fill(text: &str, values: &[(&str, &str)]) -> Secret {
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let found = values.iter().find_map(|(name, value)| Some((*value, from.strip_prefix(name)?)));
        let (value, after) = found.unwrap_or(("{", from.get(1..).unwrap_or_default()));
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Secret::new(filled)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use jiff::Timestamp;

    use super::*;
    use crate::core::token::Life;

    fn token(password: &str) -> Token {
        let life = Life::of(Timestamp::UNIX_EPOCH, Some(Timestamp::from_second(100).unwrap())).unwrap();
        Token::parse(Secret::new(BASE64_STANDARD.encode(format!("AWS:{password}"))), life, "").unwrap()
    }

    fn filled(text: &str, password: &str) -> String {
        let data = template_data(&[("k".to_owned(), text.to_owned())].into(), &[("h.example", &token(password))]);
        data.unwrap()["k"].expose().to_owned()
    }

    #[test]
    fn names_are_filled_in_and_other_braces_stay() {
        assert_eq!(filled("{username}:{password}@{host}/{host}", "pw"), "AWS:pw@h.example/h.example");
        assert_eq!(
            filled(r#"[{"matchHost":"{host}","a":{"password":"{password}"}}]"#, "pw"),
            r#"[{"matchHost":"h.example","a":{"password":"pw"}}]"#
        );
        assert_eq!(filled("{{host}} {Host} {host {} ä{", "pw"), "{h.example} {Host} {host {} ä{");
    }

    #[test]
    fn what_is_filled_in_is_not_filled_in_again() {
        assert_eq!(filled("{password}", "{host}{username}"), "{host}{username}");
    }

    #[test]
    fn one_host_or_none_is_written_and_the_number_told() {
        let template = BTreeMap::new();
        let token = token("pw");
        let problem = template_data(&template, &[("a", &token), ("b", &token), ("c", &token)]).unwrap_err();
        assert_eq!(problem.reason, Reason::Invalid);
        assert!(problem.message.contains("means 3"), "{problem}");
    }

    #[test]
    fn beyond_the_size_of_a_secret_the_number_is_told() {
        let template = (0..20).map(|n| (n.to_string(), "{password}".repeat(100))).collect();
        let problem = template_data(&template, &[("a", &token(&"x".repeat(1000)))]).unwrap_err();
        assert!(problem.message.contains("2000000 bytes"), "{problem}");
    }
}
