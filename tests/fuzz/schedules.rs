//! The decisions about a repository in a world of their own: an API server, ECR, an operator whose cache lags and that dies,
//! users and others who write what they like, answers that get lost; each request a moment of its own, in random order.
//! At every moment nothing is done that mustn't be, and once all is quiet everything is as declared.
//!
//! `SCHEDULES=100000` explores so many (5,000 unless said); `SCHEDULE=17` replays one and tells what happens.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ecr_operator::api::{AdoptionPolicy, Allow, DeletionPolicy, EcrRegistrySpec, EcrRepositorySpec};
use ecr_operator::core::access::Access;
use ecr_operator::core::names::{AccountId, Region};
use ecr_operator::core::ownership::{Claim, Owner, Ownership, Tags, ownership};
use ecr_operator::core::repository::{
    Context, Core, Creation, Desired, Doomed, Encryption, Guard, Mutability, Observed, Plan, Reading, Step, deletes,
    plan,
};
use ecr_operator::core::selector::NamespaceView;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

/// Two objects want one repository, the third another.
const NAMES: [(&str, &str); 3] = [("one", "shared"), ("two", "shared"), ("three", "alone")];
/// Moments with faults, and then at most so many without.
const UNQUIET: u32 = 60;
const QUIET: u32 = 400;

/// `splitmix64`.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(sides)).unwrap()
    }

    fn one_in(&mut self, sides: u32) -> bool {
        self.roll(sides) == 0
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Object {
    uid: u32,
    version: u32,
    generation: u32,
    spec: usize,
    deleting: bool,
    finalizer: bool,
    /// From the status: what it holds, and the tags that it set.
    held: Option<Timestamp>,
    managed_tags: Vec<String>,
    known_to_exist: bool,
}

#[derive(Debug, Clone)]
struct Repository {
    core: Core,
    tags: Tags,
    lifecycle: Reading<ecr_operator::core::lifecycle::LifecycleDocument>,
    policy: Reading<ecr_operator::core::policy::PolicyDocument>,
    images: bool,
}

/// Where a pass is: each is one request that is about to be sent.
#[derive(Debug, Clone)]
enum At {
    Finalizer { creates: bool },
    StillLives { then: Box<At> },
    Observe,
    Step(usize),
    Status,
    DeletionIsLive,
    DeletionTags,
    Delete { force: bool },
    Release,
}

struct Pass {
    object: Object,
    desired: Option<Desired>,
    at: At,
    observed: Option<Observed>,
    plan: Plan,
    created: bool,
}

#[derive(Default)]
struct Operator {
    cache: BTreeMap<&'static str, Object>,
    passes: BTreeMap<&'static str, Pass>,
    deleted: Vec<u32>,
}

struct World<'a> {
    stage: &'a Stage,
    dice: Dice,
    objects: BTreeMap<&'static str, Object>,
    repositories: BTreeMap<&'static str, Repository>,
    operator: Operator,
    now: i64,
    versions: u32,
    /// The last spec of each UID that ever was.
    last_spec: BTreeMap<u32, usize>,
    unquiet: bool,
    story: String,
}

/// What is the same in all schedules.
struct Stage {
    registry: EcrRegistrySpec,
    access: Access,
    account: AccountId,
    region: Region,
    specs: Vec<EcrRepositorySpec>,
}

