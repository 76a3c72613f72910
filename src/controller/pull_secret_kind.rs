//! What the two kinds of pull secrets have in common, and where they differ: which namespaces they mean.

use std::collections::BTreeMap;
use std::fmt::Debug;

use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{
    ClusterEcrPullSecret, DEFAULT_REGISTRY, EcrPullSecret, PullSecretSpec, PullSecretStatus, RegistryEntry,
};
use crate::controller::context::Context;
use crate::core::glob;
use crate::core::pull_secret::SecretOwner;
use crate::core::reason::Problem;
use crate::core::selector::{NamespaceView, selects};

/// A namespace with its labels.
pub type Labelled = (String, BTreeMap<String, String>);

/// Either kind of pull secret.
pub trait PullSecret: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    /// What both kinds declare.
    fn common(&self) -> &PullSecretSpec;

    /// What was last told.
    fn status(&self) -> Option<&PullSecretStatus>;

    /// Where it lives.
    fn api(&self, client: Client) -> Api<Self>;

    /// The namespaces it means.
    ///
    /// # Errors
    /// Where they aren't known yet.
    fn namespaces(&self, context: &Context) -> Result<Vec<Labelled>, Problem>;

    /// The registries it names; the one called `default` if none.
    fn entries(&self) -> Vec<RegistryEntry> {
        self.common()
            .registries
            .clone()
            .filter(|entries| !entries.is_empty())
            .unwrap_or_else(|| vec![RegistryEntry::default()])
    }

    /// The names of these registries.
    fn registries(&self) -> Vec<&str> {
        match self.common().registries.as_deref() {
            None | Some([]) => vec![DEFAULT_REGISTRY],
            Some(entries) => {
                let named = entries.iter().map(|entry| entry.registry_ref.as_ref());
                named.map(|named| named.map_or(DEFAULT_REGISTRY, |named| &named.name)).collect()
            }
        }
    }

    /// As its Secrets name it.
    fn owner(&self) -> SecretOwner {
        SecretOwner {
            kind: <Self as Resource>::kind(&()).into_owned(),
            namespace: ResourceExt::namespace(self),
            name: self.name_any(),
            uid: self.meta().uid.clone().unwrap_or_default(),
        }
    }

    /// For its Secrets.
    fn owner_reference(&self) -> Value {
        json!({
            "apiVersion": Self::api_version(&()),
            "kind": <Self as Resource>::kind(&()),
            "name": self.name_any(),
            "uid": self.uid(),
            "controller": true,
            "blockOwnerDeletion": false,
        })
    }

    /// For its Secrets.
    fn template_labels(&self) -> BTreeMap<String, String> {
        self.common().secret_template.as_ref().and_then(|template| template.labels.clone()).unwrap_or_default()
    }

    /// For its Secrets.
    fn template_annotations(&self) -> BTreeMap<String, String> {
        self.common().secret_template.as_ref().and_then(|template| template.annotations.clone()).unwrap_or_default()
    }
}

impl PullSecret for EcrPullSecret {
    fn common(&self) -> &PullSecretSpec {
        &self.spec.common
    }

    fn status(&self) -> Option<&PullSecretStatus> {
        self.status.as_ref()
    }

    fn api(&self, client: Client) -> Api<Self> {
        Api::namespaced(client, &ResourceExt::namespace(self).unwrap_or_default())
    }

    /// Its own, and no other.
    fn namespaces(&self, context: &Context) -> Result<Vec<Labelled>, Problem> {
        let name = ResourceExt::namespace(self).unwrap_or_default();
        let labels = context.namespace_labels(&name)?;
        Ok(vec![(name, labels)])
    }
}

impl PullSecret for ClusterEcrPullSecret {
    fn common(&self) -> &PullSecretSpec {
        &self.spec.common
    }

    fn status(&self) -> Option<&PullSecretStatus> {
        self.status.as_ref()
    }

    fn api(&self, client: Client) -> Api<Self> {
        Api::all(client)
    }

    fn namespaces(&self, context: &Context) -> Result<Vec<Labelled>, Problem> {
        let excluded =
            |name: &str| self.spec.exclude_namespaces.iter().flatten().any(|excluded| glob::matches(excluded, name));
        let selected = context.stores.namespaces.state().into_iter().filter_map(|namespace| {
            let name = namespace.name_any();
            let view = NamespaceView { name: &name, labels: namespace.labels() };
            let wanted = namespace.metadata.deletion_timestamp.is_none()
                && !excluded(&name)
                && selects(&self.spec.namespace_selector, view);
            wanted.then(|| (name.clone(), namespace.labels().clone()))
        });
        Ok(selected.collect())
    }
}
