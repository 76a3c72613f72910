//! The end of an `EcrRepository`: its repository goes only if it is ours, only if the object that goes is the one that
//! owns it, and its images only if that was said.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use crate::api::{DeletionPolicy, EcrRepository, FINALIZER};
use crate::aws::{AwsError, Ecr, Kind, Priority};
use crate::cluster::{What, is_conflict, is_not_found, set_finalizer};
use crate::controller::annotations::{is_suspended, suspended};
use crate::controller::context::Context;
use crate::controller::export;
use crate::controller::live::confirm;
use crate::controller::registries::Registry;
use crate::controller::report::Report;
use crate::controller::repository_parse::{Stop, doomed, is_young, owner};
use crate::controller::repository_status::report;
use crate::core::ownership::Owner;
use crate::core::reason::{Problem, Reason};
use crate::core::repository::{Doomed, stays};

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
        Err(Stop::Superseded) => Ok(Action::requeue(Duration::from_secs(1))),
    }
}

async fn release(object: &EcrRepository, context: &Context) -> Result<Released, Stop> {
    let name = &object.spec.registry_ref.name;
    // What stays needs no AWS, and no registry that works: that is the way out when these are gone.
    let known = context.registries.object(name).ok();
    let told = object.status.as_ref().and_then(|status| status.deletion_policy);
    if let Some(why) = stays(&object.spec, known.as_ref().map(|registry| &registry.spec), told) {
        return Ok(Released::Kept(why.to_owned()));
    }
    let registry = context.registries.resolve(name).await?;
    registry.works()?;
    let doomed = doomed(object, &registry, context)?;
    still_so(object, context).await?;
    delete(object, context, &registry, &doomed).await
}

/// Never from the cache alone: an object of the same name may have taken the place of the one that was deleted, and its
/// policy may have been changed a moment ago. Nor from an answer that is old: ECR may grant few deletions a second.
async fn still_so(object: &EcrRepository, context: &Context) -> Result<(), Stop> {
    confirm(object, context, is_the_same).await
}

/// Whether the object that the API server has is the one that is known, with the very spec that is known, and going away.
fn is_the_same(live: &ObjectMeta, known: &ObjectMeta) -> bool {
    live.uid == known.uid && live.generation == known.generation && live.deletion_timestamp.is_some()
}

async fn delete(
    object: &EcrRepository,
    context: &Context,
    registry: &Registry,
    doomed: &Doomed,
) -> Result<Released, Stop> {
    let ecr = registry.ecr().at(Priority::Urgent);
    let told = |error: AwsError| error.problem(&doomed.arn);
    let me = owner(object, context);
    // The object may outlive its repository by a moment: until its finalizer is off.
    if context.checks.was_deleted(&me.uid) {
        return Ok(Released::Deleted);
    }
    let Some(tags) = ecr.tags(&doomed.arn).await.map_err(told)? else {
        if may_be_created_at(object, context).is_some_and(is_young) {
            let message = "ECR shows no such repository, and may have created it a moment ago";
            return Err(Problem::new(Reason::Transient, message).into());
        }
        return Ok(Released::Kept(format!("there is no repository {}", doomed.name)));
    };
    if !Owner::read(&tags).is_some_and(|owner| owner.id == me.id && owner.uid == me.uid) {
        return Ok(Released::Kept(format!("repository {} isn't owned by this object, by its tags", doomed.name)));
    }
    allowed(registry, doomed)?;
    let force = doomed.deletion == DeletionPolicy::DeleteWithImages;
    match ecr.delete(doomed.name.as_str(), force, || still_so(object, context)).await? {
        Ok(()) => {
            context.checks.deleted(&me.uid);
            Ok(Released::Deleted)
        }
        Err(error) if error.kind == Kind::NotEmpty => Err(Stop::Problem(not_empty(&ecr, doomed).await)),
        Err(error) => Err(Stop::Problem(told(error))),
    }
}

/// When the repository was created, or may have been: that it wasn't told doesn't mean that it didn't happen.
fn may_be_created_at(object: &EcrRepository, context: &Context) -> Option<Timestamp> {
    let held = object.status.as_ref().filter(|status| status.repository_arn.is_some());
    let told = held.and_then(|status| status.created_at.as_ref()).map(|created| created.0);
    let born = object.metadata.creation_timestamp.as_ref().map(|created| created.0);
    told.or_else(|| context.checks.may_be_created_at(&object.uid().unwrap_or_default(), born))
}

/// The right is checked again at the very end: it may have been withdrawn.
fn allowed(registry: &Registry, doomed: &Doomed) -> Result<(), Problem> {
    match doomed.ceiling {
        Some(most) if doomed.deletion <= most => Ok(()),
        Some(most) => {
            let message = format!(
                "deletionPolicy {} is above the maxDeletion {most} of EcrRegistry {}",
                doomed.deletion, registry.name
            );
            Err(Problem::new(Reason::NotAllowed, message))
        }
        None => {
            let message =
                format!("no `allow` rule of EcrRegistry {} lets this namespace manage {}", registry.name, doomed.name);
            Err(Problem::new(Reason::NotAllowed, message))
        }
    }
}

async fn not_empty(ecr: &Ecr, doomed: &Doomed) -> Problem {
    let what = match ecr.images(doomed.name.as_str()).await {
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
            doomed.name
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
    export::remove(object, context).await?;
    let name = object.spec.name.clone().unwrap_or_else(|| object.name_any());
    let event = match released {
        Released::Deleted => What::done("DeleteRepository", format!("deleted repository {name}")),
        Released::Kept(why) => What::done("Released", format!("repository {name} was left as it is: {why}")),
    };
    let api: Api<EcrRepository> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    match set_finalizer(&api, object, false).await {
        Ok(_) => {}
        Err(error) if is_conflict(&error) => return Ok(Action::requeue(Duration::from_millis(200))),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error),
    }
    context.events.tell(object, &event).await;
    Ok(Action::await_change())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn nothing_is_deleted_by_what_the_cache_alone_says() {
        let meta = |uid: &str, generation, deleted: bool| ObjectMeta {
            uid: Some(uid.to_owned()),
            generation: Some(generation),
            deletion_timestamp: deleted.then_some(Time(Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        let known = meta("u1", 3, true);
        assert!(is_the_same(&meta("u1", 3, true), &known));
        for (live, why) in [
            (meta("u2", 3, true), "another object of that name"),
            (meta("u1", 4, true), "its policy may have been changed"),
            (meta("u1", 3, false), "it isn't being deleted"),
        ] {
            assert!(!is_the_same(&live, &known), "{why}");
        }
    }
}
