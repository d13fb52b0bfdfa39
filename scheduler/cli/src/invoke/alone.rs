//! The app in which one function is alone: it has its code, its config and its names for buckets,
//! functions and the triggers that it may steer; whatever it publishes goes to a recorder, whatever
//! it would start is one.

use std::path::{Path, PathBuf};

use pheromone_core::spec::{
    AtEnd, BucketSpec, FunctionIndex, FunctionSpec, GroupClose, Keep, OnFailure, Pool, Retain,
    Scope, TriggerKind, TriggerSpec,
};
use pheromone_manifest::{App, Arguments, FunctionProgram, Program, Sources};

use super::records::Record;
use crate::exit::Failure;
use crate::run;

/// The helpers' code.
const HELPERS: &str = include_str!("helpers.c");
/// Function that keeps an input until the start.
pub const LOAD: &str = "pheromone-load";
/// Function that publishes the inputs.
pub const START: &str = "pheromone-start";
/// Function that copies what arrives in a bucket.
const RECORD: &str = "pheromone-record";
/// Function that stands for the one that is alone where it would start itself.
const ITSELF: &str = "pheromone-itself";
/// Function that does nothing, for triggers that are there only to be steered.
const IGNORE: &str = "pheromone-ignore";
/// Function that tells of a record.
pub const DESCRIBE: &str = "pheromone-describe";
/// Function that gives a record's payload.
pub const FETCH: &str = "pheromone-fetch";
/// The helpers with their symbols. Those that record share one.
const FUNCTIONS: [(&str, &str); 7] = [
    (LOAD, "pheromone_load"),
    (START, "pheromone_start"),
    (RECORD, "pheromone_record"),
    (ITSELF, "pheromone_record"),
    (IGNORE, "pheromone_ignore"),
    (DESCRIBE, "pheromone_describe"),
    (FETCH, "pheromone_fetch"),
];
/// Where inputs lie when nothing is said of a bucket.
const INPUTS: &str = "pheromone-inputs";
/// The trigger that starts the function.
const TRIGGER: &str = "pheromone-invoke";
/// The trigger that records.
const RECORDING: &str = "pheromone-record";

/// How the inputs reach the function.
#[derive(Debug, PartialEq, Eq)]
pub enum Stage {
    /// As the body of a call.
    Direct {
        /// The body.
        body: Vec<u8>,
    },
    /// As objects of a bucket, all of them at once.
    Bucket {
        /// Which.
        bucket: String,
        /// Keys and payloads, in the order of the inputs.
        inputs: Vec<(String, Vec<u8>)>,
        /// Of each.
        group: String,
        /// What `phr_request` gives.
        request: Option<Vec<u8>>,
    },
}

impl Stage {
    /// A call where nothing more is asked for, else objects of a bucket.
    pub fn new(
        app: &App,
        bucket: &Option<String>,
        keys: &[String],
        group: &str,
        mut bodies: Vec<Vec<u8>>,
        request: Option<Vec<u8>>,
    ) -> Result<Self, Failure> {
        if let Some(name) = bucket
            && app.bucket_index(name).is_none()
        {
            let known = app.spec.buckets.iter().map(|bucket| bucket.name.as_str());
            return Err(run::unknown(app, "bucket", name, known));
        }
        if keys.len() > bodies.len() {
            return Err(Failure::usage(
                "there are more keys than inputs: give an --input or --arg for each",
            ));
        }
        if request.is_some() && !app.spec.keep_request {
            return Err(Failure::usage(format!(
                "phr_request gives nothing in app `{}`: its manifest does not say \
                 `keep_request = true`",
                app.spec.name
            )));
        }
        let is_plain = bucket.is_none() && keys.is_empty() && group.is_empty() && request.is_none();
        if is_plain && bodies.len() <= 1 {
            return Ok(Self::Direct {
                body: bodies.pop().unwrap_or_default(),
            });
        }
        if bodies.is_empty() {
            bodies.push(Vec::new());
        }
        let named = (0..).zip(bodies).map(|(index, body)| {
            let key = keys
                .get(index)
                .cloned()
                .unwrap_or_else(|| format!("input-{index}"));
            (key, body)
        });
        let inputs: Vec<_> = named.collect();
        for (index, (key, _)) in inputs.iter().enumerate() {
            if inputs[..index].iter().any(|(other, _)| other == key) {
                return Err(Failure::usage(format!("two inputs have the key `{key}`")));
            }
        }
        Ok(Self::Bucket {
            bucket: bucket.clone().unwrap_or_else(|| INPUTS.to_owned()),
            inputs,
            group: group.to_owned(),
            request,
        })
    }
}

