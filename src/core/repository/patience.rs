//! Refusals that may pass: IAM tells ECR of a new role a little late.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::core::reason::{Problem, Reason};
use crate::core::repository::Step;
use crate::core::token::fingerprint;

/// For so long a role that ECR doesn't know may be a new one.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// Since when ECR has been refusing which policy, by the UID of the object that declares it. Another policy is waited for
/// anew, and what else may be failing for how long is of no matter.
#[derive(Debug, Default)]
pub struct Refusals(HashMap<String, (String, Timestamp)>);

impl Refusals {
    /// ECR just refused `step`. Returns for how long it has been refusing that.
    pub fn refused(&mut self, uid: &str, step: &Step, now: Timestamp) -> SignedDuration {
        let Step::SetRepositoryPolicy { document, .. } = step else {
            return SignedDuration::ZERO;
        };
        let policy = fingerprint(&[&document.text()]);
        let known = self.0.entry(uid.to_owned()).or_insert_with(|| (policy.clone(), now));
        if known.0 != policy {
            *known = (policy, now);
        }
        now.duration_since(known.1)
    }

    /// It has the policy, or none is declared; or the object is gone.
    pub fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }
}

/// What to tell of `problem`, for which ECR has been refusing `step` for so long: a policy that names a role or user is
/// tried again for a while before it counts as wrong.
#[must_use]
pub fn patient(step: &Step, problem: Problem, refused_for: SignedDuration) -> Problem {
    let names_somebody = matches!(step, Step::SetRepositoryPolicy { document, .. } if document.names_principals());
    if !names_somebody || problem.reason != Reason::Invalid {
        return problem;
    }
    let reason = if refused_for < PATIENCE { Reason::Transient } else { Reason::Invalid };
    let hint = "a role or user it names may not exist, or be so new that ECR doesn't know it yet";
    Problem::new(reason, format!("{} ({hint})", problem.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::PolicyDocument;

    fn policy(principal: &str) -> Step {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Principal":{{"AWS":"{principal}"}},"Action":"ecr:BatchGetImage"}}}}"#
        );
        Step::SetRepositoryPolicy { document: PolicyDocument::parse(&text).unwrap(), changes: vec![] }
    }

    fn after(step: &Step, reason: Reason, refused_for: SignedDuration) -> Reason {
        patient(step, Problem::new(reason, "ecr:SetRepositoryPolicy failed"), refused_for).reason
    }

    #[test]
    fn each_policy_is_waited_for_on_its_own() {
        let mut refusals = Refusals::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let (first, other) = (policy("arn:aws:iam::123456789012:role/new"), policy("arn:aws:iam::123456789012:role/b"));
        assert_eq!(refusals.refused("u1", &first, at(0)), SignedDuration::ZERO);
        assert_eq!(refusals.refused("u1", &first, at(130)), SignedDuration::from_secs(130));
        assert_eq!(refusals.refused("u2", &first, at(130)), SignedDuration::ZERO, "of another object");
        assert_eq!(refusals.refused("u1", &other, at(131)), SignedDuration::ZERO, "another spec");
        refusals.forget("u1");
        assert_eq!(refusals.refused("u1", &other, at(500)), SignedDuration::ZERO, "it was accepted in between");
    }

    #[test]
    fn a_role_that_ecr_does_not_know_is_waited_for_two_minutes_and_then_is_wrong() {
        let (now, almost, then) =
            (SignedDuration::ZERO, SignedDuration::from_secs(119), SignedDuration::from_secs(120));
        for principal in ["arn:aws:iam::123456789012:role/new", "arn:aws:iam::123456789012:user/new"] {
            let step = policy(principal);
            assert_eq!(after(&step, Reason::Invalid, now), Reason::Transient);
            assert_eq!(after(&step, Reason::Invalid, almost), Reason::Transient);
            assert_eq!(after(&step, Reason::Invalid, then), Reason::Invalid);
        }
    }

    #[test]
    fn nothing_else_is_waited_for_so() {
        let somebody = policy("arn:aws:iam::123456789012:role/new");
        for (step, reason) in [
            (&policy("123456789012"), Reason::Invalid),
            (&Step::DeleteLifecyclePolicy { changes: vec![] }, Reason::Invalid),
            (&somebody, Reason::Denied),
            (&somebody, Reason::Throttled),
        ] {
            assert_eq!(after(step, reason, SignedDuration::ZERO), reason);
        }
    }
}
