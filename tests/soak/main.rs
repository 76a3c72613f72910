//! A long time with many objects, changes and faults: at the end all is as declared, and nothing has piled up.
//!
//! `make soak`; `SOAK_MINUTES`, `SOAK_SEED`, `SOAK_REPOSITORIES` and `SOAK_NAMESPACES` say how.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]
#![expect(clippy::print_stdout, reason = "it reports")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "most of it serves the other end-to-end tests")]
mod support;

mod chaos;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ecr_operator::api::{ClusterEcrPullSecret, EcrPullSecret, EcrRepository};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::runtime::{reflector, watcher};
use local_ecr::Config;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use chaos::{Declared, PULL};
use support::cluster::Cluster;
use support::dice::Dice;
use support::faults::state::logins;
use support::faults::{Process, Scope, Side, Upstream, Wire, cluster};
use support::world::{ACCOUNT, REGION, World};

/// For thousands of objects on a busy machine; one that AWS lost right after its creation waits two minutes.
const PATIENCE: Duration = Duration::from_mins(15);
/// Longer than the shortest time between two comparisons with AWS, so that there is one within.
const REST: Duration = Duration::from_secs(75);
/// Between two changes.
const PACE: Duration = Duration::from_millis(100);
/// Between two changes of what the servers and the network do.
const WEATHER: Duration = Duration::from_secs(1);
const PULL_SECRETS: usize = 3;

fn setting<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Usage {
    resident_kib: usize,
    threads: usize,
    files: usize,
}

impl Usage {
    fn of(operator: &Process) -> Self {
        let process = format!("/proc/{}", operator.pid());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let files = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
        Self { resident_kib: number("VmRSS:"), threads: number("Threads:"), files }
    }
}

struct Soak {
    world: World,
    wire: Wire,
    declared: Declared,
    dice: Dice,
    operator: Process,
    starts: usize,
    peak_kib: usize,
    /// Requests, by side and whether they write; faults, by their names.
    counts: BTreeMap<String, usize>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes its time: make soak"]
async fn after_a_long_time_of_changes_and_faults_all_is_as_declared_and_nothing_has_piled_up() {
    let seed = setting("SOAK_SEED", u64::from(std::process::id()));
    let minutes: f64 = setting("SOAK_MINUTES", 10.0);
    let (repositories, namespaces) = (setting("SOAK_REPOSITORIES", 2_000), setting("SOAK_NAMESPACES", 500));
    println!("SOAK_SEED={seed} SOAK_MINUTES={minutes}: {repositories} repositories, {namespaces} namespaces");
    let mut soak = Soak::begin(cluster().await, Dice(seed), repositories, namespaces).await;
    let first_time = soak.converge().await;
    println!("as declared for the first time after {} s", first_time.as_secs());
    let before = soak.rest().await;

    soak.chaos(Duration::from_secs_f64(minutes * 60.0)).await;
    let again = soak.converge().await;
    println!("as declared {} s after the last fault", again.as_secs());
    let after = soak.rest().await;
    soak.report();
    println!("at rest {before:?}, at rest again {after:?}, peak {} KiB, operators {}", soak.peak_kib, soak.starts);

    let bound = before.resident_kib * 3 / 2 + 16 * 1024;
    assert!(after.resident_kib <= bound, "memory grew: {before:?}, then {after:?}");
    assert!(after.files <= before.files + 16, "open files grew: {before:?}, then {after:?}");
    assert!(after.threads <= before.threads + 4, "threads grew: {before:?}, then {after:?}");
}

impl Soak {
    /// Everything declared, and an operator started.
    async fn begin(cluster: &Cluster, mut dice: Dice, repositories: usize, namespaces: usize) -> Self {
        let kubernetes = Upstream::kubernetes().await;
        let world = World::bare(cluster, "soak", Config::default()).await;
        let wire = Wire::start(&kubernetes, Upstream::aws(&world.ecr.url()), Scope::whole(&world.namespace)).await;
        let suffixes: Vec<_> = (0..namespaces).map(|number| number.to_string()).collect();
        let make = suffixes.iter().map(|suffix| world.selected_namespace(suffix));
        let declared = Declared {
            namespaces: futures::stream::iter(make).buffered(8).collect().await,
            selected: (0..namespaces).collect(),
            specs: (0..repositories).map(|number| (number, chaos::spec(&mut dice))).collect(),
            repositories,
            changes: BTreeMap::new(),
        };
        world.registry_at(&wire.aws_url, json!({"driftInterval": "1m"})).await;
        let operator = wire.operator();
        world.cluster_pull_secret(PULL, json!({})).await;
        for number in 0..PULL_SECRETS {
            world.pull_secret(&format!("own-{number}"), json!({})).await;
        }
        let make = declared.specs.iter().map(|(number, spec)| {
            let (world, namespace, name) = (&world, declared.namespace(*number), chaos::name(*number));
            async move { world.repository_in(namespace, &name, spec.clone()).await }
        });
        futures::stream::iter(make).buffer_unordered(8).collect::<()>().await;
        Self { world, wire, declared, dice, operator, starts: 1, peak_kib: 0, counts: BTreeMap::new() }
    }