/// What must be known to read the records.
#[derive(Debug)]
pub struct Alone {
    function: String,
    /// Bucket and keys of what was an input.
    inputs: (String, Vec<String>),
}

impl Alone {
    /// Makes `app` the app in which `function` is alone.
    pub fn derive(app: &mut App, function: FunctionIndex, stage: &Stage) -> Result<Self, Failure> {
        let helpers = write_helpers(&app.directory)?;
        keep_only(app, function, helpers);
        let spec = &mut app.spec;
        spec.entry = None;
        spec.response_required = false;
        spec.session_timeout_ns = None;
        spec.executors = Pool { min: 1, max: 1 };
        spec.limits.waiters = 1;
        let own_count = spec.functions.len();
        spec.functions
            .extend(FUNCTIONS.map(|(name, _)| plain_function(name)));
        let helper = |name: &str| {
            let position = FUNCTIONS
                .iter()
                .position(|(other, _)| *other == name)
                .unwrap_or(0);
            (own_count + position) as FunctionIndex
        };
        let itself = |target: &mut FunctionIndex| {
            if *target == function {
                *target = helper(ITSELF);
            }
        };
        let alone = &mut spec.functions[usize::from(function)];
        alone.next.iter_mut().for_each(itself);
        alone.calls.iter_mut().for_each(itself);
        for bucket in &mut spec.buckets {
            bucket.reruns.clear();
            bucket
                .triggers
                .retain_mut(|own| keep_steerable(own, helper(IGNORE)));
            let recording = trigger(RECORDING, helper(RECORD), TriggerKind::Immediate);
            bucket.triggers.push(recording);
        }
        let name = spec.functions[usize::from(function)].name.clone();
        let mut inputs = (String::new(), Vec::new());
        if let Stage::Bucket {
            bucket,
            inputs: staged,
            ..
        } = stage
        {
            let keys: Vec<String> = staged.iter().map(|(key, _)| key.clone()).collect();
            let trigger = trigger(TRIGGER, function, TriggerKind::BySet { keys: keys.clone() });
            match spec.buckets.iter_mut().find(|own| own.name == *bucket) {
                Some(own) => own.triggers.push(trigger),
                None => spec.buckets.push(inputs_bucket(bucket, trigger)),
            }
            inputs = (bucket.clone(), keys);
        }
        Ok(Self {
            function: name,
            inputs,
        })
    }

    /// Whether a record is of what was put in, not of what came out.
    pub fn is_input(&self, record: &Record) -> bool {
        let (bucket, keys) = &self.inputs;
        record.bucket == bucket.as_bytes()
            && keys
                .iter()
                .any(|key| key.as_bytes() == record.key.as_slice())
    }

    /// Gives the function its own name where it would have started itself.
    pub fn rename(&self, record: &mut Record) {
        if record.function == ITSELF {
            record.function.clone_from(&self.function);
        }
    }
}

/// The helpers' source beside what is built of the app, so that it is compiled once.
fn write_helpers(directory: &Path) -> Result<PathBuf, Failure> {
    let folder = directory.join(".pheromone");
    let path = folder.join("invoke-helpers.c");
    if std::fs::read(&path).is_ok_and(|there| there == HELPERS.as_bytes()) {
        return Ok(path);
    }
    let write = || {
        std::fs::create_dir_all(&folder)?;
        let unfinished = folder.join(format!("invoke-helpers.{}", std::process::id()));
        std::fs::write(&unfinished, HELPERS)?;
        std::fs::rename(&unfinished, &path)
    };
    write().map_err(|error| {
        Failure::usage(format!("cannot write into {}: {error}", folder.display()))
    })?;
    Ok(path)
}

