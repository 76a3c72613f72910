//! The host names of ECR's registries, composed and recognised by one table for all partitions. Never by dot position:
//! dual-stack names have one label fewer than classic ones.
//!
//! Sources: the endpoint rules of the AWS SDK, and "Amazon ECR endpoints and quotas" in the AWS General Reference.

use std::fmt;

use crate::core::names::{AccountId, Region};

/// The host of ECR Public's registry, the same for everybody.
pub const PUBLIC_HOST: &str = "public.ecr.aws";
/// The Region that issues ECR Public's tokens; no other does.
pub const PUBLIC_REGION: &str = "us-east-1";
/// The partition that has ECR Public; no other does.
pub const PUBLIC_PARTITION: &str = "aws";

/// A partition of AWS: a family of Regions with a DNS suffix and an ARN prefix of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// As in an ARN: `aws`, `aws-cn`, …
    pub id: &'static str,
    region_prefixes: &'static [&'static str],
    suffix: &'static str,
    dual_stack_suffix: Option<&'static str>,
}

/// The most specific prefixes first; the last row takes every other Region.
const PARTITIONS: &[Partition] = &[
    Partition {
        id: "aws-cn",
        region_prefixes: &["cn-"],
        suffix: "amazonaws.com.cn",
        dual_stack_suffix: Some("on.amazonwebservices.com.cn"),
    },
    Partition {
        id: "aws-us-gov",
        region_prefixes: &["us-gov-"],
        suffix: "amazonaws.com",
        dual_stack_suffix: Some("on.aws"),
    },
    Partition { id: "aws-iso-b", region_prefixes: &["us-isob-"], suffix: "sc2s.sgov.gov", dual_stack_suffix: None },
    Partition { id: "aws-iso-f", region_prefixes: &["us-isof-"], suffix: "csp.hci.ic.gov", dual_stack_suffix: None },
    Partition { id: "aws-iso-e", region_prefixes: &["eu-isoe-"], suffix: "cloud.adc-e.uk", dual_stack_suffix: None },
    Partition { id: "aws-iso", region_prefixes: &["us-iso-"], suffix: "c2s.ic.gov", dual_stack_suffix: None },
    Partition { id: "aws-eusc", region_prefixes: &["eusc-"], suffix: "amazonaws.eu", dual_stack_suffix: None },
    Partition { id: "aws", region_prefixes: &[""], suffix: "amazonaws.com", dual_stack_suffix: Some("on.aws") },
];

impl Partition {
    /// The partition a Region belongs to.
    #[must_use]
    pub fn of(region: &Region) -> &'static Self {
        let belongs =
            |partition: &&Self| partition.region_prefixes.iter().any(|prefix| region.as_str().starts_with(prefix));
        PARTITIONS.iter().find(belongs).unwrap_or(&PARTITIONS[PARTITIONS.len() - 1])
    }
}

/// Which of a registry's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostKind {
    /// `ACCOUNT.dkr.ecr.REGION.amazonaws.com`
    Classic,
    /// `ACCOUNT.dkr.ecr-fips.REGION.amazonaws.com`
    Fips,
    /// `ACCOUNT.dkr-ecr.REGION.on.aws`
    DualStack,
    /// `ACCOUNT.dkr-ecr-fips.REGION.on.aws`
    FipsDualStack,
}

impl HostKind {
    const ALL: [Self; 4] = [Self::Classic, Self::Fips, Self::DualStack, Self::FipsDualStack];

    fn service(self) -> &'static str {
        match self {
            Self::Classic => ".dkr.ecr.",
            Self::Fips => ".dkr.ecr-fips.",
            Self::DualStack => ".dkr-ecr.",
            Self::FipsDualStack => ".dkr-ecr-fips.",
        }
    }

    fn suffix(self, partition: &Partition) -> Option<&'static str> {
        match self {
            Self::Classic | Self::Fips => Some(partition.suffix),
            Self::DualStack | Self::FipsDualStack => partition.dual_stack_suffix,
        }
    }
}

/// One account's private registry in one Region, under one of its names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryHost {
    /// Whose registry.
    pub account: AccountId,
    /// Where.
    pub region: Region,
    /// Under which name.
    pub kind: HostKind,
}

