//! STS: who am I, and sessions of roles, web identities and federated users.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Context};
use crate::clock::later;
use crate::error::ApiError;
use crate::model::Model;
use crate::model::iam::{Decision, Document, Kind, Named, Request};
use crate::model::identity::{Ask, Caller, Credentials, Identities, Principal, Role, Session, last_segment};
use crate::model::names::is_account_id;
use crate::model::tags::Tags;
use crate::wire::jwt::WebIdentity;

/// The members of a query-protocol request.
pub(crate) type Form = BTreeMap<String, String>;

const HOUR: Duration = Duration::from_hours(1);

pub(crate) fn run(cx: &mut Context<'_>, operation: &str, form: &Form) -> Answer {
    match operation {
        "GetCallerIdentity" => {
            Ok(json!({"Arn": cx.caller.arn, "UserId": cx.caller.user_id, "Account": cx.caller.account}))
        }
        "AssumeRole" => assume_role(cx, form),
        "GetFederationToken" => federation_token(cx, form),
        _ => {
            Err(ApiError::new("InvalidAction", format!("Could not find operation {operation} for version 2011-06-15")))
        }
    }
}

fn assume_role(cx: &mut Context<'_>, form: &Form) -> Answer {
    let role_arn = RoleArn::parse(required(form, "RoleArn")?)?;
    let session_name = session_name(form, "RoleSessionName", 64)?;
    let tags = session_tags(form)?;
    let policy = session_policy(form, cx.model.settings.packed_policy_limit)?;
    let chained = matches!(cx.caller.principal, Principal::Role(_));
    let role = role_arn.find(&cx.model.identities).cloned();
    let Some(role) = role else { return Err(forbidden(cx.caller, "sts:AssumeRole", &role_arn.arn)) };
    let ask = |action: &'static str| {
        let ask =
            Ask::new(action, role_arn.arn.clone(), &role_arn.account).policy(Some(&role.trust)).request_tags(&tags);
        match form.get("ExternalId") {
            Some(id) => ask.context("sts:ExternalId", vec![id.clone()]),
            None => ask,
        }
        .context("sts:RoleSessionName", vec![session_name.clone()])
    };
    let mut actions = vec!["sts:AssumeRole"];
    actions.extend((!tags.is_empty()).then_some("sts:TagSession"));
    for action in actions {
        let allowed = cx.model.identities.authorize(cx.caller, &ask(action));
        allowed.map_err(|_| forbidden(cx.caller, action, &role_arn.arn))?;
        // Permissions of the caller's own never stand in for the trust policy.
        if !cx.model.identities.allowed_by(cx.caller, &role.trust, &ask(action)) {
            return Err(forbidden(cx.caller, action, &role_arn.arn));
        }
    }
    let duration = duration(form, HOUR, Duration::from_hours(12))?;
    if chained && duration > HOUR {
        return Err(ApiError::validation(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        ));
    }
    if duration > role.max_session {
        return Err(ApiError::validation(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        ));
    }
    let caller = role_caller(&cx.model.identities, &role_arn, &role.id, &session_name);
    let credentials = open(cx.model, caller, policy, tags, duration, cx.now);
    let Caller { user_id, arn, .. } = &credentials.caller;
    let more = json!({"AssumedRoleUser": {"AssumedRoleId": user_id, "Arn": arn}});
    Ok(render(cx.model, form, &credentials, more))
}

/// `AssumeRoleWithWebIdentity`: nobody signs it, the identity token speaks for the caller.
pub(crate) fn assume_role_with_web_identity(
    model: &mut Model,
    form: &Form,
    identity: &WebIdentity,
    now: jiff::Timestamp,
) -> Answer {
    let role_arn = RoleArn::parse(required(form, "RoleArn")?)?;
    let session_name = session_name(form, "RoleSessionName", 64)?;
    let policy = session_policy(form, model.settings.packed_policy_limit)?;
    let denied =
        || ApiError::new("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity").status(403);
    let account = model.identities.accounts.get(&role_arn.account).ok_or_else(denied)?;
    if !account.oidc_providers.contains(&identity.issuer) {
        let message = format!("No OpenIDConnect provider found in your account for https://{}", identity.issuer);
        return Err(ApiError::new("InvalidIdentityToken", message));
    }
    let role = role_arn.find(&model.identities).cloned().ok_or_else(denied)?;
    let provider = model.identities.iam_arn(&role_arn.account, &format!("oidc-provider/{}", identity.issuer));
    let mut request = Request {
        principals: vec![Named::Federated(provider.clone())],
        action: "sts:AssumeRoleWithWebIdentity".to_owned(),
        resource: role_arn.arn.clone(),
        ..Request::default()
    };
    let issuer = identity.issuer.to_lowercase();
    request.context.insert(format!("{issuer}:sub"), vec![identity.subject.clone()]);
    request.context.insert(format!("{issuer}:aud"), identity.audiences.clone());
    request.context.insert("sts:rolesessionname".to_owned(), vec![session_name.clone()]);
    if role.trust.decide(&request) != Decision::Allow {
        return Err(denied());
    }
    let duration = duration(form, HOUR, Duration::from_hours(12))?;
    if duration > role.max_session {
        return Err(ApiError::validation(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        ));
    }
    let caller = role_caller(&model.identities, &role_arn, &role.id, &session_name);
    let credentials = open(model, caller, policy, Tags::new(), duration, now);
    let Caller { user_id, arn, .. } = &credentials.caller;
    let more = json!({
        "AssumedRoleUser": {"AssumedRoleId": user_id, "Arn": arn},
        "SubjectFromWebIdentityToken": identity.subject,
        "Provider": provider,
        "Audience": identity.audiences.first(),
    });
    Ok(render(model, form, &credentials, more))
}

