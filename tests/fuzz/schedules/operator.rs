//! An operator whose cache lags: each pass is a row of requests, decided by the operator's own functions.

use std::collections::BTreeMap;

use ecr_operator::api::{AdoptionPolicy, DeletionPolicy};
use ecr_operator::core::ownership::{Claim, Owner, Ownership, ownership};
use ecr_operator::core::repository::{Desired, Doomed, Guard, Observed, Plan, Reading, Step, deletes, plan};

use super::stage::{Stage, repository_of};
use super::world::{Object, Repository, World, created};

/// Where a pass is: each is one request that is about to be sent.
#[derive(Debug, Clone)]
pub(super) enum At {
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

pub(super) struct Pass {
    pub(super) object: Object,
    pub(super) desired: Option<Desired>,
    pub(super) at: At,
    pub(super) observed: Option<Observed>,
    pub(super) plan: Plan,
    pub(super) created: bool,
}

#[derive(Default)]
pub(super) struct Operator {
    pub(super) cache: BTreeMap<&'static str, Object>,
    pub(super) passes: BTreeMap<&'static str, Pass>,
    pub(super) deleted: Vec<u32>,
}

impl World<'_> {
    pub(super) fn operator_goes_on(&mut self, name: &'static str) {
        let Some(mut pass) = self.operator.passes.remove(name) else {
            if let Some(object) = self.operator.cache.get(name).cloned() {
                let begun = self.begin(name, object);
                self.operator.passes.extend(begun.map(|pass| (name, pass)));
            }
            return;
        };
        let fate = if self.unquiet { self.dice.below(12) } else { 11 };
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

    pub(super) fn begin(&self, name: &str, object: Object) -> Option<Pass> {
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

    pub(super) fn planned(&self, pass: &Pass) -> Plan {
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
    pub(super) fn request(&mut self, name: &'static str, pass: &mut Pass) -> Option<At> {
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
                let known = &pass.object;
                let is_known =
                    |live: &&Object| same(live, known) && !live.deleting && live.finalizer == known.finalizer;
                self.objects.get(name).filter(is_known)?;
                Some(*then)
            }
            At::Observe => {
                pass.observed = self.repositories.get(repository_of(name)).map(Repository::observed);
                pass.plan = self.planned(pass);
                let takes = pass.plan.steps.iter().any(Step::is_gate);
                match &pass.observed {
                    Some(_) if pass.plan.blocked.is_some() => Some(At::Status),
                    Some(_) if !takes => Some(At::Step(0)),
                    _ => Some(At::StillLives { then: Box::new(At::Step(0)) }),
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
    pub(super) fn may_delete(&self, name: &str, pass: &Pass) {
        let live = self.objects.get(name).expect("a finalizer keeps it");
        assert!(live.uid == pass.object.uid && live.deleting && live.finalizer, "deleted for another object");
    }

    pub(super) fn step(&mut self, name: &'static str, pass: &mut Pass, number: usize) -> Option<At> {
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
}
