//! Which change asks for a look at which object: the map from what is watched to what is reconciled.

use k8s_openapi::api::core::v1::{Namespace, Secret as KubeSecret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use tokio::sync::mpsc::UnboundedSender;

use crate::api::{ClusterEcrPullSecret, EcrPullSecret, EcrRegistry, EcrRepository, OWNER_UID, PullSecretSpec};
use crate::controller::context::RegistryChange;
use crate::controller::pull_secret_kind::PullSecret;
use crate::core::pull_secret::noted;

/// Where to ask for a look.
#[derive(Debug, Clone)]
pub struct Triggers {
    /// At a registry.
    pub registries: UnboundedSender<ObjectRef<EcrRegistry>>,
    /// At a repository.
    pub repositories: UnboundedSender<ObjectRef<EcrRepository>>,
    /// At a pull secret.
    pub pull_secrets: UnboundedSender<ObjectRef<EcrPullSecret>>,
    /// At a pull secret of the cluster.
    pub cluster_pull_secrets: UnboundedSender<ObjectRef<ClusterEcrPullSecret>>,
}

/// Objects that ask for looks at others.
#[derive(Debug, Clone)]
pub struct Dependants {
    /// Where to ask.
    pub triggers: Triggers,
    /// All repositories.
    pub repositories: Store<EcrRepository>,
    /// All pull secrets.
    pub pull_secrets: Store<EcrPullSecret>,
    /// All pull secrets of the cluster.
    pub cluster_pull_secrets: Store<ClusterEcrPullSecret>,
}

/// Asks for a look at each of these. A closed channel means that the process is ending.
pub fn ask<K: Resource<DynamicType = ()> + 'static>(
    sender: &UnboundedSender<ObjectRef<K>>,
    objects: impl IntoIterator<Item = impl std::ops::Deref<Target = K>>,
) {
    for object in objects {
        let _ = sender.send(ObjectRef::from_obj(&*object));
    }
}

impl Dependants {
    /// Of a registry.
    pub fn of_registry(&self, change: &RegistryChange) {
        let RegistryChange { name, first } = change;
        let waits = |conditions: Option<&Vec<Condition>>| {
            let is_ready = |condition: &Condition| condition.type_ == "Ready" && condition.status == "True";
            !first || !conditions.is_some_and(|conditions| conditions.iter().any(is_ready))
        };
        ask(
            &self.triggers.repositories,
            self.repositories.state_filter(|object| {
                object.spec.registry_ref.name == *name && waits(object.status.as_ref().map(|status| &status.conditions))
            }),
        );
        ask(
            &self.triggers.pull_secrets,
            self.pull_secrets.state_filter(|object| object.registries().contains(&name.as_str())),
        );
        ask(
            &self.triggers.cluster_pull_secrets,
            self.cluster_pull_secrets.state_filter(|object| object.registries().contains(&name.as_str())),
        );
    }

    /// Of a namespace: its labels may select it, or give it rights.
    pub fn of_namespace(&self, namespace: &PartialObjectMeta<Namespace>) {
        let name = Some(namespace.name_any());
        ask(
            &self.triggers.repositories,
            self.repositories.state_filter(|object| ResourceExt::namespace(object) == name),
        );
        ask(
            &self.triggers.pull_secrets,
            self.pull_secrets.state_filter(|object| ResourceExt::namespace(object) == name),
        );
        ask(&self.triggers.cluster_pull_secrets, self.cluster_pull_secrets.state());
    }

    /// Of a Secret: its owner by the label, those who noted something on it, and whoever wants a Secret of that name there.
    pub fn of_secret(&self, secret: &PartialObjectMeta<KubeSecret>) {
        let owner = secret.labels().get(OWNER_UID);
        let owns = |uid: Option<String>| {
            uid.is_some_and(|uid| owner == Some(&uid) || noted(&secret.metadata).any(|noted| noted == uid))
        };
        let (name, namespace) = (secret.name_any(), ResourceExt::namespace(secret));
        let wants = |spec: &PullSecretSpec, own: String| spec.secret_name.as_ref().unwrap_or(&own) == &name;
        ask(
            &self.triggers.pull_secrets,
            self.pull_secrets.state_filter(|object| {
                ResourceExt::namespace(object) == namespace
                    && (owns(object.uid()) || wants(&object.spec.common, object.name_any()))
            }),
        );
        ask(
            &self.triggers.cluster_pull_secrets,
            self.cluster_pull_secrets
                .state_filter(|object| owns(object.uid()) || wants(&object.spec.common, object.name_any())),
        );
    }

    /// Of a ServiceAccount.
    pub fn of_service_account(&self, account: &ServiceAccount) {
        let (name, namespace) = (account.name_any(), ResourceExt::namespace(account));
        let wants = |spec: &PullSecretSpec| {
            spec.service_accounts.iter().flatten().any(|wanted| wanted == "*" || *wanted == name)
        };
        ask(
            &self.triggers.pull_secrets,
            self.pull_secrets
                .state_filter(|object| ResourceExt::namespace(object) == namespace && wants(&object.spec.common)),
        );
        ask(
            &self.triggers.cluster_pull_secrets,
            self.cluster_pull_secrets.state_filter(|object| wants(&object.spec.common)),
        );
    }

    /// Of everything: a list was read anew.
    pub fn all(&self) {
        ask(&self.triggers.repositories, self.repositories.state());
        self.all_pull_secrets();
    }

    /// Of both kinds.
    pub fn all_pull_secrets(&self) {
        ask(&self.triggers.pull_secrets, self.pull_secrets.state());
        ask(&self.triggers.cluster_pull_secrets, self.cluster_pull_secrets.state());
    }
}