fn federation_token(cx: &mut Context<'_>, form: &Form) -> Answer {
    let Principal::User(user) = &cx.caller.principal else {
        return Err(
            ApiError::new("AccessDenied", "Cannot call GetFederationToken with session credentials").status(403)
        );
    };
    let name = session_name(form, "Name", 32)?;
    let tags = session_tags(form)?;
    let policy = session_policy(form, cx.model.settings.packed_policy_limit)?;
    let duration = duration(form, Duration::from_hours(12), Duration::from_hours(36))?;
    let arn = cx.model.identities.sts_arn(&cx.caller.account, &format!("federated-user/{name}"));
    let allowed = cx.authorize_any("sts:GetFederationToken", &arn);
    allowed.map_err(|_| forbidden(cx.caller, "sts:GetFederationToken", &arn))?;
    let caller = Caller {
        account: cx.caller.account.clone(),
        user_id: format!("{}:{name}", cx.caller.account),
        arn,
        access_key: String::new(),
        principal: Principal::Federated(user.clone()),
        session: None,
    };
    let credentials = open(cx.model, caller, policy, tags, duration, cx.now);
    let Caller { user_id, arn, .. } = &credentials.caller;
    let more = json!({"FederatedUser": {"FederatedUserId": user_id, "Arn": arn}});
    Ok(render(cx.model, form, &credentials, more))
}

/// A role's ARN taken apart; the name is what follows the path.
pub(super) struct RoleArn {
    arn: String,
    account: String,
    name: String,
    full_name: String,
}

impl RoleArn {
    pub fn parse(arn: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::validation(format_args!("{arn} is invalid"));
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", _, "iam", "", account, resource] = parts.as_slice() else { return Err(invalid()) };
        let path = resource.strip_prefix("role/").filter(|_| is_account_id(account)).ok_or_else(invalid)?;
        Ok(Self {
            arn: arn.to_owned(),
            account: (*account).to_owned(),
            name: last_segment(path).to_owned(),
            full_name: path.to_owned(),
        })
    }

    pub fn find<'a>(&self, identities: &'a Identities) -> Option<&'a Role> {
        identities.role(&self.account, &self.name).filter(|role| role.full_name == self.full_name)
    }
}

pub(super) fn role_caller(identities: &Identities, role: &RoleArn, id: &str, session_name: &str) -> Caller {
    Caller {
        account: role.account.clone(),
        arn: identities.sts_arn(&role.account, &format!("assumed-role/{}/{session_name}", role.name)),
        user_id: format!("{id}:{session_name}"),
        access_key: String::new(),
        principal: Principal::Role(role.name.clone()),
        session: None,
    }
}

pub(super) fn open(
    model: &mut Model,
    caller: Caller,
    policy: Option<Document>,
    tags: Tags,
    asked: Duration,
    now: jiff::Timestamp,
) -> Credentials {
    let lifetime = model.settings.session_lifetime.unwrap_or(asked);
    let session = Session { expires_at: later(now, lifetime), policy, tags };
    model.identities.open_session(caller, session, now)
}

/// The members that all answers with credentials share, and those of this one.
fn render(model: &Model, form: &Form, credentials: &Credentials, mut answer: Value) -> Value {
    let expires = credentials.caller.session.as_ref().map(|session| session.expires_at);
    let percent = packed_characters(form) * 100 / model.settings.packed_policy_limit.max(1);
    answer["Credentials"] = json!({
        "AccessKeyId": credentials.caller.access_key,
        "SecretAccessKey": credentials.secret,
        "SessionToken": credentials.session_token,
        "Expiration": expires.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    });
    answer["PackedPolicySize"] = json!(percent);
    answer["SessionTokenUtilization"] = json!(percent);
    answer["SessionTokenSize"] = json!(credentials.session_token.as_ref().map(String::len));
    answer
}

