//! Snapshots: many repositories by few calls, and none that is there goes missing.

use std::time::Duration;

use ecr_operator::aws::{Kind, Snapshots};
use jiff::Timestamp;
use local_ecr::{Action, Fault, LocalEcr, Matcher, PageQuirks};
use serde_json::json;

use crate::support::{ACCOUNT, REGION, arn, ecr, local, tagging};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn denied() -> Action {
    Action::Before { code: "AccessDeniedException".to_owned(), status: 400 }
}

fn fill(local: &LocalEcr, count: usize) -> Vec<String> {
    let names: Vec<_> = (0..count).map(|n| format!("app-{n}")).collect();
    for name in &names {
        local.behind_the_back(ACCOUNT, REGION, "CreateRepository", json!({"repositoryName": name})).unwrap();
    }
    local.clear_calls();
    names
}

#[tokio::test]
async fn a_thousand_repositories_a_call() {
    let local = local().await;
    let names = fill(&local, 2_300);
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    let all = snapshots.take("r", &ecr, names.clone(), NOW).await.unwrap();
    assert!(names.iter().all(|name| all.contains_key(name)));
    assert_eq!(local.calls().len(), 3);
}

#[tokio::test]
async fn few_of_many_are_asked_for_by_name() {
    let local = local().await;
    let names = fill(&local, 1_500);
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    assert_eq!(snapshots.take("r", &ecr, names[..90].to_vec(), NOW).await.unwrap().len(), 90);
    assert_eq!(local.calls().len(), 1);
}

#[tokio::test]
async fn one_missing_name_costs_some_calls_and_loses_nobody_else() {
    let local = local().await;
    let mut names = fill(&local, 99);
    names.insert(50, "gone".to_owned());
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    let all = snapshots.take("r", &ecr, names, NOW).await.unwrap();
    assert_eq!(all.len(), 99);
    assert!(local.calls().len() <= 15, "{}", local.calls().len());
}

#[tokio::test]
async fn where_listing_is_denied_names_are_asked_for() {
    let local = local().await;
    let names = fill(&local, 250);
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    local.fault(Fault::once(Matcher::operation("DescribeRepositories"), denied()));
    assert_eq!(snapshots.take("r", &ecr, names.clone(), NOW).await.unwrap().len(), 250);
    assert_eq!(local.calls().len(), 4);
    local.clear_calls();
    assert_eq!(snapshots.take("r", &ecr, names.clone(), NOW).await.unwrap().len(), 250);
    assert_eq!(local.calls().len(), 3, "it isn't tried again at once");
    local.clear_calls();
    let later = NOW + Duration::from_hours(1);
    assert_eq!(snapshots.take("r", &ecr, names, later).await.unwrap().len(), 250);
    assert_eq!(local.calls().len(), 1, "permissions may have been given meanwhile");
}

#[tokio::test]
async fn odd_pages_hide_nobody() {
    let local = local().await;
    let names = fill(&local, 1_200);
    local.set_page_quirks(PageQuirks { longest: Some(300), empty_pages: true });
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    let all = snapshots.take("r", &ecr, names.clone(), NOW).await.unwrap();
    assert_eq!(all.len(), names.len());
}

#[tokio::test]
async fn a_repository_that_is_deleted_between_two_pages_hides_nobody() {
    let local = local().await;
    let names = fill(&local, 1_200);
    local.set_page_quirks(PageQuirks { longest: Some(300), empty_pages: false });
    local.fault(Fault::always(Matcher::operation("DescribeRepositories"), Action::Delay { millis: 20 }));
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    let delete = async {
        local.wait_for_call(Duration::from_secs(30), |call| call.operation == "DescribeRepositories").await.unwrap();
        // Sorted, as ECR lists them: one of the page that was given, one of those to come.
        let mut sorted = names.clone();
        sorted.sort();
        for name in [&sorted[299], &sorted[800]] {
            local.behind_the_back(ACCOUNT, REGION, "DeleteRepository", json!({"repositoryName": name})).unwrap();
        }
    };
    let (all, ()) = tokio::join!(snapshots.take("r", &ecr, names.clone(), NOW), delete);
    assert_eq!(all.unwrap().len(), 1_199, "all but the one that was gone before its page came");
}

#[tokio::test]
async fn items_that_come_twice_and_in_any_order_are_one_each() {
    let local = local().await;
    fill(&local, 2);
    let repository = |name: &str| {
        json!({
            "repositoryName": name, "repositoryArn": arn(name), "registryId": ACCOUNT, "createdAt": 1_700_000_000,
            "repositoryUri": format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{name}"),
        })
    };
    let page = |names: &[&str], next: Option<&str>| {
        let repositories: Vec<_> = names.iter().map(|name| repository(name)).collect();
        let body = json!({"repositories": repositories, "nextToken": next}).to_string();
        Fault::once(Matcher::operation("DescribeRepositories"), Action::Body { status: 200, body })
    };
    local.fault(page(&["b", "a"], Some("1")));
    local.fault(page(&[], Some("2")));
    local.fault(page(&["c", "a"], None));
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    let names = (0..150).map(|n| format!("any-{n}")).collect();
    let all = snapshots.take("r", &ecr, names, NOW).await.unwrap();
    let mut names: Vec<_> = all.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(local.calls().len(), 3);
}

#[tokio::test]
async fn tags_of_a_hundred_repositories_a_call() {
    let local = local().await;
    let names = fill(&local, 250);
    let arns: Vec<_> = names.iter().map(|name| arn(name)).collect();
    let tag = |arn: &String| json!({"resourceArn": arn, "tags": [{"Key": "of", "Value": arn}]});
    for arn in &arns[1..] {
        local.behind_the_back(ACCOUNT, REGION, "TagResource", tag(arn)).unwrap();
    }
    let (tagging, snapshots) = (tagging(&local).await, Snapshots::default());
    let all = snapshots.tags("r", &tagging, &arns, NOW).await.unwrap();
    assert_eq!(all.len(), 249, "what never had a tag isn't known there");
    assert!(arns[1..].iter().all(|arn| all[arn]["of"] == *arn));
    assert_eq!(local.calls().len(), 3);
}

#[tokio::test]
async fn where_tags_are_denied_the_tagging_api_is_left_alone_for_an_hour() {
    let local = local().await;
    let arns: Vec<_> = fill(&local, 1).iter().map(|name| arn(name)).collect();
    let (tagging, snapshots) = (tagging(&local).await, Snapshots::default());
    local.fault(Fault::once(Matcher::operation("GetResources"), denied()));
    assert_eq!(snapshots.tags("r", &tagging, &arns, NOW).await.unwrap_err().kind, Kind::Denied);
    for (later, calls) in [(59, 1), (60, 2)] {
        snapshots.tags("r", &tagging, &arns, NOW + Duration::from_mins(later)).await.unwrap();
        assert_eq!(local.calls().len(), calls, "after {later} minutes");
    }
    local.fault(Fault::once(Matcher::operation("GetResources"), denied()));
    snapshots.tags("r", &tagging, &arns, NOW).await.unwrap_err();
    snapshots.try_again("r");
    snapshots.tags("r", &tagging, &arns, NOW).await.unwrap();
    assert_eq!(local.calls().len(), 4, "asked anew by a person");
}
