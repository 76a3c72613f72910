//! Names: accounts, Regions, partitions, hosts, ARNs and the rules for repository names.

use crate::error::{ApiError, within};

/// The pattern as ECR quotes it in its error message.
const NAME_PATTERN: &str = "(?:[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*/)*[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";

pub(crate) fn is_account_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

pub(crate) fn partition(region: &str) -> &'static str {
    match region {
        r if r.starts_with("cn-") => "aws-cn",
        r if r.starts_with("us-gov-") => "aws-us-gov",
        r if r.starts_with("eusc-") => "aws-eusc",
        r if r.starts_with("us-iso-") => "aws-iso",
        r if r.starts_with("us-isob-") => "aws-iso-b",
        r if r.starts_with("eu-isoe-") => "aws-iso-e",
        r if r.starts_with("us-isof-") || r.starts_with("eu-isof-") => "aws-iso-f",
        _ => "aws",
    }
}

/// Suffix of the classic registry hosts of a partition.
pub(crate) fn dns_suffix(region: &str) -> &'static str {
    match partition(region) {
        "aws-cn" => "amazonaws.com.cn",
        "aws-eusc" => "amazonaws.eu",
        "aws-iso" => "c2s.ic.gov",
        "aws-iso-b" => "sc2s.sgov.gov",
        "aws-iso-e" => "cloud.adc-e.uk",
        "aws-iso-f" => "csp.hci.ic.gov",
        _ => "amazonaws.com",
    }
}

pub(crate) fn registry_host(account: &str, region: &str) -> String {
    format!("{account}.dkr.ecr.{region}.{}", dns_suffix(region))
}

/// The account and Region in a registry's host name: classic, FIPS and dual-stack forms, with or without a port.
pub(crate) fn parse_registry_host(host: &str) -> Option<(String, String)> {
    let host = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    let (account, rest) = host.split_once('.')?;
    if !is_account_id(account) {
        return None;
    }
    let (region, suffix, dual_stack) = if let Some(rest) = strip_first(rest, &["dkr.ecr.", "dkr.ecr-fips."]) {
        let (region, suffix) = rest.split_once('.')?;
        (region, suffix, false)
    } else {
        let (region, suffix) = strip_first(rest, &["dkr-ecr.", "dkr-ecr-fips."])?.split_once('.')?;
        (region, suffix, true)
    };
    let expected = match (dual_stack, partition(region)) {
        (false, _) => dns_suffix(region),
        (true, "aws-cn") => "on.amazonwebservices.com.cn",
        (true, _) => "on.aws",
    };
    (suffix == expected).then(|| (account.to_owned(), region.to_owned()))
}

fn strip_first<'a>(text: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| text.strip_prefix(prefix))
}

pub(crate) fn repository_arn(account: &str, region: &str, name: &str) -> String {
    format!("arn:{}:ecr:{region}:{account}:repository/{name}", partition(region))
}

/// A repository's ARN taken apart.
pub(crate) struct RepositoryArn {
    pub region: String,
    pub account: String,
    pub name: String,
}

impl RepositoryArn {
    pub fn parse(arn: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::parameter("resourceArn", "Invalid ARN");
        let mut parts = arn.splitn(6, ':');
        let (Some("arn"), Some(in_partition), Some("ecr"), Some(region), Some(account), Some(resource)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let name = resource.strip_prefix("repository/").ok_or_else(invalid)?;
        if in_partition != partition(region) || !is_account_id(account) {
            return Err(invalid());
        }
        check_repository_name(name)?;
        Ok(Self { region: region.to_owned(), account: account.to_owned(), name: name.to_owned() })
    }
}

/// ECR's rules for a repository name: 2 to 256 characters; components of `[a-z0-9]+` joined by `.`, `_`, `__` or
/// a run of `-`; components separated by `/`.
pub(crate) fn check_repository_name(name: &str) -> Result<(), ApiError> {
    within("repositoryName", "length", name.len(), 2, 256)?;
    if name.split('/').all(is_name_component) {
        Ok(())
    } else {
        Err(ApiError::parameter("repositoryName", format_args!("must satisfy regular expression '{NAME_PATTERN}'")))
    }
}

fn is_name_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes
        .chunk_by(|a, b| alphanumeric(*a) == alphanumeric(*b))
        .filter(|run| !alphanumeric(run[0]))
        .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names() {
        for good in ["ab", "0a", "a/b", "a--b", "a__b", "a.b-c_d/e---f", &"a".repeat(256)] {
            assert!(check_repository_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "A/b", "a..b", "a___b", "a._b", "-a", "a-", "a/", "/a", "a//b", "a b", &"a".repeat(257)] {
            assert!(check_repository_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn registry_hosts() {
        let of = |host: &str| parse_registry_host(host).map(|(account, region)| format!("{account} {region}"));
        let expected = Some("123456789012 eu-west-1".to_owned());
        assert_eq!(of("123456789012.dkr.ecr.eu-west-1.amazonaws.com"), expected);
        assert_eq!(of("123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com:443"), expected);
        assert_eq!(of("123456789012.dkr-ecr.eu-west-1.on.aws"), expected);
        assert_eq!(of("123456789012.dkr-ecr-fips.eu-west-1.on.aws"), expected);
        assert!(of("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn").is_some());
        for bad in [
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
            "12345.dkr.ecr.eu-west-1.amazonaws.com",
            "127.0.0.1:5100",
            "public.ecr.aws",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
