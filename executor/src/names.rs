//! The app's names, as C strings with their indices: what a function may name, and what it is told.

use std::ffi::{CStr, CString, c_char};

use pheromone_shm::message::{NO_BUCKET, NO_TRIGGER};

use crate::protocol::{Arguments, Program, Steering, TriggerProgram};

/// Most names that an error lists.
const NAMES_LISTED_MAX: usize = 8;

/// All names of one app.
pub struct Names {
    /// The app.
    pub app: CString,
    /// Functions by index.
    pub functions: Vec<Function>,
    buckets: Vec<CString>,
    triggers: Vec<Trigger>,
    functions_sorted: Vec<u16>,
    buckets_sorted: Vec<u16>,
    /// By bucket, then by name.
    triggers_sorted: Vec<u16>,
}

/// What a function is called, and may do.
pub struct Function {
    /// Its name in the manifest.
    pub name: CString,
    /// Where its direct objects go.
    pub next: Vec<u16>,
    /// What it may address beside.
    pub calls: Vec<u16>,
    /// Which buckets it may publish into, by index; `None`: any.
    pub sends: Option<Vec<bool>>,
    /// Sorted by name.
    pub config: Vec<(CString, CString)>,
    /// How the compat header fills `arg_values`.
    pub arguments: Arguments,
}

/// What a trigger is called, and may be told.
struct Trigger {
    name: CString,
    bucket: u16,
    /// Its `type` in the manifest.
    kind: String,
    steering: Steering,
}

/// A program whose names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// A zero byte in a name or value.
    #[error("the name or value {0:?} has a zero byte in it")]
    ZeroByte(String),
    /// An index without a meaning.
    #[error("{whose} names {what} {index}, and there are only {count}")]
    Index {
        /// A function or trigger.
        whose: String,
        /// What is named.
        what: &'static str,
        /// The index.
        index: u16,
        /// How many there are.
        count: usize,
    },
}

fn c_string(text: &str) -> Result<CString, NamesError> {
    CString::new(text).map_err(|_| NamesError::ZeroByte(text.to_owned()))
}

fn sorted(names: &[&CStr]) -> Vec<u16> {
    let mut indices: Vec<u16> = (0..names.len() as u16).collect();
    indices.sort_by_key(|index| names[usize::from(*index)]);
    indices
}

impl Names {
    /// Checks the program's names and indices.
    ///
    /// # Errors
    /// As [`NamesError`] says.
    pub fn new(program: &Program) -> Result<Self, NamesError> {
        let buckets: Vec<CString> = program
            .buckets
            .iter()
            .map(|name| c_string(name))
            .collect::<Result<_, _>>()?;
        let triggers: Vec<Trigger> = program
            .triggers
            .iter()
            .map(|trigger| Trigger::new(trigger, buckets.len()))
            .collect::<Result<_, _>>()?;
        let functions: Vec<Function> = (0..program.functions.len())
            .map(|index| Function::new(program, index))
            .collect::<Result<_, _>>()?;
        let names: Vec<&CStr> = functions.iter().map(|f| f.name.as_c_str()).collect();
        let functions_sorted = sorted(&names);
        let names: Vec<&CStr> = buckets.iter().map(CString::as_c_str).collect();
        let buckets_sorted = sorted(&names);
        let mut triggers_sorted: Vec<u16> = (0..triggers.len() as u16).collect();
        triggers_sorted.sort_by_key(|index| triggers[usize::from(*index)].place());
        let app = c_string(&program.app)?;
        Ok(Self {
            app,
            functions,
            buckets,
            triggers,
            functions_sorted,
            buckets_sorted,
            triggers_sorted,
        })
    }

    /// The bucket of this name.
    pub fn bucket_index(&self, name: &[u8]) -> Option<u16> {
        let name_of = |index: &u16| self.buckets[usize::from(*index)].to_bytes();
        let at = self
            .buckets_sorted
            .binary_search_by(|index| name_of(index).cmp(name))
            .ok()?;
        Some(self.buckets_sorted[at])
    }

    /// The function of this name.
    pub fn function_index(&self, name: &[u8]) -> Option<u16> {
        let name_of = |index: &u16| self.functions[usize::from(*index)].name.to_bytes();
        let at = self
            .functions_sorted
            .binary_search_by(|index| name_of(index).cmp(name))
            .ok()?;
        Some(self.functions_sorted[at])
    }

    /// Its name; "" for [`NO_BUCKET`], `None` for an index without a meaning.
    #[inline(always)]
    pub fn bucket(&self, index: u16) -> Option<*const c_char> {
        if index == NO_BUCKET {
            return Some(c"".as_ptr());
        }
        self.buckets
            .get(usize::from(index))
            .map(|name| name.as_ptr())
    }

    /// The trigger of this name in this bucket.
    pub fn trigger_index(&self, bucket: u16, name: &[u8]) -> Option<u16> {
        let place_of = |index: &u16| self.triggers[usize::from(*index)].place();
        let at = self
            .triggers_sorted
            .binary_search_by(|index| place_of(index).cmp(&(bucket, name)))
            .ok()?;
        Some(self.triggers_sorted[at])
    }

