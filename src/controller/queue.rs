//! A queue of one kind of objects and its workers: each pass waits for its place, and whatever becomes of it, the next goes on.

use std::convert::Infallible;
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use kube::Resource;
use kube::core::object::HasStatus;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::cluster::Gone;
use crate::controller::context::{Attempts, Context};
use crate::controller::lanes::{InLane, Lanes};
use crate::core::backoff::OBJECT;
use crate::metrics::Metrics;

/// A sign that it moves.
const BEAT: Duration = Duration::from_secs(5);

/// Who is to be looked at.
pub type Input<K> = mpsc::UnboundedReceiver<ObjectRef<K>>;

/// Runs it until it is stopped.
pub async fn drive<K, Work>(
    store: Store<K>,
    input: Input<K>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> Work + Copy + Send + 'static,
    context: Arc<Context>,
    stop: CancellationToken,
) -> &'static str
where
    K: InLane + HasStatus<Status: DeserializeOwned> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    Work: Future<Output = Result<Action, kube::Error>> + Send + 'static,
{
    let lanes = Arc::new(Lanes::new(context.stores.registries.clone()));
    let asked = futures::stream::unfold((input, lanes.clone()), |(mut input, lanes)| async {
        let next = input.recv().await?;
        lanes.changed(&next);
        Some((next, (input, lanes)))
    });
    let (health, name, known) = (context.health.clone(), <K as Resource>::kind(&()), store.clone());
    let queue = Controller::for_stream(futures::stream::pending(), store)
        .with_config(Config::default())
        .reconcile_on(asked)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(
            move |object, context| {
                let (lanes, known, stop) = (lanes.clone(), known.clone(), stop.clone());
                async move {
                    let object = ObjectRef::from_obj(&*object);
                    let entered = tokio::select! {
                        biased;
                        // Whoever still waits is left to the next operator.
                        () = stop.cancelled() => None,
                        entered = lanes.enter(&object, || known.get(&object)) => entered,
                    };
                    let Some((_place, object)) = entered else {
                        return Ok::<_, Infallible>(Action::await_change());
                    };
                    let object = context.statuses.latest(object);
                    // In a box from here on: those that wait are many, and small.
                    let pass = guarded(object.clone(), context.clone(), reconcile(object.clone(), context.clone()));
                    let next = Box::pin(pass).await;
                    // Deleted meanwhile, it was forgotten before the pass was through.
                    let is_it = |now: Arc<K>| now.meta().uid == object.meta().uid;
                    if !known.get(&ObjectRef::from_obj(&*object)).is_some_and(is_it) {
                        context.forget(&K::kind(&()), &Gone::of(&*object));
                    }
                    Ok(next)
                }
            },
            |_, error, _| match *error {},
            context,
        )
        .for_each(|_| std::future::ready(()));
    let (mut queue, mut beat) = (pin!(queue), tokio::time::interval(BEAT));
    loop {
        // On one task: where a pass blocks the queue, there is no beat.
        tokio::select! {
            () = &mut queue => break,
            _ = beat.tick() => health.beat(&name),
        }
    }
    health.ended(&name);
    "queue"
}

async fn guarded<K: Resource<DynamicType = ()>>(
    object: Arc<K>,
    context: Arc<Context>,
    pass: impl Future<Output = Result<Action, kube::Error>>,
) -> Action {
    let span = tracing::info_span!("pass", kind = %K::kind(&()), namespace = object.meta().namespace, name = object.meta().name);
    let began = Instant::now();
    let done = survived(&*object, &context.metrics, &context.attempts, pass).instrument(span).await;
    context.metrics.took(&K::kind(&()), began.elapsed());
    done
}

/// An error of the API server, which the client has already tried again, or a panic is that object's trouble: told, and
/// tried again ever later. The process goes on.
async fn survived<K: Resource<DynamicType = ()>>(
    object: &K,
    metrics: &Metrics,
    attempts: &Attempts,
    pass: impl Future<Output = Result<Action, kube::Error>>,
) -> Action {
    match AssertUnwindSafe(pass).catch_unwind().await {
        Ok(Ok(next)) => return next,
        Ok(Err(error)) => tracing::warn!(error = crate::cluster::words(&error), "the API server failed"),
        Err(_) => {
            tracing::error!("a pass panicked; this is a bug in the operator, please tell its makers");
            metrics.panicked();
        }
    }
    let uid = object.meta().uid.clone().unwrap_or_default();
    Action::requeue(OBJECT.after(attempts.failed(&uid), &uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::EcrRegistry;

    #[tokio::test]
    async fn what_fails_by_a_panic_or_by_the_api_server_is_tried_again_ever_later_and_the_process_goes_on() {
        let (metrics, attempts, object) = (Metrics::default(), Attempts::default(), EcrRegistry::default());
        for times in 1..=3 {
            let action = survived(&object, &metrics, &attempts, async { panic!("planted") }).await;
            assert_eq!(action, Action::requeue(OBJECT.after(times, "")));
            assert!(metrics.text().unwrap().contains(&format!("ecr_operator_panics_total {times}")));
        }
        for times in 4..=6 {
            let action =
                survived(&object, &metrics, &attempts, async { Err(kube::Error::LinesCodecMaxLineLengthExceeded) })
                    .await;
            assert_eq!(action, Action::requeue(OBJECT.after(times, "")));
        }
        let well = survived(&object, &metrics, &attempts, async { Ok(Action::await_change()) }).await;
        assert_eq!(well, Action::await_change());
    }
}