/// Every function but this one becomes a recorder under its own name. Indices stay.
fn keep_only(app: &mut App, function: FunctionIndex, helpers: PathBuf) {
    let own = usize::from(function);
    let program = app.programs.swap_remove(app.functions[own].program);
    app.programs = vec![
        program,
        Program::Sources(Sources {
            files: vec![helpers],
            cflags: Vec::new(),
            include: Vec::new(),
            link: Vec::new(),
        }),
    ];
    app.custom_triggers.clear();
    for (index, code) in app.functions.iter_mut().enumerate() {
        if index == own {
            code.program = 0;
        } else {
            *code = helper_code("pheromone_record");
        }
    }
    app.functions
        .extend(FUNCTIONS.map(|(_, symbol)| helper_code(symbol)));
    for (index, spec) in app.spec.functions.iter_mut().enumerate() {
        if index != own {
            *spec = plain_function(&spec.name);
            continue;
        }
        spec.attempts = 1;
        spec.on_failure = OnFailure::Fail;
        spec.timeout_ns = None;
        spec.serial_by = None;
        spec.durable = false;
    }
}

/// Makes a trigger one that can still be steered, and starts nothing of the app's. False: it is of
/// a type to which functions have nothing to say.
fn keep_steerable(own: &mut TriggerSpec, ignore: FunctionIndex) -> bool {
    let kind = match &own.kind {
        TriggerKind::DynamicJoin => TriggerKind::DynamicJoin,
        TriggerKind::Redundant { k_of_n, .. } => TriggerKind::Redundant {
            k_of_n: *k_of_n,
            cancel_rest: Vec::new(),
            expire_ns: None,
        },
        TriggerKind::DynamicGroup {
            close: GroupClose::Sources(_) | GroupClose::SourcesAtRunTime,
            ..
        } => own.kind.clone(),
        _ => return false,
    };
    *own = trigger(&own.name, ignore, kind);
    true
}

fn helper_code(symbol: &str) -> FunctionProgram {
    FunctionProgram {
        program: 1,
        symbol: symbol.to_owned(),
        config: Vec::new(),
        environment: Vec::new(),
        files: Vec::new(),
        writable: Vec::new(),
        connect: Vec::new(),
        private_memory_bytes: None,
        arguments: Arguments::Values,
    }
}

fn plain_function(name: &str) -> FunctionSpec {
    FunctionSpec {
        name: name.to_owned(),
        next: Vec::new(),
        calls: Vec::new(),
        sends: None,
        timeout_ns: None,
        init_timeout_ns: 60_000_000_000,
        attempts: 1,
        backoff: pheromone_core::spec::Backoff {
            first_ns: 0,
            max_ns: 0,
            jitter: 0.0,
        },
        on_failure: OnFailure::Fail,
        max_concurrency: None,
        priority: 0,
        serial_by: None,
        serial_width: 1,
        durable: false,
    }
}

fn trigger(name: &str, function: FunctionIndex, kind: TriggerKind) -> TriggerSpec {
    TriggerSpec {
        name: name.to_owned(),
        functions: vec![function],
        scope: Scope::Session,
        at_end: AtEnd::Drop,
        skip_ended: false,
        kind,
    }
}

