//! EKS Pod Identity: what the agent on a node answers to a pod that shows its ServiceAccount's token.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::sts::{RoleArn, open, role_caller};
use crate::error::ApiError;
use crate::model::Model;
use crate::model::iam::{Decision, Named, Request};
use crate::model::tags::Tags;
use crate::wire::jwt::WebIdentity;

/// Who must be trusted by a role that pods get this way.
const SERVICE: &str = "pods.eks.amazonaws.com";
const SESSION: Duration = Duration::from_hours(6);

/// Credentials of the role that is associated with the ServiceAccount, in the container-credentials format; with
/// them the role's ARN, for the log.
pub(crate) fn credentials(
    model: &mut Model,
    identity: &WebIdentity,
    now: Timestamp,
) -> Result<(Value, String), ApiError> {
    let subject = identity.subject.strip_prefix("system:serviceaccount:").and_then(|subject| subject.split_once(':'));
    let (namespace, service_account) = subject
        .filter(|_| identity.audiences.iter().any(|audience| audience == SERVICE))
        .ok_or_else(|| ApiError::new("InvalidTokenException", "not a ServiceAccount's token for Pod Identity"))?;
    let key = (namespace.to_owned(), service_account.to_owned());
    let associated = model.identities.accounts.values().find_map(|account| account.pod_identities.get(&key));
    let role_arn = associated.cloned().ok_or_else(|| {
        let message = format!("no pod identity association for {namespace}/{service_account}");
        ApiError::new("ResourceNotFoundException", message).status(404)
    })?;
    let parsed = RoleArn::parse(&role_arn)?;
    let denied = || ApiError::new("AccessDeniedException", format!("{SERVICE} may not assume {role_arn}")).status(403);
    let role = parsed.find(&model.identities).ok_or_else(denied)?;
    for action in ["sts:AssumeRole", "sts:TagSession"] {
        let request = Request {
            principals: vec![Named::Service(SERVICE.to_owned())],
            action: action.to_owned(),
            resource: role_arn.clone(),
            ..Request::default()
        };
        if role.trust.decide(&request) != Decision::Allow {
            return Err(denied());
        }
    }
    let tags = Tags::from([
        ("kubernetes-namespace".to_owned(), namespace.to_owned()),
        ("kubernetes-service-account".to_owned(), service_account.to_owned()),
    ]);
    let caller = role_caller(&model.identities, &parsed, &role.id, &format!("eks-local-{service_account}"));
    let credentials = open(model, caller, None, tags, SESSION, now);
    let expires = credentials.caller.session.as_ref().map(|session| session.expires_at);
    let answer = json!({
        "AccessKeyId": credentials.caller.access_key,
        "SecretAccessKey": credentials.secret,
        "Token": credentials.session_token,
        "AccountId": credentials.caller.account,
        "Expiration": expires.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    });
    Ok((answer, role_arn))
}
