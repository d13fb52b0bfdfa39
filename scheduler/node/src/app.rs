//! One deployed version of an app, as every part of the node sees it.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use pheromone_core::event::AppId;
use pheromone_core::share::Division;
use pheromone_core::spec::{
    AppSpec, BucketSpec, FunctionSpec, GroupClose, Scope, TriggerKind, TriggerSpec,
};
use pheromone_executor::probe::{ProbeError, Surroundings, Symbol, probe_symbols};
use pheromone_executor::protocol::{
    Arguments, FunctionProgram, InPlace, Program, Steering, Successor, TriggerCode, TriggerProgram,
};
use pheromone_executor::sandbox::{Offers, Sandbox};
use pheromone_manifest::{App, Built, type_word};
use pheromone_shm::message::NO_DEADLINE;

use crate::error::NodeError;
use crate::isolation;
use crate::library::Libraries;
use crate::regions::Regions;

/// First uid that executors are given when the node is root: one per running app version. The
/// range is free of systemd's own (nspawn containers, dynamic users) and of any distribution's.
pub const EXECUTOR_UID_FIRST: u32 = 60578;
/// The last one.
pub const EXECUTOR_UID_LAST: u32 = 61183;

/// One version of one app.
#[derive(Debug)]
pub struct Version {
    /// Its id, never used again.
    pub id: u16,
    /// Counts up with each deployment of the name, from 1.
    pub number: u32,
    /// When it was deployed.
    pub deployed: SystemTime,
    /// What it is.
    pub spec: AppSpec,
    /// How it is divided among the schedulers.
    pub division: Division,
    /// Functions by name.
    pub functions: HashMap<String, u16>,
    /// Buckets by name.
    pub buckets: HashMap<String, u16>,
    /// Names of functions by index.
    pub function_names: Vec<String>,
    /// Names of custom triggers, in the order of their slots.
    trigger_names: Vec<String>,
    /// Its memory.
    pub regions: Regions,
    /// It takes no new sessions.
    leaving: AtomicBool,
    /// Held for as long as anything of the version is there.
    _uid: Option<Uid>,
}

impl Version {
    /// A version, on so many schedulers, whose memory exists and whose executors do not yet.
    pub fn new(
        id: u16,
        number: u32,
        spec: AppSpec,
        schedulers: u8,
        regions: Regions,
        uid: Option<Uid>,
    ) -> Self {
        let index = |names: &[String]| {
            (0..)
                .zip(names)
                .map(|(index, name)| (name.clone(), index))
                .collect()
        };
        let function_names: Vec<String> = spec
            .functions
            .iter()
            .map(|function| function.name.clone())
            .collect();
        let bucket_names: Vec<String> = spec
            .buckets
            .iter()
            .map(|bucket| bucket.name.clone())
            .collect();
        Self {
            id,
            number,
            deployed: SystemTime::now(),
            functions: index(&function_names),
            buckets: index(&bucket_names),
            function_names,
            division: Division::new(&spec, AppId(id), schedulers),
            trigger_names: custom_triggers(&spec),
            spec,
            regions,
            leaving: AtomicBool::new(false),
            _uid: uid,
        }
    }

    /// Bytes of the largest object: one lies in the memory of one scheduler.
    pub fn object_bytes_max(&self) -> u64 {
        let shares = self.division.homes();
        let smallest_bytes = shares
            .filter_map(|home| self.division.share(&self.spec, home))
            .map(|share| share.memory_bytes)
            .min();
        let limit_bytes = self.spec.limits.object_size_bytes;
        smallest_bytes.map_or(limit_bytes, |bytes| limit_bytes.min(bytes))
    }

    /// Its app's name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The custom trigger whose process this slot is for.
    pub fn trigger_of_slot(&self, slot: u16) -> Option<&String> {
        let at = slot.checked_sub(self.spec.pool_slots())?;
        self.trigger_names.get(usize::from(at))
    }

    /// Whether it takes no new sessions.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// It takes no new sessions from here on.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }
}

/// Looks whether each library has what its functions and triggers need, in processes of their own,
/// shut in as the app's executors will be. Where the machine cannot do that, such an app would be
/// refused here; then the looking processes give up what they can. Answers with what is wrong.
pub fn probe(app: &App, built: &Built, offers: &Offers) -> Vec<ProbeError> {
    let can_be_shut_in = isolation::refuse_unprotected(app, offers).is_ok();
    let look = |(program, library): (usize, &PathBuf)| {
        let symbols = symbols_of(app, program);
        let sandbox = match library.parent() {
            Some(libraries) if can_be_shut_in => isolation::sandbox_of(app, libraries),
            _ => Sandbox::default(),
        };
        let surroundings = Surroundings {
            directory: &app.directory,
            sandbox: &sandbox,
        };
        let looked_at = !symbols.is_empty();
        looked_at.then(|| probe_symbols(library, &symbols, &surroundings).err())?
    };
    built
        .libraries
        .iter()
        .enumerate()
        .filter_map(look)
        .collect()
}

