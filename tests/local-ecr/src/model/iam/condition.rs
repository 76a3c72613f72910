//! Conditions of statements, and the matching with wildcards that all of IAM shares.

use serde_json::Value;

use super::Request;

#[derive(Debug, Clone)]
pub(crate) struct Condition {
    operator: String,
    key: String,
    values: Vec<String>,
}

impl Condition {
    pub fn holds(&self, request: &Request) -> bool {
        let (quantifier, operator) = match self.operator.split_once(':') {
            Some((quantifier, operator)) => (quantifier, operator),
            None => ("", self.operator.as_str()),
        };
        let (operator, if_exists) = match operator.strip_suffix("IfExists") {
            Some(operator) => (operator, true),
            None => (operator, false),
        };
        let actual = request.context.get(&self.key.to_lowercase());
        if operator == "Null" {
            return self.values.iter().any(|value| (value == "true") == actual.is_none());
        }
        let Some(actual) = actual else {
            return if_exists || quantifier == "ForAllValues" || operator.contains("Not");
        };
        let one = |value: &String| {
            let listed = self.values.iter().any(|listed| compare(operator, &expand(listed, request), value));
            listed != operator.contains("Not")
        };
        if quantifier == "ForAllValues" { actual.iter().all(one) } else { actual.iter().any(one) }
    }
}

fn compare(operator: &str, listed: &str, actual: &str) -> bool {
    match operator {
        "StringEqualsIgnoreCase" | "StringNotEqualsIgnoreCase" | "Bool" => listed.eq_ignore_ascii_case(actual),
        "StringLike" | "StringNotLike" | "ArnLike" | "ArnNotLike" | "ArnEquals" | "ArnNotEquals" => {
            glob(listed, actual)
        }
        _ => listed == actual,
    }
}

const OPERATORS: [&str; 12] = [
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringNotEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
    "ArnEquals",
    "ArnNotEquals",
    "ArnLike",
    "ArnNotLike",
    "Bool",
    "Null",
];

/// Operators of IAM that the model accepts in a document but can't decide: they never hold.
const OTHER_OPERATORS: [&str; 8] = [
    "NumericEquals",
    "NumericLessThan",
    "NumericGreaterThan",
    "DateEquals",
    "DateLessThan",
    "DateGreaterThan",
    "IpAddress",
    "NotIpAddress",
];

pub(crate) fn parse(value: &Value) -> Result<Vec<Condition>, String> {
    let operators = value.as_object().ok_or("Condition must be an object")?;
    let mut parsed = Vec::new();
    for (operator, keys) in operators {
        let plain = operator.trim_start_matches("ForAllValues:").trim_start_matches("ForAnyValue:");
        let plain = plain.strip_suffix("IfExists").unwrap_or(plain);
        if !OPERATORS.contains(&plain) && !OTHER_OPERATORS.contains(&plain) {
            return Err(format!("unknown condition operator: {operator}"));
        }
        for (key, values) in keys.as_object().ok_or("a condition operator needs an object")? {
            let values = match values {
                Value::Array(values) => values.iter().map(scalar).collect::<Result<_, _>>()?,
                value => vec![scalar(value)?],
            };
            parsed.push(Condition { operator: operator.clone(), key: key.clone(), values });
        }
    }
    Ok(parsed)
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("a condition's value must be a string, number or boolean".to_owned()),
    }
}

/// Policy variables such as `${aws:PrincipalTag/team}`; an unknown one matches nothing.
pub(crate) fn expand(pattern: &str, request: &Request) -> String {
    let mut expanded = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((key, after)) = after.split_once('}') else { break };
        expanded.push_str(before);
        match request.context.get(&key.to_lowercase()).and_then(|values| values.first()) {
            Some(value) => expanded.push_str(value),
            None => expanded.push('\u{0}'),
        }
        rest = after;
    }
    expanded + rest
}

/// Matches with `*` (any run) and `?` (one character), as IAM does.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on after a failure: the last `*` and the text that it has taken so far.
    let mut retry = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            retry = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|c| *c == '?' || *c == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star, taken)) = retry {
            retry = Some((star, taken + 1));
            p = star + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text) in
            [("*", ""), ("a*c", "abbc"), ("a?c", "abc"), ("*b*", "abc"), ("a**", "a"), ("*/x", "a/b/x")]
        {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a", "ab"), ("a*c", "abb"), ("?", ""), ("*b", "abc")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }
}
