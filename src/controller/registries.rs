//! The registries as they can be worked with: an `EcrRegistry` with its identity tried and its account known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::{ObjectRef, Store};

use crate::api::{EcrRegistry, EcrRegistrySpec, Identity, SUSPEND, ScopeTokens};
use crate::aws::{AwsError, Caller, Credentials, Ecr, Endpoint, Session, SessionOptions};
use crate::cluster::AccessKeys;
use crate::controller::annotations::is_suspended;
use crate::core::backoff;
use crate::core::names::{AccountId, Region};
use crate::core::pull_secret::Offer;
use crate::core::reason::{Problem, Reason};
use crate::core::token::{TokenKey, fingerprint};

/// A registry that can be worked with.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Of the `EcrRegistry`.
    pub name: String,
    /// Of the `EcrRegistry`.
    pub spec: EcrRegistrySpec,
    /// The account.
    pub account: AccountId,
    /// The Region.
    pub region: Region,
    /// Who manages repositories.
    pub manager: Arc<Session>,
    /// Its ARN.
    pub caller_arn: String,
    suspended: bool,
}

impl Registry {
    /// ECR, as whoever manages repositories.
    #[must_use]
    pub fn ecr(&self) -> Ecr {
        self.manager.ecr(&self.account)
    }

    /// Whether work on repositories goes on; tokens are renewed all the same.
    ///
    /// # Errors
    /// `Suspended`, by annotation.
    pub fn works(&self) -> Result<(), Problem> {
        if !self.suspended {
            return Ok(());
        }
        Err(Problem::new(
            Reason::Suspended,
            format!(
                "EcrRegistry {} is suspended by the annotation {SUSPEND}; nothing is done until it is removed",
                self.name
            ),
        ))
    }
}

/// A session and who it turned out to be.
#[derive(Debug)]
struct Known {
    id: String,
    session: Arc<Session>,
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

type SessionKey = (String, Region);

/// Where `driftInterval` isn't set.
const DRIFT_INTERVAL: Duration = Duration::from_mins(10);

/// All of them.
#[derive(Debug)]
pub struct Registries {
    store: Store<EcrRegistry>,
    keys: AccessKeys,
    options: SessionOptions,
    allow_endpoint_override: bool,
    sessions: Mutex<HashMap<SessionKey, Arc<Known>>>,
    rounds: Mutex<HashMap<String, Round>>,
}

/// Of looks at a registry's repositories.
#[derive(Debug, Default)]
struct Round {
    scanning: Option<String>,
    every: Option<Duration>,
    counted: bool,
    next_snapshot: Option<Timestamp>,
}

impl Registries {
    /// From the watched `EcrRegistry` objects and the Secrets they name.
    #[must_use]
    pub fn new(
        store: Store<EcrRegistry>,
        keys: AccessKeys,
        options: SessionOptions,
        allow_endpoint_override: bool,
    ) -> Self {
        Self { store, keys, options, allow_endpoint_override, sessions: Mutex::default(), rounds: Mutex::default() }
    }

    /// The registry of that name.
    ///
    /// # Errors
    /// Why it can't be worked with just now.
    pub async fn resolve(&self, name: &str) -> Result<Registry, Problem> {
        let object = self.object(name)?;
        let region = parse_region(&object.spec)?;
        let known = self.session(&object.spec, object.spec.identity.as_ref(), &region).await?;
        let caller = known.caller().await.map_err(|error| unusable(name, &error))?;
        let account = check_account(&object, &caller)?;
        Ok(Registry {
            name: name.to_owned(),
            region,
            account,
            manager: known.session.clone(),
            suspended: is_suspended(&*object),
            caller_arn: caller.arn,
            spec: object.spec.clone(),
        })
    }

