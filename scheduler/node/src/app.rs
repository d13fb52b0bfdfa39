//! One deployed version of an app, as every part of the node sees it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use pheromone_core::spec::{AppSpec, BucketSpec, GroupClose, TriggerKind, TriggerSpec};
use pheromone_executor::protocol::{Arguments, FunctionProgram, Program, Steering, TriggerProgram};
use pheromone_manifest::{App, Built, type_word};

use crate::error::NodeError;
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
    /// Functions by name.
    pub functions: HashMap<String, u16>,
    /// Buckets by name.
    pub buckets: HashMap<String, u16>,
    /// Names of functions by index.
    pub function_names: Vec<String>,
    /// Its memory.
    pub regions: Regions,
    /// It takes no new sessions.
    leaving: AtomicBool,
    /// Held for as long as anything of the version is there.
    _uid: Option<Uid>,
}

impl Version {
    /// A version whose memory exists and whose executors do not yet.
    pub fn new(id: u16, number: u32, spec: AppSpec, regions: Regions, uid: Option<Uid>) -> Self {
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
            spec,
            regions,
            leaving: AtomicBool::new(false),
            _uid: uid,
        }
    }

    /// Its app's name.
    pub fn name(&self) -> &str {
        &self.spec.name
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
    let mut copies: HashMap<usize, String> = HashMap::new();
    let mut functions = Vec::with_capacity(app.functions.len());
    for (index, (code, spec)) in app.functions.iter().zip(&app.spec.functions).enumerate() {
        let origin = built
            .libraries
            .get(code.program)
            .ok_or_else(|| NodeError::Spec {
                app: app.spec.name.clone(),
                reason: format!(
                    "function `{}` has no library; build the app first",
                    spec.name
                ),
            })?;
        let library = match copies.get(&code.program) {
            Some(copy) => copy.clone(),
            None => {
                let copy = libraries.add(origin).map_err(|source| NodeError::Library {
                    function: app.spec.functions[index].name.clone(),
                    path: origin.clone(),
                    source,
                })?;
                let copy = copy.to_string_lossy().into_owned();
                copies.insert(code.program, copy.clone());
                copy
            }
        };
        functions.push(FunctionProgram {
            name: spec.name.clone(),
            library,
            library_origin: origin.to_string_lossy().into_owned(),
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
        triggers: triggers(spec),
        region_count: regions.count(),
        region_span_bytes: regions.span_bytes(),
        object_size_max_bytes: spec.limits.object_size_bytes,
        log_bytes: spec.limits.log_bytes,
        create_wait_ns: spec.limits.create_wait_ns,
        uid,
    })
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
        };
        triggers.map(program).collect::<Vec<_>>()
    };
    (0..).zip(&spec.buckets).flat_map(of_bucket).collect()
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
