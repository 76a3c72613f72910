//! The custom resource definitions as YAML, as `kubectl apply` takes them.

use std::io::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::api::all_crds;

/// Why the definitions can't be printed.
#[derive(Debug, thiserror::Error)]
pub enum CrdsError {
    /// A schema is no JSON Schema of Kubernetes.
    #[error("a schema can't be expressed: {0}")]
    Schema(#[from] serde_json::Error),
    /// A definition is no YAML.
    #[error("a definition can't be written as YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
    /// Standard output doesn't take them.
    #[error("the definitions can't be printed: {0}")]
    Output(#[from] std::io::Error),
}

/// Prints all definitions.
///
/// # Errors
/// See [`CrdsError`].
pub fn print() -> Result<(), CrdsError> {
    Ok(std::io::stdout().write_all(render()?.as_bytes())?)
}

/// All definitions in one text, one YAML document each.
///
/// # Errors
/// See [`CrdsError`].
pub fn render() -> Result<String, CrdsError> {
    Ok(files()?.iter().flat_map(|file| ["---\n", &file.text]).collect())
}

/// A file of `crds/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrdFile {
    /// Its name, such as `ecr-operator.dev_ecrrepositories.yaml`.
    pub name: String,
    /// What it holds: one definition.
    pub text: String,
}

/// All definitions, one file each.
///
/// # Errors
/// See [`CrdsError`].
pub fn files() -> Result<Vec<CrdFile>, CrdsError> {
    all_crds()?.iter().map(file).collect()
}

fn file(crd: &CustomResourceDefinition) -> Result<CrdFile, CrdsError> {
    // By way of a value, whose keys are sorted.
    let text = serde_saphyr::to_string(&serde_json::to_value(crd)?)?;
    Ok(CrdFile { name: format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural), text })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `UPDATE_CRDS=1 cargo test --lib crds` writes them.
    #[test]
    fn the_files_in_crds_are_those_of_the_types() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        let files = files().unwrap();
        for file in &files {
            let path = directory.join(&file.name);
            if std::env::var_os("UPDATE_CRDS").is_some() {
                std::fs::write(&path, &file.text).unwrap();
            }
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(there == file.text, "{} is out of date: UPDATE_CRDS=1 cargo test --lib crds", path.display());
        }
        let count = std::fs::read_dir(&directory).unwrap().count();
        assert_eq!(count, files.len(), "{} holds a file that no kind has", directory.display());
    }

    #[test]
    fn the_text_is_yaml_that_means_the_same() {
        let text = render().unwrap();
        let documents: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(documents, all_crds().unwrap());
    }
}
