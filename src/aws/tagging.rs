//! Tags of many repositories by few calls: the Resource Groups Tagging API knows the tags of everything in an account.

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_resourcegroupstagging::Client;

use crate::aws::AwsError;
use crate::aws::limiter::Line;
use crate::core::ownership::Tags;

/// ARNs in one call (API reference of `GetResources`, `ResourceARNList`; it knows no pages then).
const BATCH: usize = 100;

/// The Resource Groups Tagging API in one Region, as one identity.
#[derive(Debug, Clone)]
pub struct Tagging {
    client: Client,
    line: Line,
}

impl Tagging {
    pub(super) fn new(config: &SdkConfig, line: Line) -> Self {
        Self { client: Client::new(config), line }
    }

    /// The tags of these resources, by ARN. A hint: it follows changes a little late, and leaves out what never had
    /// a tag, what it doesn't know yet, and what doesn't exist.
    ///
    /// # Errors
    /// Needs `tag:GetResources`.
    pub async fn of(&self, arns: &[String]) -> Result<HashMap<String, Tags>, AwsError> {
        let mut all = HashMap::new();
        for batch in arns.chunks(BATCH) {
            let request = self.client.get_resources().set_resource_arn_list(Some(batch.to_vec()));
            let answer = self.line.call("tag:GetResources", || request.clone().send()).await?;
            all.extend(answer.resource_tag_mapping_list().iter().filter_map(|resource| {
                let tags = resource.tags().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned()));
                Some((resource.resource_arn()?.to_owned(), tags.collect()))
            }));
        }
        Ok(all)
    }
}