    /// What `registry` offers to pull secrets, and who mints.
    ///
    /// # Errors
    /// Where it offers nothing, and what would make it.
    pub async fn offer(&self, registry: &Registry) -> Result<Offer, Problem> {
        let pull = registry.spec.pull.clone().unwrap_or_default();
        if pull.scope_tokens == ScopeTokens::Required {
            return Err(Problem::new(
                Reason::NotImplemented,
                format!(
                    "EcrRegistry {}: spec.pull.scopeTokens Required is not built in this version; with Never, tokens may do what the identity may: give spec.pull.identity a role that can only pull",
                    registry.name
                ),
            ));
        }
        let invalid = |error: crate::core::names::NameError| {
            Problem::new(Reason::Invalid, format!("EcrRegistry {}: spec.pull: {error}", registry.name))
        };
        let accounts = pull
            .accounts
            .iter()
            .flatten()
            .map(|text| AccountId::parse(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid)?;
        let regions = pull
            .regions
            .iter()
            .flatten()
            .map(|text| Region::parse(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid)?;
        let known = self.puller(registry, &registry.region).await?;
        Ok(Offer {
            registry: registry.name.clone(),
            accounts: first(registry.account.clone(), accounts),
            regions: first(registry.region.clone(), regions),
            identity: known.id.clone(),
            scoped: false,
        })
    }

    /// The session that mints the token `key`, one of those that `registry` offered.
    ///
    /// # Errors
    /// Where the identity changed meanwhile.
    pub async fn minter(&self, registry: &Registry, key: &TokenKey) -> Result<Arc<Session>, Problem> {
        let known = self.puller(registry, &key.region).await?;
        if known.id != key.identity {
            return Err(Problem::new(
                Reason::Transient,
                format!("EcrRegistry {}: the identity just changed", registry.name),
            ));
        }
        Ok(known.session.clone())
    }

    /// The ARN of whoever mints; its account must be the registry's.
    ///
    /// # Errors
    /// Why it can't be told.
    pub async fn pull_caller(&self, registry: &Registry) -> Result<String, Problem> {
        let known = self.puller(registry, &registry.region).await?;
        known.caller().await.map(|caller| caller.arn).map_err(|error| unusable(&registry.name, &error))
    }

    /// How often its repositories are looked at where nothing changes.
    #[must_use]
    pub fn drift_interval(&self, name: &str) -> Duration {
        let declared = self.store.get(&ObjectRef::new(name)).and_then(|object| object.spec.drift_interval.clone());
        let parsed =
            declared.and_then(|text| text.parse::<SignedDuration>().ok()).and_then(|interval| interval.try_into().ok());
        parsed.unwrap_or(DRIFT_INTERVAL)
    }

    /// How often each of its repositories is checked; `None`: never.
    #[must_use]
    pub fn check_every(&self, name: &str) -> Option<Duration> {
        let rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        rounds
            .get(name)
            .filter(|round| round.counted)
            .map_or_else(|| Some(self.drift_interval(name)), |round| round.every)
    }

    /// Sets it.
    pub fn set_check_every(&self, name: &str, every: Option<Duration>) {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let round = rounds.entry(name.to_owned()).or_default();
        (round.every, round.counted) = (every, true);
    }

    /// How the registry's own configuration scans, if it decides.
    #[must_use]
    pub fn scanning(&self, name: &str) -> Option<String> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).get(name).and_then(|round| round.scanning.clone())
    }

    /// Sets it.
    pub fn set_scanning(&self, name: &str, how: Option<String>) {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().scanning = how;
    }

    /// Whether it is time for a snapshot of its repositories; if so, the next is an `interval` later.
    pub fn snapshot_due(&self, name: &str, interval: Duration, now: Timestamp) -> bool {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let round = rounds.entry(name.to_owned()).or_default();
        let later = now.saturating_add(SignedDuration::try_from(interval).unwrap_or_default()).ok();
        // Further away than an interval: it was made shorter.
        let due = round.next_snapshot.is_none_or(|next| next <= now || Some(next) > later);
        if due {
            round.next_snapshot = later;
        }
        due
    }

