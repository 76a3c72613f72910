//! Refusals that may pass: IAM tells ECR of a new role a little late.

use jiff::{SignedDuration, Timestamp};

use crate::core::reason::{Problem, Reason};
use crate::core::repository::Step;

/// For so long a role that ECR doesn't know may be a new one.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// What to tell of `problem`, for which ECR refused `step`, when the object has been failing for so long: a policy that
/// names a role or user is tried again for a while before it counts as wrong.
#[must_use]
pub fn patient(step: &Step, problem: Problem, failing_for: SignedDuration) -> Problem {
    let names_somebody = matches!(step, Step::SetRepositoryPolicy { document, .. } if document.names_principals());
    if !names_somebody || problem.reason != Reason::Invalid {
        return problem;
    }
    let reason = if failing_for < PATIENCE { Reason::Transient } else { Reason::Invalid };
    let hint = "a role or user it names may not exist, or be so new that ECR doesn't know it yet";
    Problem::new(reason, format!("{} ({hint})", problem.message))
}

/// For how long a spec has been failing: what went wrong before it was first looked at (`is_told`: its verdict was written)
/// is another spec's.
#[must_use]
pub fn failing_for(since: Option<Timestamp>, is_told: bool, now: Timestamp) -> SignedDuration {
    since.filter(|_| is_told).map_or(SignedDuration::ZERO, |since| now.duration_since(since))
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

    fn after(step: &Step, reason: Reason, failing_for: SignedDuration) -> Reason {
        patient(step, Problem::new(reason, "ecr:SetRepositoryPolicy failed"), failing_for).reason
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
    fn a_new_spec_is_waited_for_anew_however_long_the_one_before_it_failed() {
        let (hour_ago, now) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(3600).unwrap());
        assert_eq!(failing_for(Some(hour_ago), true, now), SignedDuration::from_hours(1));
        assert_eq!(failing_for(Some(hour_ago), false, now), SignedDuration::ZERO);
        assert_eq!(failing_for(None, true, now), SignedDuration::ZERO);
        let step = policy("arn:aws:iam::123456789012:role/new");
        assert_eq!(after(&step, Reason::Invalid, failing_for(Some(hour_ago), false, now)), Reason::Transient);
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
