//! Accounts, users, roles and sessions: who may call, and what they may do.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::iam::{self, Decision, Document, Named, Request};
use super::tags::Tags;
use crate::digest;
use crate::error::ApiError;

/// A caller whose credentials were checked.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub account: String,
    /// As `GetCallerIdentity` tells it: the ARN of the user or of the session.
    pub arn: String,
    pub user_id: String,
    pub access_key: String,
    pub principal: Principal,
    pub session: Option<Session>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    User(String),
    Role(String),
    /// A session of `GetFederationToken`, with the user that asked for it.
    Federated(String),
    /// The account itself, which may do everything.
    Root,
}

#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub expires_at: Timestamp,
    pub policy: Option<Document>,
    pub tags: Tags,
}

#[derive(Debug, Clone)]
pub(crate) struct User {
    pub id: String,
    pub policies: Vec<Document>,
}

#[derive(Debug, Clone)]
pub(crate) struct Role {
    pub id: String,
    /// Path and name, as in the ARN after `role/`.
    pub full_name: String,
    pub trust: Document,
    pub policies: Vec<Document>,
    pub max_session: Duration,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    pub users: BTreeMap<String, User>,
    pub roles: BTreeMap<String, Role>,
    /// Issuers (without the scheme) whose web identities the account accepts.
    pub oidc_providers: BTreeSet<String>,
    /// ARNs of roles by namespace and ServiceAccount: the associations of EKS Pod Identity.
    pub pod_identities: BTreeMap<(String, String), String>,
    pub organization: Option<String>,
    pub organization_paths: Vec<String>,
}

/// A secret that signs requests, with whom it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub secret: String,
    pub session_token: Option<String>,
    pub caller: Caller,
}

#[derive(Debug)]
pub(crate) struct Identities {
    /// Partition of all ARNs: a model is one partition.
    partition: &'static str,
    root: [Document; 1],
    pub accounts: BTreeMap<String, Account>,
    keys: HashMap<String, Credentials>,
    /// Principals that policies may name although they aren't modelled.
    pub known_elsewhere: BTreeSet<String>,
    /// ARNs of callers with the actions that they needed permission for.
    needed: RefCell<BTreeSet<(String, String)>>,
}

/// What is asked, of what, and what the resource itself says.
pub(crate) struct Ask<'a> {
    pub action: &'a str,
    pub resource: String,
    /// The account that owns the resource.
    pub owner: &'a str,
    pub policy: Option<&'a Document>,
    pub context: BTreeMap<String, Vec<String>>,
}

impl<'a> Ask<'a> {
    pub fn new(action: &'a str, resource: impl Into<String>, owner: &'a str) -> Self {
        Self { action, resource: resource.into(), owner, policy: None, context: BTreeMap::new() }
    }

    pub fn policy(mut self, policy: Option<&'a Document>) -> Self {
        self.policy = policy;
        self
    }

    /// Adds a condition key; keys are compared without regard to case.
    pub fn context(mut self, key: &str, values: Vec<String>) -> Self {
        self.context.insert(key.to_lowercase(), values);
        self
    }

    pub fn request_tags(mut self, tags: &Tags) -> Self {
        for (key, value) in tags {
            self = self.context(&format!("aws:RequestTag/{key}"), vec![value.clone()]);
        }
        if tags.is_empty() { self } else { self.context("aws:TagKeys", tags.keys().cloned().collect()) }
    }

    pub fn resource_tags(mut self, tags: &Tags) -> Self {
        for (key, value) in tags {
            self = self.context(&format!("aws:ResourceTag/{key}"), vec![value.clone()]);
            self = self.context(&format!("ecr:ResourceTag/{key}"), vec![value.clone()]);
        }
        self
    }
}

impl Identities {
    pub fn new(partition: &'static str) -> Self {
        Self {
            partition,
            root: [Document::everything()],
            accounts: BTreeMap::new(),
            keys: HashMap::new(),
            known_elsewhere: BTreeSet::new(),
            needed: RefCell::default(),
        }
    }

    pub fn iam_arn(&self, account: &str, rest: &str) -> String {
        format!("arn:{}:iam::{account}:{rest}", self.partition)
    }