impl RegistryHost {
    /// `None` where the Region's partition has no host of that kind.
    #[must_use]
    pub fn new(account: AccountId, region: Region, kind: HostKind) -> Option<Self> {
        kind.suffix(Partition::of(&region)).is_some().then_some(Self { account, region, kind })
    }

    /// Recognises a host name; look-alikes (other suffixes, more labels, ports, upper case) are refused.
    #[must_use]
    pub fn parse(host: &str) -> Option<Self> {
        HostKind::ALL.into_iter().find_map(|kind| {
            let (account, rest) = host.split_once(kind.service())?;
            let account = AccountId::parse(account).ok()?;
            let (region, suffix) = rest.split_once('.')?;
            let region = Region::parse(region).ok()?;
            (kind.suffix(Partition::of(&region)) == Some(suffix)).then_some(Self { account, region, kind })
        })
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `new` and `parse` are the only ways to one, so the partition has the suffix.
        let suffix = self.kind.suffix(Partition::of(&self.region)).unwrap_or_default();
        write!(f, "{}{}{}.{suffix}", self.account, self.kind.service(), self.region)
    }
}

/// The ARN of a repository.
#[must_use]
pub fn repository_arn(region: &Region, account: &AccountId, name: &str) -> String {
    format!("arn:{}:ecr:{region}:{account}:repository/{name}", Partition::of(region).id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(region: &str, kind: HostKind) -> Option<String> {
        let account = AccountId::parse("123456789012").unwrap();
        RegistryHost::new(account, Region::parse(region).unwrap(), kind).map(|host| host.to_string())
    }

    #[test]
    fn every_partition_has_its_own_names() {
        for (region, kind, expected) in [
            ("eu-west-1", HostKind::Classic, Some("123456789012.dkr.ecr.eu-west-1.amazonaws.com")),
            ("us-east-1", HostKind::Fips, Some("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com")),
            ("us-east-1", HostKind::DualStack, Some("123456789012.dkr-ecr.us-east-1.on.aws")),
            ("us-east-1", HostKind::FipsDualStack, Some("123456789012.dkr-ecr-fips.us-east-1.on.aws")),
            ("us-gov-west-1", HostKind::Classic, Some("123456789012.dkr.ecr.us-gov-west-1.amazonaws.com")),
            ("cn-north-1", HostKind::Classic, Some("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn")),
            ("cn-north-1", HostKind::DualStack, Some("123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn")),
            ("eusc-de-east-1", HostKind::Classic, Some("123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu")),
            ("eusc-de-east-1", HostKind::DualStack, None),
            ("us-iso-east-1", HostKind::Classic, Some("123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov")),
            ("us-isob-east-1", HostKind::Classic, Some("123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov")),
            ("eu-isoe-west-1", HostKind::Classic, Some("123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk")),
            ("us-isof-south-1", HostKind::Classic, Some("123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov")),
        ] {
            assert_eq!(host(region, kind).as_deref(), expected, "{region} {kind:?}");
        }
    }

    #[test]
    fn look_alikes_are_refused() {
        for bad in [
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn",
            "evil-123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.on.aws",
            "123456789012.dkr-ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com:443",
            "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.DKR.ecr.eu-west-1.amazonaws.com",
            "12345678901.dkr.ecr.eu-west-1.amazonaws.com",
            "public.ecr.aws",
            "",
        ] {
            assert_eq!(RegistryHost::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_composed_is_recognised(
            account in "[0-9]{12}",
            region in prop::sample::select(vec!["eu-west-1", "us-gov-east-1", "cn-northwest-1", "us-iso-west-1", "eusc-de-east-1", "us-isob-east-1", "ap-southeast-5"]),
            kind in prop::sample::select(HostKind::ALL.to_vec()),
        ) {
            let made = RegistryHost::new(AccountId::parse(&account).unwrap(), Region::parse(region).unwrap(), kind);
            if let Some(made) = made {
                prop_assert_eq!(RegistryHost::parse(&made.to_string()), Some(made));
            }
        }

        #[test]
        fn whatever_is_recognised_is_spelled_so(text in "[0-9]{12}\\.dkr[.-]ecr(-fips)?\\.[a-z0-9.-]{0,40}") {
            if let Some(host) = RegistryHost::parse(&text) {
                prop_assert_eq!(host.to_string(), text);
            }
        }
    }
}
