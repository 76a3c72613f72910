//! The decisions about a repository in a world of their own: an API server, ECR, an operator whose cache lags and that dies,
//! another that takes over while requests of the first are on their way, lists that are old, users and others who write what they like, answers that get lost; each request a moment of its own, in random order.
//! At every moment nothing is done that mustn't be, and once all is quiet everything is as declared.
//!
//! `SCHEDULES=100000` explores so many (5,000 unless said), others each time; `SCHEDULE=17` replays one and tells what happens.

mod operator;
mod stage;
mod world;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use ecr_operator::api::DeletionPolicy;
use ecr_operator::core::ownership::Owner;

use operator::Operator;
use stage::{Stage, repository_of};
use world::{Repository, World};

use crate::dice::Dice;

/// Moments with faults, and then at most so many without.
const UNQUIET: u32 = 60;
const QUIET: u32 = 400;

/// Plays one schedule; what went wrong, with the story that led there.
fn play(stage: &Stage, seed: u64) -> Result<(), String> {
    let mut world = World {
        stage,
        dice: Dice(seed),
        objects: BTreeMap::new(),
        repositories: BTreeMap::new(),
        operator: Operator::default(),
        standby: BTreeMap::new(),
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

impl World<'_> {
    /// P1, P2, P4 and P6 at the end: nothing is to be done for anybody, one object has each repository, no orphan is left.
    fn is_settled(&self) -> Result<(), String> {
        let mut holders = BTreeMap::new();
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
            let other = if plan.blocked.is_none() { holders.insert(repository_of(name), name) } else { None };
            if let Some(other) = other {
                return Err(format!("{name} and {other} have one repository"));
            }
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

#[test]
#[expect(clippy::print_stdout, reason = "to play them again")]
fn in_whatever_order_things_happen_nothing_is_lost_and_all_comes_to_rest() {
    let stage = Stage::new();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("SCHEDULE") {
        return play(&stage, seed).unwrap();
    }
    let (first, count) = (RandomState::new().hash_one(0) >> 1, number("SCHEDULES").unwrap_or(5_000));
    println!("{count} schedules, from SCHEDULE={first} on");
    for seed in first..first + count {
        if let Err(wrong) = play(&stage, seed) {
            panic!("{wrong}");
        }
    }
}