    pub fn sts_arn(&self, account: &str, rest: &str) -> String {
        format!("arn:{}:sts::{account}:{rest}", self.partition)
    }

    pub fn account_mut(&mut self, account: &str) -> &mut Account {
        self.accounts.entry(account.to_owned()).or_default()
    }

    pub fn role(&self, account: &str, name: &str) -> Option<&Role> {
        self.accounts.get(account)?.roles.get(name)
    }

    pub fn credentials(&self, access_key: &str) -> Option<&Credentials> {
        self.keys.get(access_key)
    }

    /// Lets a user sign with this key.
    pub fn add_user_key(&mut self, account: &str, user: &str, access_key: &str, secret: &str) {
        let user_id = self
            .account_mut(account)
            .users
            .entry(user.to_owned())
            .or_insert_with(|| User { id: digest::random_id("AIDA", 17), policies: Vec::new() })
            .id
            .clone();
        let caller = Caller {
            account: account.to_owned(),
            arn: self.iam_arn(account, &format!("user/{user}")),
            user_id,
            access_key: access_key.to_owned(),
            principal: Principal::User(user.to_owned()),
            session: None,
        };
        let credentials = Credentials { secret: secret.to_owned(), session_token: None, caller };
        self.keys.insert(access_key.to_owned(), credentials);
    }

    pub fn remove_key(&mut self, access_key: &str) {
        self.keys.remove(access_key);
    }

    /// Temporary credentials for a session, and drops those that ended before `now`.
    pub fn open_session(&mut self, mut caller: Caller, session: Session, now: Timestamp) -> Credentials {
        self.keys.retain(|_, key| {
            key.caller.session.as_ref().is_none_or(|session| {
                // Kept for a while, so that late callers hear that their credentials have expired.
                crate::clock::later(session.expires_at, Duration::from_hours(24)) > now
            })
        });
        caller.access_key = digest::random_id("ASIA", 16);
        caller.session = Some(session);
        let credentials = Credentials {
            secret: digest::random_base64(30),
            session_token: Some(digest::random_base64(300)),
            caller: caller.clone(),
        };
        self.keys.insert(caller.access_key, credentials.clone());
        credentials
    }

    /// Whether a policy may name this user, role or session.
    pub fn knows(&self, arn: &str) -> bool {
        if self.known_elsewhere.contains(arn) {
            return true;
        }
        let mut parts = arn.splitn(6, ':').skip(4);
        let (Some(account), Some(resource)) = (parts.next(), parts.next()) else { return false };
        let Some(account) = self.accounts.get(account) else { return false };
        match resource.split_once('/') {
            Some(("role", name)) => account.roles.get(last_segment(name)).is_some_and(|role| role.full_name == name),
            Some(("user", name)) => account.users.contains_key(name),
            Some(("assumed-role", session)) => {
                session.split_once('/').is_some_and(|(role, _)| account.roles.contains_key(role))
            }
            Some(("federated-user", _)) => true,
            _ => false,
        }
    }

    /// Decides as IAM does: an explicit denial anywhere wins; within an account an identity-based or a direct
    /// resource-based permission is enough; across accounts both sides must allow; a session policy limits all.
    pub fn authorize(&self, caller: &Caller, ask: &Ask<'_>) -> Result<(), ApiError> {
        self.needed.borrow_mut().insert((caller.arn.clone(), ask.action.to_owned()));
        let denied = |why: &str| {
            let message = format!(
                "User: {} is not authorized to perform: {} on resource: {} {why}",
                caller.arn, ask.action, ask.resource
            );
            Err(ApiError::new("AccessDeniedException", message))
        };
        let mut request = Request {
            principals: self.names(caller, true),
            action: ask.action.to_owned(),
            resource: ask.resource.clone(),
            context: self.context(caller, ask),
        };
        let identity = iam::decide(self.policies(caller), &request);
        let session = match caller.session.as_ref().map(|session| session.policy.as_ref()) {
            Some(Some(policy)) => policy.decide(&request),
            // Federated without a policy has no permissions of its own.
            Some(None) if matches!(caller.principal, Principal::Federated(_)) => Decision::Neutral,
            _ => Decision::Allow,
        };
        let resource = ask.policy.map_or(Decision::Neutral, |policy| policy.decide(&request));
        let explicit = "with an explicit deny in";
        if identity == Decision::Deny {
            return denied(&format!("{explicit} an identity-based policy"));
        }
        if session == Decision::Deny {
            return denied(&format!("{explicit} a session policy"));
        }
        if resource == Decision::Deny {
            return denied(&format!("{explicit} a resource-based policy"));
        }
        let because = |kind: &str| format!("because no {kind} policy allows the {} action", ask.action);
        if session != Decision::Allow {
            return denied(&because("session"));
        }
        if caller.account == ask.owner {
            request.principals = self.names(caller, false);
            let direct = ask.policy.is_some_and(|policy| policy.decide(&request) == Decision::Allow);
            if identity != Decision::Allow && !direct {
                return denied(&because("identity-based"));
            }
        } else if identity != Decision::Allow {
            return denied(&because("identity-based"));
        } else if resource != Decision::Allow {
            return denied(&because("resource-based"));
        }
        Ok(())
    }

