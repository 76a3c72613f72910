//! `GetResources` of the Resource Groups Tagging API, as far as it is about repositories.

use serde::Deserialize;
use serde_json::json;

use super::{Answer, Context, paging};
use crate::error::ApiError;
use crate::model::{PageQuirks, tags};

/// In one call; all of them are answered at once.
const MOST_ARNS: i64 = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetResources {
    pagination_token: Option<String>,
    tag_filters: Option<Vec<TagFilter>>,
    resources_per_page: Option<i64>,
    resource_type_filters: Option<Vec<String>>,
    #[serde(rename = "ResourceARNList")]
    resource_arn_list: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TagFilter {
    key: Option<String>,
    values: Option<Vec<String>>,
}

pub(crate) fn get_resources(cx: &mut Context<'_>, input: GetResources) -> Answer {
    let wanted_arns = input.resource_arn_list.unwrap_or_default();
    let most = if wanted_arns.is_empty() { 50 } else { MOST_ARNS };
    let per_page = usize::try_from(input.resources_per_page.unwrap_or(most)).unwrap_or(0);
    if !(1..=100).contains(&per_page) {
        return Err(invalid("ResourcesPerPage must be between 1 and 100"));
    }
    let filters = input.tag_filters.unwrap_or_default();
    if filters.len() > 50 || filters.iter().any(|filter| filter.values.as_ref().is_some_and(|values| values.len() > 20))
    {
        return Err(invalid("at most 50 TagFilters, each with at most 20 Values"));
    }
    let has_filters = !filters.is_empty() || input.resource_type_filters.is_some();
    let has_pages = input.resources_per_page.is_some() || input.pagination_token.is_some();
    if wanted_arns.len() > 100 || (!wanted_arns.is_empty() && (has_filters || has_pages)) {
        return Err(invalid("ResourceARNList takes up to 100 ARNs, no filter and no pages"));
    }
    cx.authorize_any("tag:GetResources", "*")?;
    let types = input.resource_type_filters.unwrap_or_default();
    let of_type = types.is_empty() || types.iter().any(|kind| kind == "ecr" || kind == "ecr:repository");
    let registry = cx.model.registry(&cx.caller.account, cx.region).filter(|_| of_type);
    let repositories = registry.into_iter().flat_map(|registry| &registry.repositories);
    let matching = repositories.filter(|(_, repository)| {
        !repository.tags.is_empty()
            && (wanted_arns.is_empty() || wanted_arns.contains(&repository.arn()))
            && filters.iter().all(|filter| filter.matches(&repository.tags))
    });
    let token = input.pagination_token.as_deref().filter(|token| !token.is_empty());
    let scope = format!("resources {} {}", cx.caller.account, cx.region);
    let items = matching.map(|(name, repository)| (name.as_str(), repository));
    let quirks = if wanted_arns.is_empty() { cx.model.settings.page_quirks } else { PageQuirks::default() };
    let (page, next) = paging::page(quirks, &scope, token, per_page, items)
        .map_err(|error| ApiError::new("PaginationTokenExpiredException", error.message))?;
    let mappings: Vec<_> = page
        .into_iter()
        .map(|repository| json!({"ResourceARN": repository.arn(), "Tags": tags::render(&repository.tags)}))
        .collect();
    Ok(json!({"ResourceTagMappingList": mappings, "PaginationToken": next.unwrap_or_default()}))
}

impl TagFilter {
    fn matches(&self, tags: &tags::Tags) -> bool {
        let value = self.key.as_ref().and_then(|key| tags.get(key));
        let values = self.values.as_deref().unwrap_or_default();
        value.is_some_and(|value| values.is_empty() || values.contains(value))
    }
}

fn invalid(message: &str) -> ApiError {
    ApiError::new("InvalidParameterException", message)
}
