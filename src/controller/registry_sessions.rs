//! Identities of registries as sessions with AWS: one for each identity and Region, kept until the identity is another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kube::Client;

use crate::api::{AccessKey, AssumeRole, EcrRegistrySpec, Identity, IdentitySource, WebIdentity};
use crate::aws::{AwsError, Caller, Credentials, Endpoint, Role, Session, SessionOptions};
use crate::cluster::{AccessKeys, ServiceAccountToken};
use crate::core::backoff;
use crate::core::names::Region;
use crate::core::reason::{Problem, Reason};
use crate::core::token::fingerprint;

/// A session and who it turned out to be.
#[derive(Debug)]
pub(super) struct Known {
    /// A fingerprint of the identity with its credentials.
    pub(super) id: String,
    pub(super) session: Arc<Session>,
    caller: tokio::sync::Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    caller: Option<(Caller, Timestamp)>,
    failures: u32,
    failure: Option<(AwsError, Timestamp)>,
}

/// Whom credentials belong to may change behind them: a Pod Identity association, say, is pointed at another role.
const ASK_AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// Where one is kept: the identity as declared, whatever its credentials, and the Region.
type Place = (String, Region);

/// A session that nobody used for so long belongs to nobody.
const UNUSED: SignedDuration = SignedDuration::from_hours(2);

/// An identity of a registry.
struct Declared {
    /// The same for all versions of its credentials.
    kept_as: String,
    /// Another one when the credentials are others.
    version: String,
    credentials: Credentials,
}

impl Declared {
    /// Its credentials are renewed by themselves.
    fn unversioned(name: String, credentials: Credentials) -> Self {
        Self { version: name.clone(), kept_as: name, credentials }
    }
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    keys: AccessKeys,
    client: Kubernetes,
    options: SessionOptions,
    allow_endpoint_override: bool,
    all: Mutex<HashMap<Place, (Arc<Known>, Timestamp)>>,
}

/// A client, which has no `Debug`.
struct Kubernetes(Client);

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kubernetes")
    }
}

impl Sessions {
    pub(super) fn new(
        keys: AccessKeys,
        client: Client,
        options: SessionOptions,
        allow_endpoint_override: bool,
    ) -> Self {
        Self { keys, client: Kubernetes(client), options, allow_endpoint_override, all: Mutex::default() }
    }

