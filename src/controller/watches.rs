//! The seven watches, their stores, and what each change asks for.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Secret as KubeSecret, ServiceAccount};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

use crate::api::{ClusterEcrPullSecret, EcrPullSecret, EcrRegistry, EcrRepository, OWNER_UID};
use crate::cluster::{Change, Gone, Relevant, watch, watch_metadata};
use crate::controller::context::{RegistryChange, Stores};
use crate::controller::triggers::{Dependants, Triggers, ask};
use crate::core::pull_secret::prune;
use crate::server::Health;

/// Starts them. What nobody reads is dropped before it is kept.
pub fn stores(
    client: &Client,
    queues: &Triggers,
    registry_changed: &broadcast::Sender<RegistryChange>,
    gone: &mpsc::UnboundedSender<(String, Gone)>,
    health: &Health,
    tasks: &mut JoinSet<&'static str>,
) -> (Stores, Dependants) {
    let all = watcher::Config::default;
    let changed = registry_changed.clone();
    let forgotten = gone.clone();
    let registries = own::<EcrRegistry>(client, health, &queues.registries, tasks, move |kind, registry| {
        drop(changed.send(RegistryChange { name: registry.name.clone(), first: false }));
        drop(forgotten.send((kind, registry)));
    });
    let forget = |gone: &mpsc::UnboundedSender<(String, Gone)>| {
        let gone = gone.clone();
        move |kind: String, object: Gone| drop(gone.send((kind, object)))
    };
    let repositories = own::<EcrRepository>(client, health, &queues.repositories, tasks, forget(gone));
    let pull_secrets = own::<EcrPullSecret>(client, health, &queues.pull_secrets, tasks, forget(gone));
    let cluster_pull_secrets =
        own::<ClusterEcrPullSecret>(client, health, &queues.cluster_pull_secrets, tasks, forget(gone));
    let dependants = Dependants {
        triggers: queues.clone(),
        repositories: repositories.clone(),
        pull_secrets: pull_secrets.clone(),
        cluster_pull_secrets: cluster_pull_secrets.clone(),
    };

    let ask = dependants.clone();
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let (namespaces, task) =
        watch_metadata(api, all(), health.clone(), drop_managed_fields, move |change| match change {
            Change::Seen(namespace) | Change::Gone(namespace) => ask.of_namespace(namespace),
            Change::Relisted => ask.all(),
        });
    tasks.spawn(named(task, "watch of namespaces"));

    let ask = dependants.clone();
    let api: Api<PartialObjectMeta<KubeSecret>> = Api::all(client.clone());
    // managedFields tell who wrote the data, which itself is never read.
    let (secrets, task) = watch_metadata(
        api,
        all().labels(OWNER_UID),
        health.clone(),
        |secret| prune(&mut secret.metadata),
        move |change| match change {
            Change::Seen(secret) | Change::Gone(secret) => ask.of_secret(secret),
            Change::Relisted => ask.all_pull_secrets(),
        },
    );
    tasks.spawn(named(task, "watch of Secrets"));

    let ask = dependants.clone();
    let api: Api<DeserializeGuard<ServiceAccount>> = Api::all(client.clone());
    let (service_accounts, task) = watch(api, all(), health.clone(), drop_managed_fields, move |change| match change {
        Change::Seen(account) | Change::Gone(account) => ask.of_service_account(account),
        Change::Relisted => ask.all_pull_secrets(),
    });
    tasks.spawn(named(task, "watch of ServiceAccounts"));

    (
        Stores { registries, repositories, pull_secrets, cluster_pull_secrets, namespaces, secrets, service_accounts },
        dependants,
    )
}

/// The watch of a kind of ours: changes that ask for work go to its queue.
fn own<K>(
    client: &Client,
    health: &Health,
    queue: &mpsc::UnboundedSender<ObjectRef<K>>,
    tasks: &mut JoinSet<&'static str>,
    gone: impl Fn(String, Gone) + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    let mut relevant = Relevant::default();
    let (handle, slot) = (queue.clone(), Arc::new(std::sync::OnceLock::<Store<K>>::new()));
    let known = slot.clone();
    let kind = || <K as Resource>::kind(&()).into_owned();
    let (store, task) =
        watch(api, watcher::Config::default(), health.clone(), drop_managed_fields, move |change| match change {
            Change::Seen(object) => {
                if relevant.is_new(object) {
                    ask(&handle, [object]);
                }
            }
            Change::Gone(object) => gone(kind(), relevant.forget(object)),
            Change::Relisted => {
                let objects = known.get().map(Store::state).unwrap_or_default();
                relevant.missing(&objects).into_iter().for_each(|object| gone(kind(), object));
                ask(&handle, objects.into_iter().filter(|object| relevant.is_new(&**object)));
            }
        });
    let _ = slot.set(store.clone());
    tasks.spawn(named(task, "watch of our own objects"));
    store
}

/// Returns when every store holds what there is.
pub async fn all_read(stores: &Stores) {
    let _ = stores.registries.wait_until_ready().await;
    let _ = stores.repositories.wait_until_ready().await;
    let _ = stores.pull_secrets.wait_until_ready().await;
    let _ = stores.cluster_pull_secrets.wait_until_ready().await;
    let _ = stores.namespaces.wait_until_ready().await;
    let _ = stores.secrets.wait_until_ready().await;
    let _ = stores.service_accounts.wait_until_ready().await;
}

async fn named(task: impl Future<Output = ()>, name: &'static str) -> &'static str {
    task.await;
    name
}

fn drop_managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}
