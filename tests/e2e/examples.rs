//! Every manifest that the project shows is one that the API server takes.

use std::path::Path;

use crate::support::cluster::Cluster;

#[tokio::test]
async fn every_example_is_taken_by_the_api_server() {
    let cluster = Cluster::shared().await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let namespace = std::fs::read_to_string(directory.join("namespace.yaml")).unwrap();
    assert!(cluster.kubectl(&["apply", "-f", "-"], &namespace).await.ok);
    let mut seen = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let manifest = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let taken = cluster.kubectl(&["apply", "--dry-run=server", "-f", "-"], &manifest).await;
        assert!(taken.ok, "{}:\n{manifest}", taken.text);
        seen += 1;
    }
    assert!(seen >= 6);
}

#[tokio::test]
async fn every_manifest_of_the_readme_is_taken_by_the_api_server() {
    let cluster = Cluster::shared().await;
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team-a}";
    assert!(cluster.kubectl(&["apply", "-f", "-"], namespace).await.ok);
    let manifests =
        include_str!("../../README.md").split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut seen = 0;
    for manifest in manifests {
        let taken = cluster.kubectl(&["apply", "--dry-run=server", "-f", "-"], manifest).await;
        assert!(taken.ok, "{}:\n{manifest}", taken.text);
        seen += 1;
    }
    assert_eq!(seen, 3);
}