    /// What functions may say to the trigger that [`Names::trigger_index`] gave.
    pub fn steering(&self, trigger: u16) -> Steering {
        self.triggers[usize::from(trigger)].steering
    }

    /// Its name; "" for [`NO_TRIGGER`] and for an index without a meaning.
    pub fn trigger(&self, index: u16) -> *const c_char {
        if index == NO_TRIGGER {
            return c"".as_ptr();
        }
        self.triggers
            .get(usize::from(index))
            .map_or(c"".as_ptr(), |trigger| trigger.name.as_ptr())
    }

    /// For errors: the trigger that [`Names::trigger_index`] gave, with its bucket, and its type.
    pub fn trigger_text(&self, index: u16) -> (String, &str) {
        let trigger = &self.triggers[usize::from(index)];
        let name = trigger.name.to_string_lossy();
        let bucket = self.bucket_text(trigger.bucket);
        let text = format!("trigger `{name}` of bucket `{bucket}`");
        (text, &trigger.kind)
    }

    /// For errors: which triggers a bucket has.
    pub fn trigger_list(&self, bucket: u16) -> String {
        let own = self.triggers.iter().filter(|own| own.bucket == bucket);
        list(own.map(|trigger| trigger.name.as_c_str()))
    }

    /// For errors: which buckets there are.
    pub fn bucket_list(&self) -> String {
        list(self.buckets.iter().map(CString::as_c_str))
    }

    /// For errors: the functions of these indices.
    pub fn function_list(&self, indices: impl IntoIterator<Item = u16>) -> String {
        list(
            indices
                .into_iter()
                .map(|index| self.functions[usize::from(index)].name.as_c_str()),
        )
    }

    /// For errors: a bucket's name.
    pub fn bucket_text(&self, index: u16) -> String {
        self.buckets.get(usize::from(index)).map_or_else(
            || format!("number {index}"),
            |name| name.to_string_lossy().into_owned(),
        )
    }
}

impl Trigger {
    fn new(trigger: &TriggerProgram, buckets: usize) -> Result<Self, NamesError> {
        if usize::from(trigger.bucket) >= buckets {
            return Err(NamesError::Index {
                whose: format!("trigger `{}`", trigger.name),
                what: "bucket",
                index: trigger.bucket,
                count: buckets,
            });
        }
        Ok(Self {
            name: c_string(&trigger.name)?,
            bucket: trigger.bucket,
            kind: trigger.kind.clone(),
            steering: trigger.steering,
        })
    }

    /// What it is found by.
    fn place(&self) -> (u16, &[u8]) {
        (self.bucket, self.name.to_bytes())
    }
}

impl Function {
    fn new(program: &Program, index: usize) -> Result<Self, NamesError> {
        let function = &program.functions[index];
        let in_range = |what: &'static str, indices: &[u16], count: usize| match indices
            .iter()
            .find(|index| usize::from(**index) >= count)
        {
            None => Ok(indices.to_vec()),
            Some(index) => Err(NamesError::Index {
                whose: format!("function `{}`", function.name),
                what,
                index: *index,
                count,
            }),
        };
        let sends = match &function.sends {
            None => None,
            Some(listed) => {
                let mut allowed = vec![false; program.buckets.len()];
                for bucket in in_range("bucket", listed, program.buckets.len())? {
                    allowed[usize::from(bucket)] = true;
                }
                Some(allowed)
            }
        };
        let mut config: Vec<(CString, CString)> = function
            .config
            .iter()
            .map(|(name, value)| Ok((c_string(name)?, c_string(value)?)))
            .collect::<Result<_, NamesError>>()?;
        config.sort();
        Ok(Self {
            name: c_string(&function.name)?,
            next: in_range("function", &function.next, program.functions.len())?,
            calls: in_range("function", &function.calls, program.functions.len())?,
            sends,
            config,
            arguments: function.arguments,
        })
    }

    /// A value of its `config`.
    pub fn config(&self, name: &CStr) -> Option<*const c_char> {
        let at = self
            .config
            .binary_search_by(|(key, _)| key.as_c_str().cmp(name))
            .ok()?;
        Some(self.config[at].1.as_ptr())
    }

    /// Its name as text.
    pub fn text(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }
}

fn list<'a>(names: impl Iterator<Item = &'a CStr>) -> String {
    let mut names: Vec<String> = names
        .map(|name| format!("`{}`", name.to_string_lossy()))
        .collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    let beyond = names.len().saturating_sub(NAMES_LISTED_MAX);
    names.truncate(NAMES_LISTED_MAX);
    let mut text = names.join(", ");
    if beyond > 0 {
        text.push_str(&format!(" and {beyond} more"));
    }
    text
}

