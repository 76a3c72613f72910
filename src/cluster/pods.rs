//! Pods: watched only while somebody wants to know which are stuck, and evicted, never deleted.

use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, PostParams, Preconditions};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};

use super::patience::Patience;
use super::refusals::lacks_right;
use super::{is_conflict, is_not_found};
use crate::core::stuck_pods::StuckPod;

/// Watches and evicts pods.
#[derive(Clone)]
pub struct Pods {
    client: Client,
}

/// What a watch of pods told.
#[derive(Debug)]
pub enum PodNews {
    /// A list begins: what isn't in it is gone.
    Relisting,
    /// It ended.
    Listed,
    /// A pod as it is now: stuck, or (its UID) not.
    Pod(Box<Result<StuckPod, String>>),
    /// The operator may not watch.
    Forbidden,
    /// Something else is in the way, for now.
    Interrupted,
}

/// What became of an eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evicted {
    /// It goes, or is gone.
    Done,
    /// A disruption budget is in the way just now.
    Later,
    /// The operator has no right to it.
    Forbidden,
}

impl Pods {
    /// Through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// All pods that didn't end, as they change. Of each only what matters is kept.
    #[must_use]
    pub fn watch(&self) -> BoxStream<'static, PodNews> {
        let unended = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        let events = watcher(Api::<Pod>::all(self.client.clone()), unended).backoff(Patience::default());
        events
            .map(|event| {
                let told = |pod: &Pod| StuckPod::read(pod).ok_or_else(|| pod.metadata.uid.clone().unwrap_or_default());
                match event {
                    Ok(Event::Init) => PodNews::Relisting,
                    Ok(Event::InitApply(pod) | Event::Apply(pod)) => PodNews::Pod(Box::new(told(&pod))),
                    Ok(Event::Delete(pod)) => PodNews::Pod(Box::new(Err(pod.metadata.uid.unwrap_or_default()))),
                    Ok(Event::InitDone) => PodNews::Listed,
                    Err(error) if is_forbidden(&error) => PodNews::Forbidden,
                    Err(error) => {
                        tracing::warn!(%error, "watch of pods interrupted");
                        PodNews::Interrupted
                    }
                }
            })
            .boxed()
    }

    /// Evicts that very pod.
    ///
    /// # Errors
    /// Where the API server fails, or an admission policy refuses it.
    pub async fn evict(&self, pod: &StuckPod) -> Result<Evicted, kube::Error> {
        let only = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let delete_options = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        let params = EvictParams { delete_options: Some(delete_options), post_options: PostParams::default() };
        match Api::<Pod>::namespaced(self.client.clone(), &pod.namespace).evict(&pod.name, &params).await {
            Ok(_) => Ok(Evicted::Done),
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(Evicted::Done),
            Err(kube::Error::Api(status)) if status.code == 429 => Ok(Evicted::Later),
            Err(error) if lacks_right(&error) => Ok(Evicted::Forbidden),
            Err(error) => Err(error),
        }
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    let error = match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => error,
        watcher::Error::WatchError(status) => return status.code == 403,
        _ => return false,
    };
    matches!(error, kube::Error::Api(status) if status.code == 403)
}
