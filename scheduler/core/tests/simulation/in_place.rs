//! What executors know of continuation in place: which objects may be gone on from.

use pheromone_core::in_place::InPlace;
use pheromone_core::spec::AppSpec;
use pheromone_shm::message::{NO_TRIGGER, Target};

use crate::rng::Rng;

/// An app's program, as its executors are told it.
#[derive(Clone, Debug)]
pub struct Program(InPlace);

impl Program {
    pub fn new(spec: &AppSpec) -> Self {
        Self(InPlace::new(spec))
    }

    /// The function that a plain object of this sender fires and by which trigger, where its sender
    /// may go on with it.
    pub fn successor(&self, spec: &AppSpec, sender: u16, target: Target) -> Option<(u16, u16)> {
        if !self.0.allows(sender) {
            return None;
        }
        let direct = |function: u16| self.0.allows(function).then_some((function, NO_TRIGGER));
        match target {
            Target::Bucket(bucket) => {
                let next = self.0.buckets[usize::from(bucket)]?;
                Some((next.function, next.trigger))
            }
            Target::Next => match *spec.functions[usize::from(sender)].next {
                [function] => direct(function),
                _ => None,
            },
            Target::Function(function) => direct(function),
        }
    }

    /// Somewhere to send an object from which its sender may go on, if there is any.
    pub fn some_target(&self, rng: &mut Rng, spec: &AppSpec, sender: u16) -> Option<Target> {
        let function = &spec.functions[usize::from(sender)];
        let all: Vec<u16> = (0..spec.buckets.len() as u16).collect();
        let buckets = function.sends.as_ref().unwrap_or(&all);
        let called = function.next.iter().chain(&function.calls);
        let mut targets: Vec<Target> = buckets.iter().map(|&b| Target::Bucket(b)).collect();
        targets.push(Target::Next);
        targets.extend(called.map(|&f| Target::Function(f)));
        targets.retain(|&target| self.successor(spec, sender, target).is_some());
        (!targets.is_empty()).then(|| *rng.pick(&targets))
    }
}