fn inputs_bucket(name: &str, trigger: TriggerSpec) -> BucketSpec {
    BucketSpec {
        name: name.to_owned(),
        durable: false,
        keep: Keep::Session,
        retain: Retain::ForNs(0),
        replace: true,
        triggers: vec![trigger],
        reruns: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
[app]
name = "words"
entry = "split"
keep_request = true
response = "required"
executors = { min = 2, max = 8 }

[functions.split]
library = "/bin/sh"
next = ["split", "count"]
timeout = "5s"

[functions.count]
library = "/bin/ls"

[buckets.parts]
[[buckets.parts.triggers]]
type = "by_set"
function = "count"
keys = ["a", "b"]
[[buckets.parts.triggers]]
name = "all"
type = "dynamic_join"
function = "count"
[[buckets.parts.triggers]]
name = "first"
type = "redundant"
k = 1
n = 2
cancel_rest = ["split"]
function = "count"
"#;

    fn app_in(directory: &Path) -> App {
        pheromone_manifest::parse(MANIFEST, "app.toml", directory)
            .unwrap_or_else(|found| panic!("{found}"))
    }

    fn stage(
        app: &App,
        bucket: Option<&str>,
        keys: &[&str],
        inputs: usize,
    ) -> Result<Stage, Failure> {
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        let bodies = vec![b"x".to_vec(); inputs];
        Stage::new(app, &bucket.map(str::to_owned), &keys, "", bodies, None)
    }

    #[test]
    fn one_input_is_a_call_and_several_are_objects() {
        let app = app_in(Path::new("/"));
        assert_eq!(
            stage(&app, None, &[], 0).unwrap(),
            Stage::Direct { body: Vec::new() }
        );
        assert_eq!(
            stage(&app, None, &[], 1).unwrap(),
            Stage::Direct {
                body: b"x".to_vec()
            }
        );
        let Stage::Bucket { bucket, inputs, .. } = stage(&app, None, &["a"], 2).unwrap() else {
            panic!("two inputs cannot be a call")
        };
        let keys: Vec<&str> = inputs.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!((bucket.as_str(), keys), (INPUTS, vec!["a", "input-1"]));
    }

    #[test]
    fn what_cannot_be_staged_is_wrong_usage() {
        let app = app_in(Path::new("/"));
        for (bucket, keys, inputs) in [
            (Some("nowhere"), &[][..], 1),
            (None, &["a", "b"][..], 1),
            (None, &["a", "a"][..], 2),
        ] {
            let failure = stage(&app, bucket, keys, inputs).expect_err("wrong");
            assert_eq!(failure.status, crate::exit::Status::Usage);
        }
        let mut without = app_in(Path::new("/"));
        without.spec.keep_request = false;
        let request = Some(Vec::new());
        assert!(Stage::new(&without, &None, &[], "", Vec::new(), request).is_err());
    }

    #[test]
    fn the_function_keeps_its_place_and_everything_else_records() {
        let home = tempfile::tempdir().expect("a directory");
        let mut app = app_in(home.path());
        let staged = stage(&app, Some("parts"), &[], 2).expect("staged");
        let alone = Alone::derive(&mut app, 0, &staged).expect("derived");
        assert_eq!(app.spec.validate(), Ok(()));
        assert_eq!(app.spec.unsupported(), Vec::<String>::new());
        assert_eq!(app.spec.functions.len(), app.functions.len());
        assert_eq!(app.spec.functions[0].name, "split");
        assert_eq!(app.programs[0], Program::Library("/bin/sh".into()));
        let next = &app.spec.functions[0].next;
        let symbols: Vec<&str> = next
            .iter()
            .map(|&index| app.functions[usize::from(index)].symbol.as_str())
            .collect();
        assert_eq!(symbols, ["pheromone_record"; 2]);
        let triggers = app.spec.buckets[0].triggers.iter();
        let names: Vec<&str> = triggers.map(|trigger| trigger.name.as_str()).collect();
        assert_eq!(names, ["all", "first", RECORDING, TRIGGER]);
        assert_eq!(app.spec.executors, Pool { min: 1, max: 1 });

        let mut record = Record {
            function: ITSELF.into(),
            bucket: b"parts".to_vec(),
            key: b"input-1".to_vec(),
            ..Record::default()
        };
        assert!(alone.is_input(&record));
        alone.rename(&mut record);
        assert_eq!(record.function, "split");
        record.key = b"part-0".to_vec();
        assert!(!alone.is_input(&record));
    }
}