    /// ARNs of callers with the actions that they needed permission for so far, granted or not.
    pub fn needed(&self) -> BTreeSet<(String, String)> {
        self.needed.borrow().clone()
    }

    /// Whether the policy alone denies the caller this action explicitly.
    pub fn denied_by(&self, caller: &Caller, policy: &Document, ask: &Ask<'_>) -> bool {
        self.decision(caller, policy, ask) == Decision::Deny
    }

    /// Whether the policy alone allows the caller, or the caller's account, this action.
    pub fn allowed_by(&self, caller: &Caller, policy: &Document, ask: &Ask<'_>) -> bool {
        self.decision(caller, policy, ask) == Decision::Allow
    }

    fn decision(&self, caller: &Caller, policy: &Document, ask: &Ask<'_>) -> Decision {
        let request = Request {
            principals: self.names(caller, true),
            action: ask.action.to_owned(),
            resource: ask.resource.clone(),
            context: self.context(caller, ask),
        };
        policy.decide(&request)
    }

    fn policies(&self, caller: &Caller) -> &[Document] {
        if caller.principal == Principal::Root {
            return &self.root;
        }
        let Some(account) = self.accounts.get(&caller.account) else { return &[] };
        match &caller.principal {
            Principal::User(name) | Principal::Federated(name) => {
                account.users.get(name).map_or(&[], |user| user.policies.as_slice())
            }
            Principal::Role(name) => account.roles.get(name).map_or(&[], |role| role.policies.as_slice()),
            Principal::Root => &[],
        }
    }

    /// How `Principal` elements may name the caller; naming the account hands the decision to its own policies.
    fn names(&self, caller: &Caller, with_account: bool) -> Vec<Named> {
        let mut names = vec![Named::Aws(caller.arn.clone())];
        names.extend(self.role_arn(caller).map(Named::Aws));
        if with_account {
            names.push(Named::Aws(caller.account.clone()));
            names.push(Named::Aws(self.iam_arn(&caller.account, "root")));
        }
        names
    }

    /// ARN of the role behind a session, as long as the role exists.
    fn role_arn(&self, caller: &Caller) -> Option<String> {
        let Principal::Role(name) = &caller.principal else { return None };
        let role = self.role(&caller.account, name)?;
        Some(self.iam_arn(&caller.account, &format!("role/{}", role.full_name)))
    }

    fn context(&self, caller: &Caller, ask: &Ask<'_>) -> BTreeMap<String, Vec<String>> {
        let mut context = ask.context.clone();
        let mut set = |key: &str, values: Vec<String>| {
            context.insert(key.to_lowercase(), values);
        };
        set("aws:PrincipalArn", vec![self.role_arn(caller).unwrap_or_else(|| caller.arn.clone())]);
        set("aws:PrincipalAccount", vec![caller.account.clone()]);
        if let Some(account) = self.accounts.get(&caller.account) {
            if let Some(organization) = &account.organization {
                set("aws:PrincipalOrgID", vec![organization.clone()]);
            }
            if !account.organization_paths.is_empty() {
                set("aws:PrincipalOrgPaths", account.organization_paths.clone());
            }
        }
        for (key, value) in caller.session.iter().flat_map(|session| &session.tags) {
            set(&format!("aws:PrincipalTag/{key}"), vec![value.clone()]);
        }
        context
    }
}

pub(crate) fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
