//! `exportTo` of an `EcrRepository`.

use std::collections::BTreeMap;

use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::api::{EcrRepository, EcrRepositoryStatus};
use crate::cluster::{Exported, Exports, words};
use crate::controller::context::Context;
use crate::core::reason::{Problem, Reason};

/// Brings the export to where the spec wants it and takes it away from where it was; the status remembers where it is.
pub(super) async fn bring_about(
    object: &EcrRepository,
    context: &Context,
    status: &mut EcrRepositoryStatus,
) -> Option<Problem> {
    let wanted = object.spec.export_to.as_ref().map(|export| export.config_map.clone());
    let told = |error: kube::Error| Problem::new(Reason::Transient, format!("exportTo: {}", words(&error)));
    let exports = exports(object, context);
    if let Some(former) = status.exported_to.clone().filter(|former| Some(former) != wanted.as_ref()) {
        if let Err(error) = exports.remove(&former).await {
            return Some(told(error));
        }
        status.exported_to = None;
    }
    let (Some(name), Some(data)) = (wanted, data(object, status)) else {
        return None;
    };
    match exports.write(&name, &data).await {
        Ok(Exported::Done) => {
            status.exported_to = Some(name);
            None
        }
        Ok(Exported::Refused(why)) => Some(Problem::new(
            Reason::Conflict,
            format!("exportTo: {why}; it was left as it is. Choose another name, or delete it"),
        )),
        Err(error) => Some(told(error)),
    }
}

/// Takes the export away with the object.
///
/// # Errors
/// Where the API server refuses: the finalizer stays until it is done.
pub(super) async fn remove(object: &EcrRepository, context: &Context) -> Result<(), kube::Error> {
    match object.status.as_ref().and_then(|status| status.exported_to.as_ref()) {
        Some(name) => exports(object, context).remove(name).await,
        None => Ok(()),
    }
}

/// Whether deletion has to take an export away.
pub(super) fn is_wanted(object: &EcrRepository) -> bool {
    object.spec.export_to.is_some() || object.status.as_ref().is_some_and(|status| status.exported_to.is_some())
}

fn exports(object: &EcrRepository, context: &Context) -> Exports {
    let owner = json!({
        "apiVersion": EcrRepository::api_version(&()),
        "kind": EcrRepository::kind(&()),
        "name": object.name_any(),
        "uid": object.uid(),
        "blockOwnerDeletion": false,
    });
    let namespace = object.namespace().unwrap_or_default();
    Exports::new(context.client.clone(), &namespace, owner, object.uid().unwrap_or_default())
}

/// What there is to export; nothing before the repository is there.
fn data(object: &EcrRepository, status: &EcrRepositoryStatus) -> Option<BTreeMap<String, String>> {
    let keys = &object.spec.export_to.as_ref()?.keys;
    let uri = status.repository_uri.clone()?;
    let host = uri.split('/').next().unwrap_or_default().to_owned();
    let name = uri.split_once('/').map(|(_, name)| name.to_owned()).unwrap_or_default();
    let values = [
        (&keys.uri, Some(uri)),
        (&keys.arn, status.repository_arn.clone()),
        (&keys.name, Some(name)),
        (&keys.host, Some(host)),
        (&keys.registry_id, status.registry_id.clone()),
        (&keys.region, status.region.clone()),
    ];
    Some(values.into_iter().filter_map(|(key, value)| Some((key.clone()?, value?))).collect())
}
