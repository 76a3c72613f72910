//! Every manifest that the project shows is one that the API server takes.

use std::path::Path;

use tokio::sync::OnceCell;

use crate::support::cluster::Cluster;

/// With the namespace that manifests name; made once, whichever test comes first.
async fn cluster() -> &'static Cluster {
    static NAMESPACE: OnceCell<()> = OnceCell::const_new();
    let cluster = Cluster::shared().await;
    let make = || async {
        let namespace = include_str!("../../deploy/examples/namespace.yaml");
        assert!(cluster.kubectl(&["apply", "-f", "-"], namespace).await.ok);
    };
    NAMESPACE.get_or_init(make).await;
    cluster
}

#[tokio::test]
async fn every_example_is_taken_by_the_api_server() {
    let cluster = cluster().await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let manifest = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let taken = cluster.kubectl(&["apply", "--dry-run=server", "-f", "-"], &manifest).await;
        assert!(taken.ok, "{}:\n{manifest}", taken.text);
        seen += 1;
    }
    assert!(seen >= 9);
}

#[tokio::test]
async fn every_manifest_of_the_readme_is_taken_by_the_api_server() {
    let cluster = cluster().await;
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
