//! Identities of registries as sessions with AWS: one for each identity and Region, kept until the identity is another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    asked: Mutex<Asked>,
    /// Held by whoever asks.
    asking: tokio::sync::Mutex<()>,
}

/// How asking went. Whoever signs a call makes sure of the account anew; this is for telling, and for being early.
#[derive(Debug, Default)]
struct Asked {
    last: Option<Caller>,
    failures: u32,
    failure: Option<(AwsError, Instant)>,
}

/// Who a session is, as far as it can be told.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) caller: Caller,
    /// Why it can't be told just now: this is the last that was known.
    pub(super) failure: Option<AwsError>,
}

/// Where one is kept: the identity as declared, whatever its credentials, and the Region.
type Place = (String, Region);

/// A session that nobody used for so long belongs to nobody.
const UNUSED: SignedDuration = SignedDuration::from_hours(2);

/// An identity of a registry.
struct Declared {
    /// The same for all versions of its credentials.
    kept_as: String,
    /// Another one when the credentials are others; the same for all registries that declare the same.
    version: String,
    credentials: Credentials,
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
        let known =
            Arc::new(Known { id: id.clone(), session, asked: Mutex::default(), asking: tokio::sync::Mutex::default() });
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
                // By default a session's name tells for which registry it is, and nothing else.
                let alike = Role { session_name: assumed.session_name.clone().unwrap_or_default(), ..role.clone() };
                Ok(Declared {
                    kept_as: format!("{role:?} by {}", by.kept_as),
                    version: format!("{alike:?} by {}", by.version),
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
        Declared {
            kept_as: format!("{role:?} with {tokens:?}"),
            version: format!("{} with {tokens:?}", role.arn),
            credentials: Credentials::WebIdentity(role, Arc::new(tokens)),
        }
    }
}

fn ambient() -> Declared {
    Declared { kept_as: "ambient".to_owned(), version: "ambient".to_owned(), credentials: Credentials::Ambient }
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
    /// Who it is. After a failure not asked before its back-off has passed, nor by many at once. What passes hides nobody
    /// who was known before: tokens that are at hand are good, whether STS is there or not.
    pub(super) async fn caller(&self) -> Result<Told, AwsError> {
        let _asking = match self.asking.try_lock() {
            Ok(asking) => asking,
            Err(_) => match self.last() {
                Some(told) => return Ok(told),
                None => self.asking.lock().await,
            },
        };
        let failure = self.asked().failure.clone();
        if let Some((error, _)) = failure.filter(|(_, until)| Instant::now() < *until) {
            return self.last().ok_or(error);
        }
        match self.session.caller().await {
            Ok(caller) => {
                *self.asked() = Asked { last: Some(caller.clone()), ..Asked::default() };
                Ok(Told { caller, failure: None })
            }
            Err(error) => {
                let mut asked = self.asked();
                asked.failures = asked.failures.saturating_add(1);
                // Counted from now: the attempt itself may have taken longer.
                let until = Instant::now() + backoff::TOKEN.after(asked.failures, &self.id);
                asked.failure = Some((error.clone(), until));
                drop(asked);
                self.last().ok_or(error)
            }
        }
    }

    /// Whoever it was, unless it was refused since.
    fn last(&self) -> Option<Told> {
        let asked = self.asked();
        let failure = asked.failure.as_ref().map(|(error, _)| error.clone());
        let passes = |error: &AwsError| error.kind.passes();
        let caller = asked.last.clone().filter(|_| failure.as_ref().is_none_or(passes))?;
        Some(Told { caller, failure })
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A failure of the identity of the registry `name`.
pub(super) fn unusable(name: &str, error: &AwsError) -> Problem {
    let problem = error.problem("*");
    Problem::new(problem.reason, format!("EcrRegistry {name}: {}", problem.message))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_smithy_runtime_api::client::http::SharedHttpClient;
    use local_ecr::{Action, Config, Fault, LocalEcr, Matcher};
    use serde_json::json;

    use super::*;
    use crate::aws::{Kind, StaticKey};
    use crate::core::token::Secret;

    const ROLE: &str = "arn:aws:iam::123456789012:role/manager";

    async fn with_a_role(session_lives: Duration) -> (LocalEcr, Known) {
        let mut config = Config::default();
        config.listen = Vec::new();
        let (id, secret) = (config.access_key.clone(), config.secret_key.clone());
        let local = LocalEcr::start(config).await.unwrap();
        let trust =
            json!({"Statement": {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}});
        let accounts = json!([{"id": "123456789012", "roles": [{"name": "manager", "trust": trust}]}]);
        local.seed(&serde_json::from_value(json!({"accounts": accounts})).unwrap()).unwrap();
        local.set_session_lifetime(Some(session_lives));
        let key = StaticKey { access_key_id: id, secret_access_key: Secret::new(secret), session_token: None };
        let role = Role::new(ROLE.to_owned(), "session".to_owned());
        let credentials = Credentials::AssumeRole(role, Box::new(Credentials::AccessKey(key)));
        let options =
            SessionOptions { http_client: Some(SharedHttpClient::new(local.connector())), ..SessionOptions::default() };
        let region = Region::parse("eu-west-1").unwrap();
        let session = Arc::new(Session::new(&credentials, &region, &Endpoint::default(), &options).await);
        let (asked, asking) = (Mutex::default(), tokio::sync::Mutex::default());
        (local, Known { id: "id".to_owned(), session, asked, asking })
    }

    async fn until_the_session_has_ended(known: &Known) -> Result<Told, AwsError> {
        let ended = async {
            loop {
                match known.caller().await {
                    Ok(Told { failure: None, .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                    told => return told,
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(1), ended).await.unwrap()
    }

    #[tokio::test]
    async fn whoever_was_known_is_still_told_while_sts_is_away_with_the_failure_beside() {
        let (local, known) = with_a_role(Duration::from_secs(2)).await;
        let before = known.caller().await.unwrap().caller;
        let away = Action::Before { code: "InternalFailure".into(), status: 500 };
        local.fault(Fault::always(Matcher::operation("AssumeRole"), away));
        let Told { caller, failure } = until_the_session_has_ended(&known).await.unwrap();
        assert_eq!(caller, before);
        assert_eq!(failure.unwrap().kind, Kind::Lost);
        local.clear_calls();
        assert!(known.caller().await.unwrap().failure.is_some());
        assert!(local.calls().is_empty(), "backing off");
    }

    #[tokio::test]
    async fn whoever_is_refused_is_nobody_whatever_was_known() {
        let (local, known) = with_a_role(Duration::from_secs(2)).await;
        known.caller().await.unwrap();
        local.remove_role("123456789012", "manager");
        let error = until_the_session_has_ended(&known).await.unwrap_err();
        assert_eq!(error.kind, Kind::Untrusted);
        assert_eq!(known.caller().await.unwrap_err().kind, Kind::Untrusted, "while backing off too");
    }
}
