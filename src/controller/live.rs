//! What the API server has of an object, where the cache isn't enough: it may lag.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, ResourceExt};

use crate::api::EcrRepository;
use crate::controller::context::Context;
use crate::controller::repository_parse::Stop;
use crate::core::reason::{Problem, Reason};

/// For the API server, while a permit of ECR's is held.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the object is there, and `is_same`: given what the API server has of it, and what is known.
///
/// # Errors
/// `Superseded` where it isn't; why the API server can't be asked.
pub(super) async fn confirm(
    object: &EcrRepository,
    context: &Context,
    is_same: impl Fn(&ObjectMeta, &ObjectMeta) -> bool,
) -> Result<(), Stop> {
    let api: Api<EcrRepository> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let live = tokio::time::timeout(PATIENCE, api.get_metadata_opt(&object.name_any())).await;
    let live = live.map_err(|_| Problem::new(Reason::Transient, "no answer from the API server in time"))??;
    let same = live.is_some_and(|live| is_same(&live.metadata, &object.metadata));
    if same { Ok(()) } else { Err(Stop::Superseded) }
}