    /// Changes and faults; the operator dies now and then, but not in the second half: what piles up has time to.
    async fn chaos(&mut self, span: Duration) {
        let started = Instant::now();
        let (mut pace, mut weather) = (interval(PACE), interval(WEATHER));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        weather.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while started.elapsed() < span {
            tokio::select! {
                _ = pace.tick() => self.declared.change(&self.world, &mut self.dice).await,
                _ = weather.tick() => {
                    assert!(!self.operator.has_ended(), "it ended; it logged:\n{}", self.wire.logged());
                    self.peak_kib = self.peak_kib.max(Usage::of(&self.operator).resident_kib);
                    chaos::weather(&self.wire, &mut self.dice);
                    if started.elapsed() < span / 2 && self.dice.one_in(20) {
                        self.operator.kill();
                        self.wire.revive();
                        self.operator = self.wire.operator();
                        self.starts += 1;
                    }
                }
            }
        }
        self.wire.clear_rules();
        self.wire.let_watches_flow();
    }

    /// Waits until all is as declared; returns how long that took.
    async fn converge(&mut self) -> Duration {
        let started = Instant::now();
        loop {
            self.all_ready().await;
            let wrong = self.wrong().await;
            if wrong.is_empty() {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
            sleep(Duration::from_secs(1)).await;
        }
        self.peak_kib = self.peak_kib.max(Usage::of(&self.operator).resident_kib);
        started.elapsed()
    }

    /// Waits until all objects say so.
    async fn all_ready(&self) {
        let wanted: BTreeSet<_> = self.declared.specs.keys().map(|number| chaos::name(*number)).collect();
        until(Api::<EcrRepository>::all(self.world.client.clone()), |objects| {
            let there: BTreeSet<_> = objects.iter().map(|object| object.name_any()).collect();
            let unready = objects.iter().find(|object| {
                object.metadata.deletion_timestamp.is_some()
                    || !is_ready(&json!(object.status), object.metadata.generation)
            });
            match unready {
                Some(object) => Err(format!("{}: {}", object.name_any(), json!(object.status))),
                None if there == wanted => Ok(()),
                None => Err(format!("not there as declared: {:?}", there.symmetric_difference(&wanted))),
            }
        })
        .await;
        let selected = self.declared.selected.len();
        until(Api::<ClusterEcrPullSecret>::all(self.world.client.clone()), |objects| {
            let ready = |object: &Arc<ClusterEcrPullSecret>| {
                let status = json!(object.status);
                is_ready(&status, object.metadata.generation) && status["secrets"] == format!("{selected}/{selected}")
            };
            let all = objects.len() == 1 && objects.iter().all(ready);
            all.then_some(()).ok_or_else(|| format!("not {selected}: {objects:?}"))
        })
        .await;
        until(Api::<EcrPullSecret>::all(self.world.client.clone()), |objects| {
            let ready = |object: &Arc<EcrPullSecret>| is_ready(&json!(object.status), object.metadata.generation);
            let all = objects.len() == PULL_SECRETS && objects.iter().all(ready);
            all.then_some(()).ok_or_else(|| format!("{objects:?}"))
        })
        .await;
    }

    /// Where AWS and the Secrets aren't as declared.
    async fn wrong(&self) -> Vec<String> {
        let api = Api::<EcrRepository>::all(self.world.client.clone());
        let objects = api.list(&ListParams::default()).await.unwrap().items;
        let uids: HashMap<_, _> = objects.iter().map(|object| (object.name_any(), object.uid().unwrap())).collect();
        let there = self.world.ecr.repositories();
        let names: BTreeSet<_> = there.iter().map(|repository| repository.name.clone()).collect();
        let declared = self.declared.specs.keys().map(|number| chaos::name(*number));
        let missing = declared.filter(|name| !names.contains(name)).map(|name| format!("{name} isn't there"));
        let mut wrong: Vec<_> = missing.collect();
        for repository in &there {
            let number: usize = repository.name.trim_start_matches("app-").parse().unwrap();
            let Some(spec) = self.declared.specs.get(&number) else {
                wrong.push(format!("nobody owns {}", repository.name));
                continue;
            };
            let now = json!({
                "imageTagMutability": repository.description["imageTagMutability"],
                "scanOnPush": repository.description["imageScanningConfiguration"]["scanOnPush"],
                "team": repository.tags.get("team"),
                "days": days(repository.lifecycle_policy.as_ref().unwrap_or(&Value::Null)),
                "uid": repository.tags.get("ecr-operator.dev/uid"),
            });
            let wanted = json!({
                "imageTagMutability": spec["imageTagMutability"],
                "scanOnPush": spec["imageScanningConfiguration"]["scanOnPush"],
                "team": spec["tags"]["team"],
                "days": days(&spec["lifecyclePolicy"]),
                "uid": uids.get(&repository.name),
            });
            if now != wanted {
                wrong.push(format!("{} is {now}, declared {wanted}", repository.name));
            }
        }
        wrong.extend(self.wrong_secrets().await);
        wrong
    }

    async fn wrong_secrets(&self) -> Vec<String> {
        let selected = self.declared.selected.iter().map(|number| &self.declared.namespaces[*number]);
        let mut wanted: BTreeSet<_> = selected.map(|namespace| format!("{namespace}/{PULL}")).collect();
        wanted.extend((0..PULL_SECRETS).map(|number| format!("{}/own-{number}", self.world.namespace)));
        let ours = ListParams::default().labels("ecr-operator.dev/owner-uid");
        let secrets = Api::<Secret>::all(self.world.client.clone()).list(&ours).await.unwrap().items;
        let host = local_ecr::LocalEcr::registry_host(ACCOUNT, REGION);
        let mut wrong = Vec::new();
        for secret in secrets {
            let name = format!("{}/{}", secret.namespace().unwrap(), secret.name_any());
            let logins = logins(&self.world, &json!(secret.data)).await;
            if !wanted.remove(&name) || logins != BTreeMap::from([(host.clone(), "works")]) {
                wrong.push(format!("Secret {name}: {logins:?}"));
            }
        }
        wrong.extend(wanted.into_iter().map(|name| format!("Secret {name} isn't there")));
        wrong
    }

    /// At rest nothing is written anywhere, while AWS is compared once more; but how many there are, the registry tells.
    async fn rest(&mut self) -> Usage {
        self.wire.quiet(Duration::from_millis(400)).await;
        self.count();
        sleep(REST).await;
        let seen = self.wire.seen();
        let writes = seen.iter().filter(|seen| seen.writes).map(|seen| seen.name.as_str());
        let writes: Vec<_> = writes.filter(|name| *name != "PATCH ecrregistries/{ns}/status").collect();
        assert!(writes.is_empty(), "at rest it wrote: {writes:?}");
        let compared = seen.iter().any(|seen| seen.side == Side::Aws && seen.name.starts_with("DescribeRepositories"));
        assert!(compared, "AWS wasn't compared");
        println!("{} requests and no write in {} s at rest", seen.len(), REST.as_secs());
        self.count();
        assert!(!self.operator.has_ended(), "it ended; it logged:\n{}", self.wire.logged());
        Usage::of(&self.operator)
    }

    /// Counts the requests so far, and forgets them.
    fn count(&mut self) {
        for seen in self.wire.seen() {
            let kind = if seen.writes { "writes" } else { "reads" };
            *self.counts.entry(format!("{kind} of {:?}", seen.side)).or_default() += 1;
            if let Some(fault) = &seen.fault {
                *self.counts.entry(format!("fault: {}", chaos::called(seen.side, fault))).or_default() += 1;
            }
        }
        self.wire.begin();
    }

    fn report(&self) {
        println!("changes: {}", self.declared.changes.values().sum::<usize>());
        for (what, count) in &self.declared.changes {
            println!("  {what:32} {count:7}");
        }
        println!("requests of the operator, and faults that struck them:");
        for (what, count) in &self.counts {
            println!("  {what:32} {count:7}");
        }
    }
}

fn days(policy: &Value) -> Value {
    policy["rules"][0]["selection"]["countNumber"].clone()
}

fn is_ready(status: &Value, generation: Option<i64>) -> bool {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| {
        condition["type"] == "Ready"
            && condition["status"] == "True"
            && condition["observedGeneration"] == json!(generation)
    })
}

/// Waits until the objects are as wanted, as a watch shows them.
async fn until<K>(api: Api<K>, wanted: impl Fn(&[Arc<K>]) -> Result<(), String>)
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let mut events = Box::pin(reflector(writer, watcher(api, watcher::Config::default())));
    let mut last = "nothing was listed".to_owned();
    let reached = async {
        while let Some(event) = events.next().await {
            if !matches!(event, Ok(watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_))) {
                continue;
            }
            match wanted(&reader.state()) {
                Ok(()) => return,
                Err(why) => last = why,
            }
        }
    };
    assert!(timeout(PATIENCE, reached).await.is_ok(), "never as declared: {last}");
}
