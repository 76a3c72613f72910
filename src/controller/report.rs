//! What a pass has to tell of its object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;

use crate::api::{EcrRepositoryStatus, PlanStep};
use crate::cluster::What;
use crate::core::conditions::{Verdict, is_ready};
use crate::core::reason::{Class, Problem, gather};
use crate::core::repository;

/// What a pass has to tell.
#[derive(Debug)]
pub struct Report {
    /// The status but for its conditions; `None`: as it was.
    pub status: Option<EcrRepositoryStatus>,
    /// What keeps the object from its declared state.
    pub problems: Vec<Problem>,
    /// What was done.
    pub events: Vec<What>,
    /// What Ready says if nothing keeps it.
    pub ready: String,
    /// Whether something is known not to be as declared.
    pub differs: bool,
}

impl Report {
    /// A pass that got nowhere.
    #[must_use]
    pub fn problem(problem: Problem) -> Self {
        Self { status: None, problems: vec![problem], events: Vec::new(), ready: String::new(), differs: false }
    }

    /// The verdict, given the conditions so far.
    pub fn verdict<K: Resource>(&self, object: &K, old: &[Condition], observed: Option<i64>) -> Verdict {
        let generation = object.meta().generation.unwrap_or_default();
        let was_converged = !self.differs && observed == Some(generation) && is_ready(old, generation);
        match gather(&self.problems) {
            Some(problem) => Verdict::held_up(problem, was_converged),
            None => Verdict::ready(self.ready.clone()),
        }
    }
}

/// The event of a change between the conditions so far and the verdict.
#[must_use]
pub fn transition(old: &[Condition], verdict: &Verdict) -> Option<What> {
    let before = old.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.reason.as_str());
    if before == Some(verdict.reason.as_str()) {
        return None;
    }
    let reason = verdict.reason.as_str();
    Some(match verdict.reason.class() {
        Class::Converged | Class::Held => What::done(reason, &verdict.message),
        Class::Retrying | Class::Stalled => What::warning(reason, &verdict.message),
    })
}

/// Steps as the status shows them.
#[must_use]
pub fn steps_told(steps: &[repository::Step]) -> Vec<PlanStep> {
    steps.iter().map(|step| PlanStep { action: step.action().to_owned(), detail: step.detail() }).collect()
}