    /// The session of `identity`, which the registry `name` declares; the pod's own where it declares none.
    pub(super) async fn get(
        &self,
        name: &str,
        spec: &EcrRegistrySpec,
        identity: Option<&Identity>,
        region: &Region,
    ) -> Result<Arc<Known>, Problem> {
        let endpoint = self.endpoint(spec)?;
        let Declared { kept_as, version, credentials } = self.credentials(name, identity).await?;
        let id = fingerprint(&[&version, &format!("{endpoint:?}")]);
        let place = (format!("{kept_as} at {endpoint:?}"), region.clone());
        let now = Timestamp::now();
        if let Some((known, used)) = self.all.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&place)
            && known.id == id
        {
            *used = now;
            return Ok(known.clone());
        }
        let session = Arc::new(Session::new(&credentials, region, &endpoint, &self.options).await);
        let known = Arc::new(Known { id: id.clone(), session, caller: tokio::sync::Mutex::default() });
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, used)| now.duration_since(*used) < UNUSED);
        match all.get(&place) {
            // Another task was as quick: whoever was first is kept.
            Some((first, _)) if first.id == id => Ok(first.clone()),
            // A superseded key goes from memory with its session.
            _ => {
                all.insert(place, (known.clone(), now));
                Ok(known)
            }
        }
    }

    fn endpoint(&self, spec: &EcrRegistrySpec) -> Result<Endpoint, Problem> {
        let endpoint = spec.endpoint.clone().unwrap_or_default();
        if endpoint.url.is_some() && !self.allow_endpoint_override {
            return Err(Problem::new(
                Reason::Denied,
                "spec.endpoint.url is only honoured where the operator runs with --allow-endpoint-override: it would be sent signed requests",
            ));
        }
        Ok(Endpoint {
            fips: endpoint.fips.unwrap_or(false),
            dual_stack: endpoint.dual_stack.unwrap_or(false),
            url: endpoint.url,
        })
    }

    async fn credentials(&self, name: &str, identity: Option<&Identity>) -> Result<Declared, Problem> {
        match identity {
            Some(Identity { assume_role: Some(assumed), .. }) => {
                let source = assumed.source.clone().unwrap_or_default();
                let by = match &source {
                    IdentitySource { web_identity: Some(web), .. } => self.web_identity(name, web),
                    IdentitySource { access_key: Some(named), .. } => self.access_key(named).await?,
                    _ => ambient(),
                };
                let role = role(name, assumed);
                Ok(Declared {
                    kept_as: format!("{role:?} by {}", by.kept_as),
                    version: format!("{role:?} by {}", by.version),
                    credentials: Credentials::AssumeRole(role, Box::new(by.credentials)),
                })
            }
            Some(Identity { web_identity: Some(web), .. }) => Ok(self.web_identity(name, web)),
            Some(Identity { access_key: Some(named), .. }) => self.access_key(named).await,
            _ => Ok(ambient()),
        }
    }

    async fn access_key(&self, AccessKey { secret_name }: &AccessKey) -> Result<Declared, Problem> {
        let (version, key) = self.keys.get(secret_name).await?;
        Ok(Declared {
            kept_as: format!("accessKey/{secret_name}"),
            version: format!("accessKey/{secret_name}/{version}"),
            credentials: Credentials::AccessKey(key),
        })
    }

    fn web_identity(&self, name: &str, web: &WebIdentity) -> Declared {
        let account = &web.service_account_ref;
        let audience = web.audience.as_deref().unwrap_or("sts.amazonaws.com");
        let tokens = ServiceAccountToken::new(self.client.0.clone(), &account.namespace, &account.name, audience);
        let role = Role::new(web.role_arn.clone(), session_name(name));
        Declared::unversioned(format!("{role:?} with {tokens:?}"), Credentials::WebIdentity(role, Arc::new(tokens)))
    }
}

fn ambient() -> Declared {
    Declared::unversioned("ambient".to_owned(), Credentials::Ambient)
}

fn role(name: &str, declared: &AssumeRole) -> Role {
    Role {
        arn: declared.role_arn.clone(),
        session_name: declared.session_name.clone().unwrap_or_else(|| session_name(name)),
        external_id: declared.external_id.clone(),
        tags: declared.session_tags.clone().unwrap_or_default(),
        duration: declared.duration_seconds,
    }
}

/// What CloudTrail shows: for which registry. STS takes 64 characters.
fn session_name(registry: &str) -> String {
    format!("ecr-operator-{registry}").chars().take(64).collect()
}

impl Known {
    /// Asked once; after a failure not before its back-off has passed.
    pub(super) async fn caller(&self) -> Result<Caller, AwsError> {
        let mut asked = self.caller.lock().await;
        let now = Timestamp::now();
        if let Some((caller, _)) = asked.caller.as_ref().filter(|(_, at)| now.duration_since(*at) < ASK_AGAIN) {
            return Ok(caller.clone());
        }
        if let Some((error, _)) = asked.failure.as_ref().filter(|(_, until)| *until > now) {
            return Err(error.clone());
        }
        match self.session.caller().await {
            Ok(caller) => {
                *asked = Asked { caller: Some((caller.clone(), now)), ..Asked::default() };
                Ok(caller)
            }
            Err(error) => {
                asked.failures = asked.failures.saturating_add(1);
                let wait = SignedDuration::try_from(backoff::TOKEN.after(asked.failures, &self.id))
                    .unwrap_or(SignedDuration::from_mins(1));
                asked.failure = Some((error.clone(), now.saturating_add(wait).unwrap_or(Timestamp::MAX)));
                Err(error)
            }
        }
    }
}

/// A failure of the identity of the registry `name`.
pub(super) fn unusable(name: &str, error: &AwsError) -> Problem {
    let problem = error.problem("*");
    Problem::new(problem.reason, format!("EcrRegistry {name}: {}", problem.message))
}
