//! The end of an `EcrRepository`: its repository goes only if it is ours, only if the object that goes is the one that
//! owns it, and its images only if that was said.

use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use crate::api::{DeletionPolicy, EcrRepository, FINALIZER, Mode};
use crate::aws::{AwsError, Kind};
use crate::cluster::{What, is_conflict, is_not_found, set_finalizer};
use crate::controller::context::{Context, is_suspended, suspended};
use crate::controller::registries::Registry;
use crate::controller::report::Report;
use crate::controller::repository::{self, Stop};
use crate::controller::repository_status::report;
use crate::core::ownership::Owner;
use crate::core::reason::{Problem, Reason};
use crate::core::repository::Desired;

/// What is to be told when the finalizer goes.
enum Released {
    /// The repository is gone.
    Deleted,
    /// It stays, and why.
    Kept(String),
}

/// Does what deletion has to do, then lets the object go.
///
/// # Errors
/// Where the API server fails.
pub async fn repository(object: &EcrRepository, context: &Context) -> Result<Action, kube::Error> {
    if !object.finalizers().iter().any(|name| name == FINALIZER) {
        forget(object, context);
        return Ok(Action::await_change());
    }
    if is_suspended(object) {
        return report(object, context, Report::problem(suspended())).await;
    }
    match release(object, context).await {
        Ok(released) => let_go(object, context, &released).await,
        Err(Stop::Problem(problem)) => {
            let problem = with_way_out(problem);
            report(object, context, Report::problem(problem)).await
        }
        Err(Stop::Kubernetes(error)) => Err(error),
        Err(Stop::Superseded) => Ok(Action::await_change()),
    }
}

async fn release(object: &EcrRepository, context: &Context) -> Result<Released, Stop> {
    // Retain needs no registry and no AWS: it is the way out when these are gone.
    if object.spec.deletion_policy == Some(DeletionPolicy::Retain) {
        return Ok(Released::Kept("deletionPolicy is Retain".to_owned()));
    }
    if object.spec.mode == Mode::Plan {
        return Ok(Released::Kept("mode is Plan".to_owned()));
    }
    let registry = context.registries.resolve(&object.spec.registry_ref.name).await?;
    registry.works()?;
    let desired = repository::desired(object, &registry, context)?;
    if desired.plan_only {
        return Ok(Released::Kept(format!("EcrRegistry {} is in mode Plan", registry.name)));
    }
    if !crate::core::repository::deletes(desired.deletion) {
        return Ok(Released::Kept("deletionPolicy is Retain".to_owned()));
    }
    if desired.deletion > desired.ceilings.deletion {
        return Err(Stop::Problem(Problem::new(
            Reason::NotAllowed,
            format!(
                "deletionPolicy {} is above the maxDeletion {} of EcrRegistry {}",
                desired.deletion, desired.ceilings.deletion, registry.name
            ),
        )));
    }
    still_there(object, context).await?;
    delete(context, &registry, &desired).await
}

/// Never from the cache alone: an object of the same name may have taken the place of the one that was deleted.
async fn still_there(object: &EcrRepository, context: &Context) -> Result<(), Stop> {
    let api: Api<EcrRepository> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let live = api.get_metadata_opt(&object.name_any()).await?;
    let same =
        live.is_some_and(|live| live.metadata.uid == object.metadata.uid && live.metadata.deletion_timestamp.is_some());
    if same { Ok(()) } else { Err(Stop::Superseded) }
}

async fn delete(context: &Context, registry: &Registry, desired: &Desired) -> Result<Released, Stop> {
    let ecr = registry.manager.ecr();
    let told = |error: AwsError| error.problem(&desired.arn);
    let Some(tags) = ecr.tags(&desired.arn).await.map_err(told)? else {
        return Ok(Released::Kept(format!("repository {} was already gone", desired.name)));
    };
    let owned = Owner::read(&tags).is_some_and(|owner| owner.id == context.owner_id && owner.uid == desired.owner.uid);
    if !owned {
        return Ok(Released::Kept(format!("repository {} isn't owned by this object, by its tags", desired.name)));
    }
    let force = desired.deletion == DeletionPolicy::DeleteWithImages;
    match ecr.delete(desired.name.as_str(), force).await {
        Ok(()) => Ok(Released::Deleted),
        Err(error) if error.kind == Kind::NotEmpty => Err(Stop::Problem(not_empty(&ecr, desired).await)),
        Err(error) => Err(Stop::Problem(told(error))),
    }
}

async fn not_empty(ecr: &crate::aws::Ecr, desired: &Desired) -> Problem {
    let what = match ecr.images(desired.name.as_str()).await {
        Ok(images) => {
            let more = if images.more { " or more" } else { "" };
            let newest = images.newest.map(|at| format!(", the newest pushed at {at}")).unwrap_or_default();
            format!("{}{more} images{newest}", images.count)
        }
        Err(_) => "images".to_owned(),
    };
    Problem::new(
        Reason::RepositoryNotEmpty,
        format!(
            "repository {} still has {what}; delete them, or set spec.deletionPolicy to Retain (it stays) or DeleteWithImages (they go too)",
            desired.name
        ),
    )
}

fn with_way_out(problem: Problem) -> Problem {
    if problem.reason == Reason::RepositoryNotEmpty {
        return problem;
    }
    Problem::new(
        problem.reason,
        format!(
            "waiting to delete the repository: {}. To let the object go and keep the repository, set spec.deletionPolicy to Retain",
            problem.message
        ),
    )
}

async fn let_go(object: &EcrRepository, context: &Context, released: &Released) -> Result<Action, kube::Error> {
    let name = object.spec.name.clone().unwrap_or_else(|| object.name_any());
    let event = match released {
        Released::Deleted => What::done("DeleteRepository", format!("deleted repository {name}")),
        Released::Kept(why) => What::done("Released", format!("repository {name} was left as it is: {why}")),
    };
    context.events.tell(object, &event).await;
    let api: Api<EcrRepository> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    match set_finalizer(&api, object, false).await {
        Ok(_) => {}
        Err(error) if is_conflict(&error) => return Ok(Action::requeue(std::time::Duration::from_millis(200))),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error),
    }
    forget(object, context);
    Ok(Action::await_change())
}

fn forget(object: &EcrRepository, context: &Context) {
    let uid = object.uid().unwrap_or_default();
    context.attempts.reset(&uid);
    context.statuses.forget(&uid);
    context.checks.forget(&uid);
}