impl Stage {
    fn new() -> Self {
        let allow: Vec<Allow> = serde_json::from_value(
            json!([{"namespaces": {}, "manage": ["*"], "maxAdoption": "TakeOver", "maxDeletion": "DeleteWithImages"}]),
        )
        .unwrap();
        let rule = json!({"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 3}, "action": {"type": "expire"}});
        let aspects = [
            json!({}),
            json!({"imageTagMutability": "IMMUTABLE", "tags": {"team": "a"}}),
            json!({"imageTagMutability": "MUTABLE", "lifecyclePolicy": {"rules": [rule]}}),
            json!({"lifecyclePolicy": {"rules": []}, "tags": {}, "repositoryPolicy": {"grants": []}}),
            json!({"imageScanningConfiguration": {"scanOnPush": true}, "repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]}}),
        ];
        let mut specs = Vec::new();
        for aspect in &aspects {
            for deletion in ["Retain", "Delete", "DeleteWithImages"] {
                for adoption in ["Deny", "Adopt", "TakeOver"] {
                    let mut spec = aspect.clone();
                    spec["deletionPolicy"] = json!(deletion);
                    spec["adoptionPolicy"] = json!(adoption);
                    specs.push(serde_json::from_value(spec).unwrap());
                }
            }
        }
        Self {
            registry: serde_json::from_value(json!({"region": "eu-west-1"})).unwrap(),
            access: Access::of(&allow, NamespaceView { name: "team", labels: &[].into() }),
            account: AccountId::parse("123456789012").unwrap(),
            region: Region::parse("eu-west-1").unwrap(),
            specs,
        }
    }

    fn owner(name: &str, uid: u32) -> Owner {
        Owner { id: "cluster".into(), namespace: "team".into(), name: name.into(), uid: uid.to_string() }
    }

    fn parse<T>(&self, name: &str, object: &Object, parse: impl Fn(&EcrRepositorySpec, Context<'_>) -> T) -> T {
        let owner = Self::owner(name, object.uid);
        let mut spec = self.specs[object.spec].clone();
        spec.name = Some(repository_of(name).to_owned());
        let Self { registry, access, account, region, .. } = self;
        parse(&spec, Context { registry, registry_name: "default", account, region, access, owner: &owner })
    }

    fn desired(&self, name: &str, object: &Object) -> Desired {
        self.parse(name, object, |spec, context| Desired::parse(spec, context).unwrap())
    }
}

fn repository_of(name: &str) -> &'static str {
    NAMES.iter().find(|(object, _)| *object == name).unwrap().1
}

impl World<'_> {
    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        writeln!(self.story, "{what}").unwrap();
    }

    fn pick(&mut self) -> &'static str {
        NAMES[self.dice.roll(3) as usize].0
    }

    fn time(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(self.now)
    }

    fn moment(&mut self) {
        self.now += 1;
        let name = self.pick();
        match self.dice.roll(if self.unquiet { 24 } else { 12 }) {
            0..=3 => self.sync(name),
            12..=16 => self.user(name),
            17..=19 => self.others(repository_of(name)),
            20 => {
                self.tell(format_args!("the operator dies"));
                // A new one lists what is there now.
                self.operator = Operator { cache: self.objects.clone(), ..Operator::default() };
            }
            _ => self.operator_goes_on(name),
        }
    }

    fn sync(&mut self, name: &'static str) {
        match self.objects.get(name) {
            Some(object) => drop(self.operator.cache.insert(name, object.clone())),
            None => drop(self.operator.cache.remove(name)),
        }
    }

    fn user(&mut self, name: &'static str) {
        let spec = self.dice.roll(u32::try_from(self.stage.specs.len()).unwrap()) as usize;
        self.versions += 1;
        let version = self.versions;
        let deletes = self.dice.one_in(3);
        match self.objects.get_mut(name) {
            None => {
                let (held, managed_tags) = (None, Vec::new());
                let object = Object {
                    uid: version,
                    version,
                    generation: 1,
                    spec,
                    deleting: false,
                    finalizer: false,
                    held,
                    managed_tags,
                    known_to_exist: false,
                };
                self.last_spec.insert(version, spec);
                self.objects.insert(name, object);
                self.tell(format_args!("user makes {name} with spec {spec}, UID {version}"));
            }
            Some(object) if deletes && !object.deleting => {
                object.deleting = true;
                object.version = version;
                object.generation += 1;
                if !object.finalizer {
                    // Nobody had the time to see what its spec says of the end.
                    self.last_spec.insert(object.uid, 0);
                    self.objects.remove(name);
                }
                self.tell(format_args!("user deletes {name}"));
            }
            Some(object) => {
                object.spec = spec;
                object.version = version;
                object.generation += 1;
                self.last_spec.insert(object.uid, spec);
                self.tell(format_args!("user changes {name} to spec {spec}"));
            }
        }
    }

    fn others(&mut self, repository: &'static str) {
        let what = self.dice.roll(6);
        let now = self.time();
        self.tell(format_args!("others do {what} to {repository}"));
        match (what, self.repositories.get_mut(repository)) {
            (0, Some(_)) => drop(self.repositories.remove(repository)),
            (1, None) => drop(self.repositories.insert(repository, plain(now))),
            (2, Some(there)) => there.tags.clear(),
            (3, Some(there)) => there.core.mutability = Mutability::new("MUTABLE", vec![]),
            (4, Some(there)) => there.images = !there.images,
            (5, Some(there)) => {
                let foreign = Owner { id: "elsewhere".into(), ..Stage::owner("x", 0) };
                there.tags.extend(foreign.tags());
            }
            _ => {}
        }
    }

    fn operator_goes_on(&mut self, name: &'static str) {
        let Some(mut pass) = self.operator.passes.remove(name) else {
            if let Some(object) = self.operator.cache.get(name).cloned() {
                let begun = self.begin(name, object);
                self.operator.passes.extend(begun.map(|pass| (name, pass)));
            }
            return;
        };
        let fate = if self.unquiet { self.dice.roll(12) } else { 11 };
        if fate == 0 {
            return self.tell(format_args!("{name}: {:?} fails", pass.at));
        }
        self.tell(format_args!("{name}: {:?}", pass.at));
        let next = self.request(name, &mut pass);
        if fate == 1 {
            return self.tell(format_args!("{name}: the answer is lost"));
        }
        if let Some(at) = next {
            pass.at = at;
            self.operator.passes.insert(name, pass);
        }
    }

    fn begin(&self, name: &str, object: Object) -> Option<Pass> {
        let pass =
            |object, desired, at| Pass { object, desired, at, observed: None, plan: Plan::default(), created: false };
        if object.deleting {
            let doomed = self.stage.parse(name, &object, |spec, context| Doomed::parse(spec, context).unwrap());
            let at = if deletes(doomed.deletion) { At::DeletionIsLive } else { At::Release };
            return object.finalizer.then(|| pass(object, None, at));
        }
        let desired = self.stage.desired(name, &object);
        let creates = object.held.is_none() && desired.adoption == AdoptionPolicy::Deny && !object.known_to_exist;
        let at = if object.finalizer != deletes(desired.deletion) {
            At::Finalizer { creates }
        } else if creates {
            At::StillLives { then: Box::new(At::Step(0)) }
        } else {
            At::Observe
        };
        let mut pass = pass(object, Some(desired), at);
        if creates {
            pass.plan = self.planned(&pass);
        }
        Some(pass)
    }

    fn planned(&self, pass: &Pass) -> Plan {
        let desired = pass.desired.as_ref().unwrap();
        let claim = Claim { owner: desired.owner.clone(), held_since: pass.object.held, take_over_from: vec![] };
        let found = pass.observed.as_ref();
        let seen = found.map(|there| ownership(&there.tags, there.core.found().map(|core| core.created_at), &claim));
        // Whether a sibling lives is asked of the API server.
        let seen = match seen {
            Some(Ownership::Sibling(owner)) if !self.objects.contains_key(owner.name.as_str()) => Ownership::Nobody,
            Some(seen) => seen,
            None => Ownership::Nobody,
        };
        let guard = Guard {
            ownership: seen,
            managed_tags: &pass.object.managed_tags,
            reclaims: 0,
            registry_scans: false,
            policy_is_ours: false,
        };
        plan(desired, found, &guard)
    }

    /// Does what the pass asks for; what comes next, or `None` where the pass ends.
    fn request(&mut self, name: &'static str, pass: &mut Pass) -> Option<At> {
        let same = |live: &Object, known: &Object| live.uid == known.uid;
        match pass.at.clone() {
            At::Finalizer { creates } => {
                self.versions += 1;
                let live = self.objects.get_mut(name).filter(|live| live.version == pass.object.version)?;
                if live.deleting {
                    return None;
                }
                live.finalizer = !live.finalizer;
                live.version = self.versions;
                pass.object = live.clone();
                Some(if creates { At::Step(0) } else { At::Observe })
            }
            At::StillLives { then } => {
                self.objects.get(name).filter(|live| same(live, &pass.object) && !live.deleting)?;
                Some(*then)
            }
            At::Observe => {
                pass.observed = self.repositories.get(repository_of(name)).map(Repository::observed);
                pass.plan = self.planned(pass);
                match &pass.observed {
                    None => Some(At::StillLives { then: Box::new(At::Step(0)) }),
                    Some(_) if pass.plan.blocked.is_some() => Some(At::Status),
                    Some(_) => Some(At::Step(0)),
                }
            }
            At::Step(number) => self.step(name, pass, number),
            At::Status => {
                let desired = pass.desired.as_ref()?;
                let core = pass.observed.as_ref().and_then(|there| there.core.found());
                let holds = pass.plan.blocked.is_none() && core.is_some();
                self.versions += 1;
                let live = self.objects.get_mut(name).filter(|live| same(live, &pass.object))?;
                let known_to_exist = pass.plan.blocked.is_some();
                let held = if holds { core.map(|core| core.created_at) } else { live.held };
                let managed_tags =
                    if holds { desired.tags.keys().cloned().collect() } else { live.managed_tags.clone() };
                let status = (held, managed_tags.clone(), known_to_exist);
                if status != (live.held, live.managed_tags.clone(), live.known_to_exist) {
                    (live.held, live.managed_tags, live.known_to_exist) = (held, managed_tags, known_to_exist);
                    live.version = self.versions;
                }
                None
            }
            At::DeletionIsLive => {
                let is_so = |live: &&Object| {
                    live.deleting && same(live, &pass.object) && live.generation == pass.object.generation
                };
                self.objects.get(name).filter(is_so)?;
                Some(if self.operator.deleted.contains(&pass.object.uid) { At::Release } else { At::DeletionTags })
            }
            At::DeletionTags => {
                let Some(there) = self.repositories.get(repository_of(name)) else { return Some(At::Release) };
                let me = Stage::owner(name, pass.object.uid);
                if !Owner::read(&there.tags).is_some_and(|owner| owner.id == me.id && owner.uid == me.uid) {
                    return Some(At::Release);
                }
                let doomed =
                    self.stage.parse(name, &pass.object, |spec, context| Doomed::parse(spec, context).unwrap());
                Some(At::Delete { force: doomed.deletion == DeletionPolicy::DeleteWithImages })
            }
            At::Delete { force } => {
                let there = self.repositories.get(repository_of(name))?;
                if there.images && !force {
                    return None;
                }
                self.may_delete(name, pass);
                self.repositories.remove(repository_of(name));
                self.operator.deleted.push(pass.object.uid);
                Some(At::Release)
            }
            At::Release => {
                let live = self.objects.get(name).filter(|live| live.version == pass.object.version)?;
                assert!(live.deleting);
                self.objects.remove(name);
                None
            }
        }
    }

    /// P5: only for the object that goes, which is the one in the cache.
    fn may_delete(&self, name: &str, pass: &Pass) {
        let live = self.objects.get(name).expect("a finalizer keeps it");
        assert!(live.uid == pass.object.uid && live.deleting && live.finalizer, "deleted for another object");
    }

    fn step(&mut self, name: &'static str, pass: &mut Pass, number: usize) -> Option<At> {
        let Some(step) = pass.plan.steps.get(number).cloned() else { return Some(At::Status) };
        let repository = repository_of(name);
        let desired = pass.desired.as_ref()?;
        if let Step::Create(creation) = &step {
            if self.repositories.contains_key(repository) {
                // ECR says so: looked at, and not taken for granted.
                return if pass.created {
                    None
                } else {
                    pass.created = true;
                    Some(At::Observe)
                };
            }
            // P4: never before the finalizer is durable where the repository is to go with its object.
            if deletes(desired.deletion) {
                let durable = self.objects.get(name).is_some_and(|live| {
                    live.uid == pass.object.uid && (live.finalizer || !deletes(self.stage.desired(name, live).deletion))
                });
                assert!(durable, "created before the finalizer was durable, or after it was gone");
            }
            let made = created(creation, self.time());
            pass.observed = Some(made.observed());
            self.repositories.insert(repository, made);
            return Some(At::Step(number + 1));
        }
        // P6: what is changed is ours, or was asked to be taken, as it was when it was looked at.
        let seen = pass.observed.as_ref().unwrap();
        let mine = Owner::read(&seen.tags).is_some_and(|owner| owner.id == "cluster" && owner.name == name);
        let stripped =
            Owner::read(&seen.tags).is_none() && pass.object.held == seen.core.found().map(|core| core.created_at);
        assert!(mine || stripped || desired.adoption != AdoptionPolicy::Deny, "{step:?} changes what isn't ours");
        let there = self.repositories.get_mut(repository)?;
        match step {
            Step::Claim(tags) | Step::TagResource(tags) => there.tags.extend(tags),
            Step::UntagResource(keys) => there.tags.retain(|key, _| !keys.contains(key)),
            Step::PutImageTagMutability(mutability) => there.core.mutability = mutability,
            Step::PutImageScanningConfiguration(on) => there.core.scan_on_push = on,
            Step::PutLifecyclePolicy { document, .. } => there.lifecycle = Reading::Found(document),
            Step::DeleteLifecyclePolicy { .. } => there.lifecycle = Reading::Absent,
            Step::SetRepositoryPolicy { document, .. } => there.policy = Reading::Found(document),
            Step::DeleteRepositoryPolicy { .. } => there.policy = Reading::Absent,
            Step::Create(_) => {}
        }
        Some(At::Step(number + 1))
    }

    /// P1, P2, P4 and P6 at the end: nothing is to be done for anybody, one object has each repository, no orphan is left.
    fn is_settled(&self) -> Result<(), String> {
        for (name, object) in &self.objects {
            if object.deleting {
                let keeps = self.repositories.get(repository_of(name)).is_some_and(|there| there.images);
                if !keeps {
                    return Err(format!("{name} doesn't go"));
                }
                continue;
            }
            let known = self.operator.cache.get(name).into_iter();
            let mut known = known.chain(self.operator.passes.get(name).map(|pass| &pass.object));
            if !known.all(|known| known == object) || !self.operator.cache.contains_key(name) {
                return Err(format!("{name} isn't known as it is"));
            }
            let mut pass = self.begin(name, object.clone()).unwrap();
            pass.observed = self.repositories.get(repository_of(name)).map(Repository::observed);
            let plan = self.planned(&pass);
            if plan.blocked.is_none() && !(plan.steps.is_empty() && object.held.is_some()) {
                return Err(format!("{name} has to do {:?}", plan.steps));
            }
        }
        for (repository, there) in &self.repositories {
            let owner = Owner::read(&there.tags).filter(|owner| owner.id == "cluster");
            let Some(owner) = owner else { continue };
            let uid: u32 = owner.uid.parse().unwrap();
            let lives = self.objects.values().any(|object| object.uid == uid);
            let last = &self.stage.specs[self.last_spec[&uid]];
            if !lives && last.deletion_policy != Some(DeletionPolicy::Retain) {
                return Err(format!("{repository} is the orphan of {}", owner.name));
            }
        }
        Ok(())
    }
}

fn plain(created_at: Timestamp) -> Repository {
    created(&Creation { mutability: None, scan_on_push: None, encryption: None, tags: Tags::new() }, created_at)
}

fn created(creation: &Creation, created_at: Timestamp) -> Repository {
    let core = Core {
        arn: String::new(),
        uri: String::new(),
        registry_id: String::new(),
        created_at,
        mutability: creation.mutability.clone().unwrap_or_else(|| Mutability::new("MUTABLE", vec![])),
        scan_on_push: creation.scan_on_push.unwrap_or(false),
        encryption: Encryption { kind: "AES256".into(), key: None },
    };
    Repository { core, tags: creation.tags.clone(), lifecycle: Reading::Absent, policy: Reading::Absent, images: false }
}

impl Repository {
    fn observed(&self) -> Observed {
        let Self { core, tags, lifecycle, policy, .. } = self.clone();
        Observed { core: Reading::Found(core), tags, lifecycle, policy }
    }
}

/// Plays one schedule; what went wrong, with the story that led there.
fn play(stage: &Stage, seed: u64) -> Result<(), String> {
    let mut world = World {
        stage,
        dice: Dice(seed),
        objects: BTreeMap::new(),
        repositories: BTreeMap::new(),
        operator: Operator::default(),
        now: 0,
        versions: 0,
        last_spec: BTreeMap::new(),
        unquiet: true,
        story: String::new(),
    };
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..UNQUIET {
            world.moment();
        }
        world.unquiet = false;
        for moment in 0..QUIET {
            world.moment();
            if moment % 16 == 0 && world.is_settled().is_ok() {
                return Ok(());
            }
        }
        world.is_settled()
    }));
    let wrong = match played {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(unsettled)) => unsettled,
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()))
            .unwrap_or_default(),
    };
    Err(format!("SCHEDULE={seed}: {wrong}\n{}", world.story))
}

#[test]
fn in_whatever_order_things_happen_nothing_is_lost_and_all_comes_to_rest() {
    let stage = Stage::new();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("SCHEDULE") {
        return play(&stage, seed).unwrap();
    }
    for seed in 0..number("SCHEDULES").unwrap_or(5_000) {
        if let Err(wrong) = play(&stage, seed) {
            panic!("{wrong}");
        }
    }
}
