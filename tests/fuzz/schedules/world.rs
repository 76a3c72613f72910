//! The API server and ECR, and those who write what they like there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ecr_operator::core::ownership::{Owner, Tags};
use ecr_operator::core::repository::{Core, Creation, Encryption, Mutability, Observed, Reading};
use jiff::{SignedDuration, Timestamp};

use super::operator::Operator;
use super::stage::{NAMES, Stage, repository_of};
use crate::dice::Dice;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) uid: u32,
    pub(super) version: u32,
    pub(super) generation: u32,
    pub(super) spec: usize,
    pub(super) deleting: bool,
    pub(super) finalizer: bool,
    /// From the status: what it holds, and the tags that it set.
    pub(super) held: Option<Timestamp>,
    pub(super) managed_tags: Vec<String>,
    pub(super) known_to_exist: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Repository {
    pub(super) core: Core,
    pub(super) tags: Tags,
    pub(super) lifecycle: Reading<ecr_operator::core::lifecycle::LifecycleDocument>,
    pub(super) policy: Reading<ecr_operator::core::policy::PolicyDocument>,
    pub(super) images: bool,
}

pub(super) struct World<'a> {
    pub(super) stage: &'a Stage,
    pub(super) dice: Dice,
    pub(super) objects: BTreeMap<&'static str, Object>,
    pub(super) repositories: BTreeMap<&'static str, Repository>,
    pub(super) operator: Operator,
    /// What the standby's cache shows, which is what an old list shows too.
    pub(super) standby: BTreeMap<&'static str, Object>,
    pub(super) now: i64,
    pub(super) versions: u32,
    /// The last spec of each UID that ever was.
    pub(super) last_spec: BTreeMap<u32, usize>,
    pub(super) unquiet: bool,
    pub(super) story: String,
}

impl World<'_> {
    pub(super) fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        writeln!(self.story, "{what}").unwrap();
    }

    pub(super) fn pick(&mut self) -> &'static str {
        self.dice.of(&NAMES).0
    }

    pub(super) fn time(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(self.now)
    }

    pub(super) fn moment(&mut self) {
        self.now += 1;
        let name = self.pick();
        match self.dice.below(if self.unquiet { 28 } else { 12 }) {
            0..=3 => sync(&mut self.operator.cache, &self.objects, name),
            12..=16 => self.user(name),
            17..=19 => self.others(repository_of(name)),
            20 => {
                // The next one lists what is there, or what an API server that lags behind knows.
                let old = self.dice.one_in(2);
                self.tell(format_args!(
                    "the operator dies, and the next one begins with {} list",
                    if old { "an old" } else { "a new" }
                ));
                let cache = if old { self.standby.clone() } else { self.objects.clone() };
                self.operator = Operator { cache, ..Operator::default() };
            }
            21 => self.standby_leads(),
            22..=24 => sync(&mut self.standby, &self.objects, name),
            _ => self.operator_goes_on(name),
        }
    }

    /// The leader comes to its fence: what it sent may land late, but before the other, whose cache lags too, begins.
    fn standby_leads(&mut self) {
        self.tell(format_args!("the standby leads"));
        let mut late = std::mem::take(&mut self.operator.passes);
        for (name, pass) in &mut late {
            if self.dice.one_in(2) {
                self.tell(format_args!("{name}: {:?} lands late", pass.at));
                self.request(name, pass);
            }
        }
        let cache = std::mem::replace(&mut self.standby, std::mem::take(&mut self.operator.cache));
        self.operator = Operator { cache, ..Operator::default() };
    }

    pub(super) fn user(&mut self, name: &'static str) {
        let spec = self.dice.below(self.stage.specs.len());
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

    pub(super) fn others(&mut self, repository: &'static str) {
        let what = self.dice.below(6);
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
}

/// A watch shows one object as it is now.
fn sync(cache: &mut BTreeMap<&'static str, Object>, objects: &BTreeMap<&'static str, Object>, name: &'static str) {
    match objects.get(name) {
        Some(object) => drop(cache.insert(name, object.clone())),
        None => drop(cache.remove(name)),
    }
}

pub(super) fn plain(created_at: Timestamp) -> Repository {
    created(&Creation { mutability: None, scan_on_push: None, encryption: None, tags: Tags::new() }, created_at)
}

pub(super) fn created(creation: &Creation, created_at: Timestamp) -> Repository {
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
    pub(super) fn observed(&self) -> Observed {
        let Self { core, tags, lifecycle, policy, .. } = self.clone();
        Observed { core: Reading::Found(core), tags, lifecycle, policy }
    }
}