fn required<'a>(form: &'a Form, member: &str) -> Result<&'a str, ApiError> {
    form.get(member).map(String::as_str).ok_or_else(|| {
        let at = lower_first(member);
        ApiError::validation(format_args!(
            "1 validation error detected: Value null at '{at}' failed to satisfy constraint: Member must not be null"
        ))
    })
}

fn constraint(member: &str, value: &str, rule: &str) -> ApiError {
    let at = lower_first(member);
    ApiError::validation(format_args!(
        "1 validation error detected: Value '{value}' at '{at}' failed to satisfy constraint: {rule}"
    ))
}

fn lower_first(member: &str) -> String {
    let mut letters = member.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

fn session_name(form: &Form, member: &str, longest: usize) -> Result<String, ApiError> {
    let name = required(form, member)?;
    if name.len() < 2 {
        return Err(constraint(member, name, "Member must have length greater than or equal to 2"));
    }
    if name.len() > longest {
        let rule = format!("Member must have length less than or equal to {longest}");
        return Err(constraint(member, name, &rule));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)) {
        return Err(constraint(member, name, "Member must satisfy regular expression pattern: [\\w+=,.@-]*"));
    }
    Ok(name.to_owned())
}

fn duration(form: &Form, default: Duration, longest: Duration) -> Result<Duration, ApiError> {
    let Some(text) = form.get("DurationSeconds") else { return Ok(default) };
    let seconds: u64 = text.parse().map_err(|_| ApiError::new("MalformedInput", "DurationSeconds is not a number"))?;
    if seconds < 900 {
        return Err(constraint("DurationSeconds", text, "Member must have value greater than or equal to 900"));
    }
    if seconds > longest.as_secs() {
        let rule = format!("Member must have value less than or equal to {}", longest.as_secs());
        return Err(constraint("DurationSeconds", text, &rule));
    }
    Ok(Duration::from_secs(seconds))
}

fn session_policy(form: &Form, packed_limit: usize) -> Result<Option<Document>, ApiError> {
    if form.keys().any(|member| member.starts_with("PolicyArns.member.")) {
        return Err(ApiError::validation("The local ECR has no managed policies: give the session policy as Policy"));
    }
    let Some(text) = form.get("Policy") else { return Ok(None) };
    if text.chars().count() > 2048 {
        return Err(constraint("Policy", text, "Member must have length less than or equal to 2048"));
    }
    if !text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}')) {
        let rule = "Member must satisfy regular expression pattern: [\\u0009\\u000A\\u000D\\u0020-\\u00FF]+";
        return Err(constraint("Policy", text, rule));
    }
    let document = Document::parse(text, Kind::Identity)
        .map_err(|error| ApiError::new("MalformedPolicyDocument", format!("Syntax errors in policy: {error}")))?;
    let packed = packed_characters(form);
    if packed > packed_limit {
        let percent = packed * 100 / packed_limit.max(1);
        let message = format!("Packed policy consumes {percent}% of allotted space, please use smaller policy.");
        return Err(ApiError::new("PackedPolicyTooLarge", message));
    }
    Ok(Some(document))
}

/// AWS packs policy and tags in a way of its own; here it is the policy without white space, plus the tags.
fn packed_characters(form: &Form) -> usize {
    let policy = form.get("Policy").and_then(|text| serde_json::from_str::<Value>(text).ok());
    let tags: usize =
        form.iter().filter(|(member, _)| member.starts_with("Tags.member.")).map(|(_, value)| value.len()).sum();
    policy.map_or(0, |policy| policy.to_string().len()) + tags
}

fn session_tags(form: &Form) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for index in 1..=51 {
        let Some(key) = form.get(&format!("Tags.member.{index}.Key")) else { break };
        let value = form.get(&format!("Tags.member.{index}.Value")).cloned().unwrap_or_default();
        if index > 50 {
            return Err(constraint("Tags", key, "Member must have length less than or equal to 50"));
        }
        if key.is_empty() || key.len() > 128 || value.len() > 256 {
            return Err(constraint("Tags", key, "tag keys have 1 to 128 and values up to 256 characters"));
        }
        if tags.insert(key.clone(), value).is_some() {
            return Err(ApiError::new("InvalidParameterValue", format!("Duplicate tag keys found: {key}")));
        }
    }
    Ok(tags)
}

fn forbidden(caller: &Caller, action: &str, resource: &str) -> ApiError {
    let message = format!("User: {} is not authorized to perform: {action} on resource: {resource}", caller.arn);
    ApiError::new("AccessDenied", message).status(403)
}
