//! Why the API server refuses a Secret, in terms of what to do about it.

use super::words;
use crate::core::reason::{Problem, Reason};

/// Whether the namespace is going away, or gone.
pub(super) fn is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
        || (status.is_not_found() && status.message.contains("namespaces"))
}

/// Whether it is for lack of a right, as authorization words it, and not that admission refuses what may be done.
pub(super) fn lacks_right(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains(" cannot "))
}

/// What a refusal of the Secret `name` means. The API server quotes no value of a Secret in its answers.
pub(super) fn secret_refused(name: &str, error: &kube::Error) -> Problem {
    let code = if let kube::Error::Api(status) = error { status.code } else { 0 };
    let words = words(error);
    let (reason, remedy) = match code {
        403 if words.contains("exceeded quota") => (Reason::Quota, "raise the ResourceQuota of the namespace"),
        403 if lacks_right(error) => {
            (Reason::Denied, "give the operator's ServiceAccount the rights on secrets that its chart gives it")
        }
        403 => (Reason::Denied, "an admission policy of the cluster refuses it; let the operator write it"),
        422 if words.contains("`immutable` is set") => {
            (Reason::SecretConflict, "somebody made it `immutable: true`; delete it, and it is written anew")
        }
        422 if words.contains("type: ") && words.contains("immutable") => (
            Reason::SecretConflict,
            "it is there with another type, which can't change; delete it, and it is written anew",
        ),
        400 | 413 | 422 => (Reason::Invalid, "the API server doesn't take it"),
        409 => (Reason::Transient, "somebody else wrote it at the same time"),
        404 => (Reason::Transient, "it was deleted at the same time"),
        _ => (Reason::Transient, "the API server failed"),
    };
    Problem::new(reason, format!("Secret {name}: {remedy}: {words}"))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_refusal_tells_what_to_do() {
        for (code, words, reason, remedy) in [
            (
                403,
                r#"secrets "pull" is forbidden: exceeded quota: few, requested: secrets=1, used: secrets=1, limited: secrets=1"#,
                Reason::Quota,
                "ResourceQuota",
            ),
            (
                403,
                r#"secrets "pull" is forbidden: User "system:serviceaccount:a:b" cannot patch resource "secrets" in API group "" in the namespace "c""#,
                Reason::Denied,
                "ServiceAccount",
            ),
            (
                403,
                r#"secrets "pull" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"#,
                Reason::Denied,
                "admission policy",
            ),
            (
                422,
                r#"Secret "pull" is invalid: data: Forbidden: field is immutable when `immutable` is set"#,
                Reason::SecretConflict,
                "immutable: true",
            ),
            (
                422,
                r#"Secret "pull" is invalid: type: Invalid value: "kubernetes.io/dockerconfigjson": field is immutable"#,
                Reason::SecretConflict,
                "another type",
            ),
            (
                422,
                r#"Secret "pull" is invalid: data: Too long: may not be more than 1048576 bytes"#,
                Reason::Invalid,
                "doesn't take it",
            ),
            (409, "Operation cannot be fulfilled", Reason::Transient, "at the same time"),
            (500, "etcd is away", Reason::Transient, "failed"),
        ] {
            let error = kube::Error::Api(Box::new(Status { code, message: words.to_owned(), ..Status::default() }));
            let problem = secret_refused("pull", &error);
            assert_eq!(problem.reason, reason, "{words}");
            assert!(problem.message.contains(remedy) && problem.message.ends_with(words), "{problem}");
            assert_eq!(lacks_right(&error), remedy == "ServiceAccount", "{words}");
        }
    }
}