/// A program with these functions and buckets, for tests.
#[cfg(test)]
pub fn program(functions: &[&str], buckets: &[&str]) -> Program {
    use crate::protocol::FunctionProgram;
    let function = |name: &&str| FunctionProgram {
        name: (*name).to_owned(),
        library: String::new(),
        library_origin: String::new(),
        symbol: (*name).to_owned(),
        next: Vec::new(),
        calls: Vec::new(),
        sends: None,
        config: Vec::new(),
        env: Vec::new(),
        init_timeout_ns: 0,
        arguments: Arguments::Values,
    };
    Program {
        app: "app".to_owned(),
        directory: "/".to_owned(),
        functions: functions.iter().map(function).collect(),
        buckets: buckets.iter().map(|name| (*name).to_owned()).collect(),
        triggers: Vec::new(),
        region_count: 2,
        region_span_bytes: 1 << 20,
        object_size_max_bytes: 1 << 20,
        log_bytes: 1 << 20,
        create_wait_ns: 0,
        uid: None,
        sandbox: crate::sandbox::Sandbox::default(),
        in_place: crate::protocol::InPlace::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pointer: *const c_char) -> String {
        // SAFETY: the tests pass pointers into names that live.
        unsafe { CStr::from_ptr(pointer) }
            .to_string_lossy()
            .into_owned()
    }

    #[test]
    fn names_are_found_and_given_back() {
        let buckets: Vec<String> = (0..100).map(|i| format!("b{}", (i * 37) % 100)).collect();
        let buckets: Vec<&str> = buckets.iter().map(String::as_str).collect();
        let names = Names::new(&program(&["g", "f"], &buckets)).expect("a good program");
        for (index, name) in buckets.iter().enumerate() {
            assert_eq!(names.bucket_index(name.as_bytes()), Some(index as u16));
            assert_eq!(
                text(names.bucket(index as u16).expect("it is there")),
                *name
            );
        }
        assert_eq!(names.bucket_index(b"c"), None);
        assert_eq!(names.function_index(b"f"), Some(1));
        assert_eq!(names.function_index(b""), None);
        assert_eq!(text(names.bucket(NO_BUCKET).expect("none")), "");
        assert_eq!(names.bucket(100), None);
        assert!(
            names.bucket_list().ends_with("and 92 more"),
            "{}",
            names.bucket_list()
        );
    }

    fn trigger(bucket: u16, name: &str) -> TriggerProgram {
        TriggerProgram {
            bucket,
            name: name.to_owned(),
            kind: "dynamic_join".to_owned(),
            steering: Steering::Join,
            code: None,
        }
    }

    #[test]
    fn triggers_are_found_in_their_bucket() {
        let mut program = program(&["f"], &["a", "b"]);
        program.triggers = (0..100)
            .map(|i| trigger(i / 50, &format!("t{}", (i * 37) % 50)))
            .collect();
        let names = Names::new(&program).expect("a good program");
        for (number, trigger) in (0..).zip(&program.triggers) {
            let found = names.trigger_index(trigger.bucket, trigger.name.as_bytes());
            assert_eq!(found, Some(number));
            assert_eq!(text(names.trigger(number)), trigger.name);
        }
        assert_eq!(names.trigger_index(0, b"t50"), None);
        assert_eq!(names.trigger_index(2, b"t0"), None);
        assert_eq!(names.steering(0), Steering::Join);
        assert_eq!(text(names.trigger(NO_TRIGGER)), "");
        let whole = "trigger `t0` of bucket `b`".to_owned();
        assert_eq!(names.trigger_text(50), (whole, "dynamic_join"));
        assert!(names.trigger_list(1).ends_with("and 42 more"));
        assert_eq!(names.trigger_list(2), "none");
    }

    #[test]
    fn a_program_that_means_nothing_is_refused() {
        let mut wrong = program(&["f"], &["b"]);
        wrong.functions[0].next = vec![1];
        let error = Names::new(&wrong).err().expect("refused").to_string();
        assert_eq!(error, "function `f` names function 1, and there are only 1");
        let mut wrong = program(&["f"], &["b"]);
        wrong.functions[0].sends = Some(vec![7]);
        assert!(Names::new(&wrong).is_err());
        let mut wrong = program(&["f"], &["b"]);
        wrong.triggers = vec![trigger(1, "t")];
        let error = Names::new(&wrong).err().expect("refused").to_string();
        assert_eq!(error, "trigger `t` names bucket 1, and there are only 1");
        assert!(Names::new(&program(&["f\0"], &[])).is_err());
    }

    #[test]
    fn config_is_found_by_name() {
        let mut program = program(&["f"], &[]);
        program.functions[0].config = vec![
            ("z".into(), "26".into()),
            ("a".into(), "1".into()),
            ("m".into(), "".into()),
        ];
        let names = Names::new(&program).expect("a good program");
        let value = |name| names.functions[0].config(name).map(text);
        assert_eq!(value(c"a").as_deref(), Some("1"));
        assert_eq!(value(c"z").as_deref(), Some("26"));
        assert_eq!(value(c"m").as_deref(), Some(""));
        assert_eq!(value(c"b"), None);
    }
}
