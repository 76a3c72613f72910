//! The registry's scanning configuration.

use serde::{Deserialize, Serialize};

use super::iam::glob;
use super::repository::one_of;
use crate::error::{ApiError, within};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RegistryScanning {
    #[serde(default)]
    pub scan_type: Option<String>,
    #[serde(default)]
    pub rules: Option<Vec<ScanningRule>>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScanningRule {
    scan_frequency: Option<String>,
    repository_filters: Option<Vec<ScanningFilter>>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScanningFilter {
    filter: Option<String>,
    filter_type: Option<String>,
}

impl Default for RegistryScanning {
    fn default() -> Self {
        Self { scan_type: Some("BASIC".to_owned()), rules: Some(Vec::new()) }
    }
}

impl RegistryScanning {
    /// Checks a configuration and fills what was left out.
    pub fn checked(self) -> Result<Self, ApiError> {
        let scan_type = self.scan_type.unwrap_or_else(|| "BASIC".to_owned());
        one_of("scanType", &scan_type, &["BASIC", "ENHANCED"])?;
        let rules = self.rules.unwrap_or_default();
        within("rules", "length", rules.len(), 0, 2)?;
        let mut frequencies = Vec::new();
        for rule in &rules {
            let frequency = rule.check(&scan_type)?;
            if frequencies.contains(&frequency) {
                return Err(ApiError::parameter("rules", "scanFrequency must be unique across rules"));
            }
            frequencies.push(frequency);
        }
        Ok(Self { scan_type: Some(scan_type), rules: Some(rules) })
    }

    pub fn is_enhanced(&self) -> bool {
        self.scan_type.as_deref() == Some("ENHANCED")
    }

    /// The frequency that applies to a repository, and the filters that say so.
    pub fn of<'a>(&'a self, repository: &str) -> Option<(&'a str, Vec<&'a ScanningFilter>)> {
        self.rules.iter().flatten().find_map(|rule| {
            let filters = rule.repository_filters.iter().flatten();
            let matching: Vec<_> = filters.filter(|filter| filter.matches(repository)).collect();
            (!matching.is_empty()).then(|| (rule.scan_frequency.as_deref().unwrap_or("MANUAL"), matching))
        })
    }
}

impl ScanningRule {
    fn check(&self, scan_type: &str) -> Result<&str, ApiError> {
        let at = "rules.scanFrequency";
        let frequency = self.scan_frequency.as_deref().ok_or_else(|| ApiError::missing(at))?;
        one_of(at, frequency, &["SCAN_ON_PUSH", "CONTINUOUS_SCAN", "MANUAL"])?;
        let allowed: &[&str] =
            if scan_type == "ENHANCED" { &["SCAN_ON_PUSH", "CONTINUOUS_SCAN"] } else { &["SCAN_ON_PUSH", "MANUAL"] };
        if !allowed.contains(&frequency) {
            return Err(ApiError::parameter(at, format_args!("{frequency} is not allowed with scanType {scan_type}")));
        }
        let at = "rules.repositoryFilters";
        let filters = self.repository_filters.as_ref().ok_or_else(|| ApiError::missing(at))?;
        within(at, "length", filters.len(), 0, 100)?;
        filters.iter().try_for_each(ScanningFilter::check)?;
        Ok(frequency)
    }
}

impl ScanningFilter {
    fn check(&self) -> Result<(), ApiError> {
        let at = "rules.repositoryFilters.filterType";
        one_of(at, self.filter_type.as_deref().ok_or_else(|| ApiError::missing(at))?, &["WILDCARD"])?;
        let at = "rules.repositoryFilters.filter";
        let filter = self.filter.as_deref().ok_or_else(|| ApiError::missing(at))?;
        within(at, "length", filter.len(), 1, 255)?;
        if !filter.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/*".contains(c)) {
            return Err(ApiError::parameter(
                at,
                "must satisfy regular expression '^[a-z0-9*](?:[._\\-/a-z0-9*]?[a-z0-9*]+)*$'",
            ));
        }
        Ok(())
    }

    /// A filter without wildcard matches names that contain it.
    fn matches(&self, repository: &str) -> bool {
        let filter = self.filter.as_deref().unwrap_or_default();
        if filter.contains('*') { glob(filter, repository) } else { repository.contains(filter) }
    }
}