/// What the library of an app's program should have.
fn symbols_of(app: &App, program: usize) -> Vec<Symbol<'_>> {
    let functions = app.functions.iter().zip(&app.spec.functions);
    let functions = functions
        .filter(|(code, _)| code.program == program)
        .map(|(code, spec)| Symbol::Function {
            name: &spec.name,
            symbol: &code.symbol,
        });
    let triggers = app.triggers_of(program);
    functions
        .chain(triggers.map(|(name, symbol)| Symbol::Trigger { name, symbol }))
        .collect()
}

fn custom_triggers(spec: &AppSpec) -> Vec<String> {
    let triggers = spec.buckets.iter().flat_map(|bucket| &bucket.triggers);
    triggers
        .filter(|trigger| matches!(trigger.kind, TriggerKind::Custom { .. }))
        .map(|trigger| trigger.name.clone())
        .collect()
}

/// Copies of an app's libraries, each made when it is first asked for.
struct Copies<'a> {
    app: &'a App,
    built: &'a Built,
    libraries: &'a Libraries,
    made: HashMap<usize, String>,
}

impl Copies<'_> {
    /// The copy of a program's library, and where that is. `whose`: for errors.
    fn of(&mut self, program: usize, whose: &str) -> Result<(String, String), NodeError> {
        let origin = self
            .built
            .libraries
            .get(program)
            .ok_or_else(|| NodeError::Spec {
                app: self.app.spec.name.clone(),
                reason: format!("{whose} has no library; build the app first"),
            })?;
        let copy = match self.made.get(&program) {
            Some(copy) => copy.clone(),
            None => {
                let added = self.libraries.add(origin);
                let copy = added.map_err(|source| NodeError::Library {
                    whose: whose.to_owned(),
                    path: origin.clone(),
                    source,
                })?;
                let copy = copy.to_string_lossy().into_owned();
                self.made.insert(program, copy.clone());
                copy
            }
        };
        Ok((copy, origin.to_string_lossy().into_owned()))
    }
}

/// What executors are told of an app, with its libraries copied.
///
/// # Errors
/// A library that is not there or cannot be copied.
pub fn program(
    app: &App,
    built: &Built,
    libraries: &Libraries,
    regions: &Regions,
    uid: Option<u32>,
) -> Result<Program, NodeError> {
    let mut copies = Copies {
        app,
        built,
        libraries,
        made: HashMap::new(),
    };
    let mut functions = Vec::with_capacity(app.functions.len());
    for (code, spec) in app.functions.iter().zip(&app.spec.functions) {
        let whose = format!("function `{}`", spec.name);
        let (library, library_origin) = copies.of(code.program, &whose)?;
        functions.push(FunctionProgram {
            name: spec.name.clone(),
            library,
            library_origin,
            symbol: code.symbol.clone(),
            next: spec.next.clone(),
            calls: spec.calls.clone(),
            sends: spec.sends.clone(),
            config: code.config.clone(),
            env: code.environment.clone(),
            init_timeout_ns: spec.init_timeout_ns,
            arguments: match code.arguments {
                pheromone_manifest::Arguments::Values => Arguments::Values,
                pheromone_manifest::Arguments::KeysAndValues => Arguments::KeysAndValues,
                pheromone_manifest::Arguments::Keys => Arguments::Keys,
            },
        });
    }
    let mut triggers = triggers(&app.spec);
    add_code(app, &mut triggers, &mut copies)?;
    let spec = &app.spec;
    Ok(Program {
        app: spec.name.clone(),
        directory: app.directory.to_string_lossy().into_owned(),
        functions,
        buckets: spec
            .buckets
            .iter()
            .map(|bucket| bucket.name.clone())
            .collect(),
        triggers,
        region_count: regions.count(),
        region_span_bytes: regions.span_bytes(),
        object_size_max_bytes: spec.limits.object_size_bytes,
        log_bytes: spec.limits.log_bytes,
        create_wait_ns: spec.limits.create_wait_ns,
        uid,
        sandbox: isolation::sandbox_of(app, libraries.directory()),
        in_place: in_place(spec),
    })
}

/// What executors may start by themselves.
fn in_place(spec: &AppSpec) -> InPlace {
    let plan = pheromone_core::in_place::InPlace::new(spec);
    let timeout_ns = |(function, may): (&FunctionSpec, bool)| {
        may.then(|| function.timeout_ns.unwrap_or(NO_DEADLINE))
    };
    let functions = spec.functions.iter().zip(plan.functions);
    let successor = |next: pheromone_core::in_place::Successor| Successor {
        function: next.function,
        trigger: next.trigger,
    };
    let buckets = plan.buckets.into_iter();
    InPlace {
        functions: functions.map(timeout_ns).collect(),
        buckets: buckets.map(|next| next.map(successor)).collect(),
    }
}

