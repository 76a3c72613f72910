//! Snapshots: many repositories by few calls, and none that is there goes missing.

use ecr_operator::aws::Snapshots;
use local_ecr::{Action, Fault, LocalEcr, Matcher, PageQuirks};
use serde_json::json;

use crate::support::{ACCOUNT, REGION, ecr, local};

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
    let all = snapshots.take("r", &ecr, names.clone()).await.unwrap();
    assert!(names.iter().all(|name| all.contains_key(name)));
    assert_eq!(local.calls().len(), 3);
}

#[tokio::test]
async fn few_of_many_are_asked_for_by_name() {
    let local = local().await;
    let names = fill(&local, 1_500);
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    assert_eq!(snapshots.take("r", &ecr, names[..90].to_vec()).await.unwrap().len(), 90);
    assert_eq!(local.calls().len(), 1);
}

#[tokio::test]
async fn one_missing_name_costs_some_calls_and_loses_nobody_else() {
    let local = local().await;
    let mut names = fill(&local, 99);
    names.insert(50, "gone".to_owned());
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    let all = snapshots.take("r", &ecr, names).await.unwrap();
    assert_eq!(all.len(), 99);
    assert!(local.calls().len() <= 15, "{}", local.calls().len());
}

#[tokio::test]
async fn where_listing_is_denied_names_are_asked_for() {
    let local = local().await;
    let names = fill(&local, 250);
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    let denied = Action::Before { code: "AccessDeniedException".to_owned(), status: 400 };
    local.fault(Fault::once(Matcher::operation("DescribeRepositories"), denied));
    assert_eq!(snapshots.take("r", &ecr, names.clone()).await.unwrap().len(), 250);
    assert_eq!(local.calls().len(), 4);
    local.clear_calls();
    assert_eq!(snapshots.take("r", &ecr, names).await.unwrap().len(), 250);
    assert_eq!(local.calls().len(), 3, "it isn't tried again");
}

#[tokio::test]
async fn odd_pages_hide_nobody() {
    let local = local().await;
    let names = fill(&local, 1_200);
    local.set_page_quirks(PageQuirks { longest: Some(300), empty_pages: true });
    let (ecr, snapshots) = (ecr(&local).await, Snapshots::default());
    let all = snapshots.take("r", &ecr, names.clone()).await.unwrap();
    assert_eq!(all.len(), names.len());
}
