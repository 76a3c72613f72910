//! What a role's trust policy must say so that it can be assumed: told, word for word, to whoever has to add it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

/// Who calls, as far as it matters for scoping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// An IAM user.
    User,
    /// A session of the role with this ARN; STS doesn't tell the role's path, so it is without.
    Role(String),
    /// The account's root, a federated user, or something newer.
    Other,
}

impl Principal {
    /// Of the ARN that STS tells of a caller.
    #[must_use]
    pub fn of(caller_arn: &str) -> Self {
        let parts: Vec<_> = caller_arn.splitn(6, ':').collect();
        let [_, partition, service, _, account, resource] = parts[..] else {
            return Self::Other;
        };
        match (service, resource.split_once('/')) {
            ("iam", Some(("user", _))) => Self::User,
            ("sts", Some(("assumed-role", session))) => match session.split_once('/') {
                Some((role, _)) => Self::Role(format!("arn:{partition}:iam::{account}:role/{role}")),
                None => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// Whom a policy names to mean `caller_arn`: the role, whatever its sessions are called.
#[must_use]
pub fn principal_arn(caller_arn: &str) -> String {
    match Principal::of(caller_arn) {
        Principal::Role(arn) => arn,
        Principal::User | Principal::Other => caller_arn.to_owned(),
    }
}

/// The statement that lets `caller_arn` assume a role.
#[must_use]
pub fn of_caller(caller_arn: &str, external_id: Option<&str>, tags: bool) -> String {
    let principal = principal_arn(caller_arn);
    let action = if tags { json!(["sts:AssumeRole", "sts:TagSession"]) } else { json!("sts:AssumeRole") };
    let mut statement = json!({"Effect": "Allow", "Principal": {"AWS": principal}, "Action": action});
    if let Some(id) = external_id {
        statement["Condition"] = json!({"StringEquals": {"sts:ExternalId": id}});
    }
    statement.to_string()
}

/// The statement that lets the bearer of an OIDC token assume the role, as far as the token can be read.
#[must_use]
pub fn of_token(role_arn: &str, token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
        sub: String,
        aud: Value,
    }
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Claims { iss, sub, aud } = serde_json::from_slice(&payload).ok()?;
    let issuer = iss.strip_prefix("https://").unwrap_or(&iss);
    let audience = aud.get(0).cloned().unwrap_or(aud);
    let parts: Vec<_> = role_arn.splitn(6, ':').collect();
    let [_, partition, _, _, account, _] = parts[..] else {
        return None;
    };
    let equal = BTreeMap::from([(format!("{issuer}:aud"), audience), (format!("{issuer}:sub"), json!(sub))]);
    let statement = json!({
        "Effect": "Allow",
        "Principal": {"Federated": format!("arn:{partition}:iam::{account}:oidc-provider/{issuer}")},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": equal},
    });
    Some(statement.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_apart() {
        for (arn, principal) in [
            ("arn:aws:iam::123456789012:user/ci/bot", Principal::User),
            ("arn:aws:sts::123456789012:assumed-role/r/s", Principal::Role("arn:aws:iam::123456789012:role/r".into())),
            (
                "arn:aws-cn:sts::123456789012:assumed-role/r/s",
                Principal::Role("arn:aws-cn:iam::123456789012:role/r".into()),
            ),
            ("arn:aws:iam::123456789012:root", Principal::Other),
            ("arn:aws:sts::123456789012:federated-user/f", Principal::Other),
            ("nonsense", Principal::Other),
        ] {
            assert_eq!(Principal::of(arn), principal, "{arn}");
        }
    }

    #[test]
    fn the_statement_names_the_role_behind_a_session() {
        let told = of_caller("arn:aws:sts::123456789012:assumed-role/r/s", Some("word"), true);
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["Principal"]["AWS"], "arn:aws:iam::123456789012:role/r");
        assert_eq!(told["Action"], json!(["sts:AssumeRole", "sts:TagSession"]));
        assert_eq!(told["Condition"]["StringEquals"]["sts:ExternalId"], "word");
    }

    #[test]
    fn the_statement_for_a_token_names_its_bearer_and_not_the_token() {
        let claims = json!({"iss": "https://oidc.example.com/id/1", "sub": "system:serviceaccount:a:b", "aud": ["x"]});
        let token = format!("h.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        let text = of_token("arn:aws:iam::123456789012:role/r", &token).unwrap();
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["Principal"]["Federated"], "arn:aws:iam::123456789012:oidc-provider/oidc.example.com/id/1");
        let equal = &told["Condition"]["StringEquals"];
        assert_eq!(equal["oidc.example.com/id/1:sub"], "system:serviceaccount:a:b");
        assert_eq!(equal["oidc.example.com/id/1:aud"], "x");
        assert!(!text.contains("signature"));
        assert_eq!(of_token("arn:aws:iam::123456789012:role/r", "not a token"), None);
    }
}