    /// The snapshot couldn't be taken: the next try needn't wait for the whole interval.
    pub fn snapshot_failed(&self, name: &str) {
        let soon = Timestamp::now().saturating_add(SignedDuration::from_mins(1)).ok();
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().next_snapshot =
            soon;
    }

    async fn puller(&self, registry: &Registry, region: &Region) -> Result<Arc<Known>, Problem> {
        let own = registry.spec.pull.as_ref().and_then(|pull| pull.identity.as_ref());
        self.session(&registry.spec, own.or(registry.spec.identity.as_ref()), region).await
    }

    fn object(&self, name: &str) -> Result<Arc<EcrRegistry>, Problem> {
        self.store.get(&ObjectRef::new(name)).ok_or_else(|| {
            Problem::new(
                Reason::RegistryNotFound,
                format!("EcrRegistry {name} doesn't exist; create it, or name another in spec.registryRef"),
            )
        })
    }

    async fn session(
        &self,
        spec: &EcrRegistrySpec,
        identity: Option<&Identity>,
        region: &Region,
    ) -> Result<Arc<Known>, Problem> {
        let endpoint = self.endpoint(spec)?;
        let (version, credentials) = self.credentials(identity).await?;
        let id = fingerprint(&[&version, &format!("{endpoint:?}")]);
        let key = (id.clone(), region.clone());
        if let Some(known) = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let session = Arc::new(Session::new(&credentials, region, &endpoint, &self.options).await);
        let known = Arc::new(Known { id, session, caller: tokio::sync::Mutex::default() });
        // Another task may have been as quick: whoever was first is kept.
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(sessions.entry(key).or_insert(known).clone())
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

    /// Credentials, and a name for this version of them.
    async fn credentials(&self, identity: Option<&Identity>) -> Result<(String, Credentials), Problem> {
        let not_yet = |what: &str| {
            Problem::new(
                Reason::NotImplemented,
                format!("identity.{what} is not built in this version; use ambient or accessKey"),
            )
        };
        match identity {
            Some(Identity { assume_role: Some(_), .. }) => Err(not_yet("assumeRole")),
            Some(Identity { web_identity: Some(_), .. }) => Err(not_yet("webIdentity")),
            Some(Identity { access_key: Some(named), .. }) => {
                let (version, key) = self.keys.get(&named.secret_name).await?;
                Ok((format!("accessKey/{}/{version}", named.secret_name), Credentials::AccessKey(key)))
            }
            _ => Ok(("ambient".to_owned(), Credentials::Ambient)),
        }
    }
}

impl Known {
    /// Asked once; after a failure not before its back-off has passed.
    async fn caller(&self) -> Result<Caller, AwsError> {
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

fn parse_region(spec: &EcrRegistrySpec) -> Result<Region, Problem> {
    Region::parse(&spec.region).map_err(|error| Problem::new(Reason::Invalid, format!("spec.region: {error}")))
}

/// The account is pinned: by the spec, else by what was first found.
fn check_account(object: &EcrRegistry, caller: &Caller) -> Result<AccountId, Problem> {
    let pinned = object.spec.account_id.as_ref().or_else(|| object.status.as_ref()?.account_id.as_ref());
    match pinned {
        Some(pinned) if pinned != caller.account.as_str() => Err(Problem::new(
            Reason::AccountMismatch,
            format!(
                "the identity {} is of account {}, this registry is account {pinned}; nothing is read or written until the identity is of that account again (another account needs an EcrRegistry of its own)",
                caller.arn, caller.account
            ),
        )),
        _ => Ok(caller.account.clone()),
    }
}

fn unusable(name: &str, error: &AwsError) -> Problem {
    let problem = error.problem("*");
    Problem::new(problem.reason, format!("EcrRegistry {name}: {}", problem.message))
}

fn first<T: PartialEq>(own: T, others: Vec<T>) -> Vec<T> {
    let others = others.into_iter().filter(|other| *other != own).collect::<Vec<_>>();
    std::iter::once(own).chain(others).collect()
}