/// What executors are told of an app's triggers, flattened over the buckets in order.
fn triggers(spec: &AppSpec) -> Vec<TriggerProgram> {
    let of_bucket = |(number, bucket): (u16, &BucketSpec)| {
        let triggers = bucket.triggers.iter();
        let program = move |trigger: &TriggerSpec| TriggerProgram {
            bucket: number,
            name: trigger.name.clone(),
            kind: type_word(&trigger.kind).to_owned(),
            steering: steering(&trigger.kind),
            code: None,
        };
        triggers.map(program).collect::<Vec<_>>()
    };
    (0..).zip(&spec.buckets).flat_map(of_bucket).collect()
}

/// Adds the code of the custom ones.
fn add_code(
    app: &App,
    triggers: &mut [TriggerProgram],
    copies: &mut Copies<'_>,
) -> Result<(), NodeError> {
    for custom in &app.custom_triggers {
        let before = &app.spec.buckets[..usize::from(custom.bucket)];
        let first: usize = before.iter().map(|bucket| bucket.triggers.len()).sum();
        let bucket = &app.spec.buckets[usize::from(custom.bucket)];
        let spec = &bucket.triggers[custom.trigger];
        let TriggerKind::Custom { config, keep, .. } = &spec.kind else {
            continue;
        };
        let whose = format!("trigger `{}` of bucket `{}`", spec.name, bucket.name);
        let (library, library_origin) = copies.of(custom.program, &whose)?;
        triggers[first + custom.trigger].code = Some(TriggerCode {
            library,
            library_origin,
            symbol: custom.symbol.clone(),
            config: config.clone(),
            functions: spec.functions.clone(),
            keep: *keep,
            across: spec.scope == Scope::Bucket,
        });
    }
    Ok(())
}

/// What functions may say to a trigger of this kind.
fn steering(kind: &TriggerKind) -> Steering {
    match kind {
        TriggerKind::DynamicJoin => Steering::Join,
        TriggerKind::Redundant { k_of_n, .. } => Steering::Round {
            fixed: k_of_n.is_some(),
        },
        TriggerKind::DynamicGroup { close, .. } => match close {
            GroupClose::Sources(_) => Steering::Sources { fixed: true },
            GroupClose::SourcesAtRunTime => Steering::Sources { fixed: false },
            GroupClose::After(_) => Steering::None,
        },
        TriggerKind::Immediate
        | TriggerKind::ByName(_)
        | TriggerKind::BySet { .. }
        | TriggerKind::ByBatchSize { .. }
        | TriggerKind::ByTime { .. }
        | TriggerKind::Custom { .. } => Steering::None,
    }
}

/// The uids that are in use.
#[derive(Clone, Debug, Default)]
pub struct Uids {
    used: Arc<Mutex<BTreeSet<u32>>>,
}

impl Uids {
    /// A uid that no running version has.
    ///
    /// # Errors
    /// All are taken.
    pub fn take(&self) -> Result<Uid, NodeError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (EXECUTOR_UID_FIRST..=EXECUTOR_UID_LAST).find(|uid| !used.contains(uid));
        let number = free.ok_or_else(|| NodeError::TooMany {
            reason: format!(
                "{} versions of apps run, each under a uid of its own, and there are no more",
                used.len()
            ),
        })?;
        used.insert(number);
        Ok(Uid {
            number,
            used: Arc::clone(&self.used),
        })
    }
}

/// A uid, given back when dropped.
#[derive(Debug)]
pub struct Uid {
    number: u32,
    used: Arc<Mutex<BTreeSet<u32>>>,
}

impl Uid {
    /// As a number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Uid {
    fn drop(&mut self) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_may_say_what_the_manifest_leaves_open() {
        let group = |close| TriggerKind::DynamicGroup {
            close,
            fire_empty: false,
            order_by_key: false,
        };
        let round = |k_of_n| TriggerKind::Redundant {
            k_of_n,
            cancel_rest: Vec::new(),
            expire_ns: None,
        };
        for (kind, expected) in [
            (TriggerKind::Immediate, Steering::None),
            (TriggerKind::DynamicJoin, Steering::Join),
            (round(None), Steering::Round { fixed: false }),
            (round(Some((2, 3))), Steering::Round { fixed: true }),
            (
                group(GroupClose::SourcesAtRunTime),
                Steering::Sources { fixed: false },
            ),
            (
                group(GroupClose::Sources(3)),
                Steering::Sources { fixed: true },
            ),
            (group(GroupClose::After(0)), Steering::None),
        ] {
            assert_eq!(steering(&kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn no_two_running_versions_share_a_uid_and_freed_ones_come_back() {
        let uids = Uids::default();
        let all: Vec<Uid> = std::iter::from_fn(|| uids.take().ok()).collect();
        let numbers: BTreeSet<u32> = all.iter().map(Uid::number).collect();
        assert_eq!(numbers.len(), all.len());
        assert_eq!(numbers.first(), Some(&EXECUTOR_UID_FIRST));
        assert_eq!(numbers.last(), Some(&EXECUTOR_UID_LAST));
        assert!(matches!(uids.take(), Err(NodeError::TooMany { .. })));
        drop(all);
        assert_eq!(uids.take().unwrap().number(), EXECUTOR_UID_FIRST);
    }
}
