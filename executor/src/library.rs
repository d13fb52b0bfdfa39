//! Loading functions' libraries, and judging the marks that pheromone.h leaves beside functions.
//!
//! Nothing is ever unloaded: a library's code may be anywhere (in a destructor, in a thread). The
//! path that is loaded is a content-addressed copy; errors speak of the file as its user knows it.

use std::ffi::{OsStr, c_void};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use pheromone_sdk as sdk;

/// Why a function cannot be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum LoadError {
    /// It needs another library.
    #[error("{library} cannot be loaded: it needs {dependency}, which the system does not find")]
    Dependency {
        /// As the user knows it.
        library: String,
        /// What is missing.
        dependency: String,
    },
    /// It uses a symbol that nobody defines.
    #[error(
        "{library} cannot be loaded: it uses `{symbol}`, which no library defines (is a source \
         file, or a `link` entry, missing?)"
    )]
    Undefined {
        /// As the user knows it.
        library: String,
        /// What is missing.
        symbol: String,
    },
    /// Anything else that the loader says.
    #[error("{library} cannot be loaded: {reason}")]
    Loader {
        /// As the user knows it.
        library: String,
        /// The loader's words.
        reason: String,
    },
    /// The library does not define it.
    #[error(
        "{library} has no symbol `{symbol}`: define it by {wanted}({symbol}), or name another \
         by `symbol`"
    )]
    NoSymbol {
        /// What it should be.
        wanted: Wanted,
        /// As the user knows it.
        library: String,
        /// What is missing.
        symbol: String,
    },
    /// It was not defined by a macro of pheromone.h.
    #[error(
        "{library} has `{symbol}`, but without the mark of pheromone.h: define it by \
         {wanted}({symbol})"
    )]
    NoMark {
        /// What it should be.
        wanted: Wanted,
        /// As the user knows it.
        library: String,
        /// Which symbol.
        symbol: String,
    },
    /// It was compiled for another ABI.
    #[error(
        "{library} was compiled for version {major}.{minor} of the Pheromone ABI, and this is \
         version {}.{}: compile it again with this version's pheromone.h",
        sdk::ABI_MAJOR,
        sdk::ABI_MINOR
    )]
    Abi {
        /// As the user knows it.
        library: String,
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// It is something else.
    #[error("{library}: `{symbol}` is {found}, and {} is wanted: see {wanted}", wanted.text())]
    Kind {
        /// What it should be.
        wanted: Wanted,
        /// As the user knows it.
        library: String,
        /// Which symbol.
        symbol: String,
        /// What it is.
        found: String,
    },
}

/// What a symbol should be; shown as the macro that defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Wanted {
    /// A function.
    Function,
    /// A function's initializer.
    Initializer,
    /// A custom trigger.
    Trigger,
}

impl Wanted {
    fn kind(self) -> u32 {
        match self {
            Self::Function => sdk::KIND_FUNCTION,
            Self::Initializer => sdk::KIND_INIT,
            Self::Trigger => sdk::KIND_TRIGGER,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Function => "a function",
            Self::Initializer => "an initializer",
            Self::Trigger => "a custom trigger",
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Function => "PHR_FUNCTION",
            Self::Initializer => "PHR_INIT",
            Self::Trigger => "PHR_TRIGGER",
        })
    }
}

/// A loaded library, never unloaded.
pub struct Loaded {
    library: Library,
    origin: String,
}

impl Loaded {
    /// Loads this path; its constructors run. `origin` is the file as its user knows it.
    ///
    /// # Errors
    /// [`LoadError`], in the loader's order of finding out.
    pub fn open(path: &Path, origin: &str) -> Result<Self, LoadError> {
        // SAFETY: what its constructors do is the user's business, in a process made for it.
        let opened = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        match opened {
            Ok(library) => Ok(Self {
                library,
                origin: origin.to_owned(),
            }),
            Err(error) => Err(loader_error(&loader_words(&error), path, origin)),
        }
    }

    /// The entry of this function.
    ///
    /// # Errors
    /// When there is none, or none for this ABI.
    pub fn function(&self, symbol: &str) -> Result<sdk::FunctionEntry, LoadError> {
        let mark = self.mark(symbol, Wanted::Function)?;
        mark.and_then(|mark| mark.entry)
            .ok_or_else(|| self.no_symbol(symbol, Wanted::Function))
    }

    /// The entry of this custom trigger.
    ///
    /// # Errors
    /// When there is none, or none for this ABI.
    pub fn trigger(&self, symbol: &str) -> Result<sdk::TriggerEntry, LoadError> {
        let mark = self.mark(symbol, Wanted::Trigger)?;
        mark.and_then(|mark| mark.trigger)
            .ok_or_else(|| self.no_symbol(symbol, Wanted::Trigger))
    }

    fn no_symbol(&self, symbol: &str, wanted: Wanted) -> LoadError {
        LoadError::NoSymbol {
            wanted,
            library: self.origin.clone(),
            symbol: symbol.to_owned(),
        }
    }

    /// The entry of this function's initializer; `None` where it has none.
    ///
    /// # Errors
    /// When it is there, but not for this ABI.
    pub fn initializer(&self, symbol: &str) -> Result<Option<sdk::FunctionEntry>, LoadError> {
        let symbol = format!("{}{symbol}", sdk::INIT_PREFIX);
        let mark = self.mark(&symbol, Wanted::Initializer)?;
        Ok(mark.and_then(|mark| mark.entry))
    }

    /// The mark of this symbol, which has the entry that is wanted; `None` where there is no such
    /// symbol.
    fn mark(&self, symbol: &str, wanted: Wanted) -> Result<Option<sdk::Mark>, LoadError> {
        let library = || self.origin.clone();
        let Some(mark) = self.address(&format!("{}{symbol}", sdk::MARK_PREFIX)) else {
            return match self.address(symbol) {
                None => Ok(None),
                Some(_) => Err(LoadError::NoMark {
                    wanted,
                    library: library(),
                    symbol: symbol.to_owned(),
                }),
            };
        };
        // SAFETY: a mark of any version begins with these 8 bytes, which never change their
        // meaning; that the symbol is a mark is what its name says.
        let head = unsafe { mark.cast::<MarkHead>().read_unaligned() };
        if head.abi_major != sdk::ABI_MAJOR || (head.struct_size as usize) < size_of::<sdk::Mark>()
        {
            let (major, minor) = (head.abi_major, head.abi_minor);
            return Err(LoadError::Abi {
                library: library(),
                major,
                minor,
            });
        }
        // SAFETY: of this major version, and as large as it says.
        let mark = unsafe { mark.cast::<sdk::Mark>().read_unaligned() };
        let has_entry = match wanted {
            Wanted::Function | Wanted::Initializer => mark.entry.is_some(),
            Wanted::Trigger => mark.trigger.is_some(),
        };
        let found = match mark.kind {
            found if found == wanted.kind() && has_entry => return Ok(Some(mark)),
            sdk::KIND_FUNCTION => "a function",
            sdk::KIND_INIT => "an initializer",
            sdk::KIND_TRIGGER => "a custom trigger",
            _ => "of a kind that this version does not know",
        };
        Err(LoadError::Kind {
            wanted,
            library: library(),
            symbol: symbol.to_owned(),
            found: found.to_owned(),
        })
    }

    fn address(&self, symbol: &str) -> Option<*const c_void> {
        // SAFETY: only the address is taken; what is there is judged by the caller.
        let found = unsafe { self.library.get::<*const c_void>(symbol.as_bytes()) };
        let address: *const c_void = found.ok()?.as_raw_ptr();
        (!address.is_null()).then_some(address)
    }
}

/// How a mark begins, in every version.
#[repr(C)]
#[derive(Clone, Copy)]
struct MarkHead {
    struct_size: u32,
    abi_major: u16,
    abi_minor: u16,
}

fn loader_words(error: &libloading::Error) -> String {
    match error {
        libloading::Error::DlOpen { source } => source.to_string(),
        other => other.to_string(),
    }
}

/// Sorts the loader's words: "FILE: WHAT[: WHY]", see dl-error in glibc.
fn loader_error(words: &str, path: &Path, origin: &str) -> LoadError {
    let library = origin.to_owned();
    let path_text = path.as_os_str().to_string_lossy();
    let (file, what) = words.split_once(": ").unwrap_or(("", words));
    if let Some((_, symbol)) = what.split_once("undefined symbol: ") {
        let symbol = symbol.split([' ', ',']).next().unwrap_or(symbol).to_owned();
        return LoadError::Undefined { library, symbol };
    }
    let own = file == path_text || Path::new(file).file_name() == path.file_name();
    if !own && !file.is_empty() && what.contains("cannot open shared object file") {
        return LoadError::Dependency {
            library,
            dependency: file.to_owned(),
        };
    }
    let reason = words.replace(path_text.as_ref(), origin);
    let reason = reason
        .strip_prefix(&format!("{origin}: "))
        .unwrap_or(&reason)
        .to_owned();
    LoadError::Loader { library, reason }
}

/// Makes the mathematical functions of the C library resolve to the C library's, also in a library
/// that exports a function of the same name (PHR_FUNCTION_AS(my_log, "log")): the loader looks at
/// global libraries first.
pub fn make_mathematics_global() {
    // SAFETY: libm's constructors are harmless; on a C library without a libm nothing happens.
    let opened = unsafe {
        Library::open(
            Some(OsStr::new("libm.so.6")),
            RTLD_NOW | libloading::os::unix::RTLD_GLOBAL,
        )
    };
    std::mem::forget(opened);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_words_become_a_cause() {
        let path = Path::new("/var/lib/1234.so");
        let say = |words: &str| loader_error(words, path, "words.so").to_string();
        assert_eq!(
            say("libfoo.so.1: cannot open shared object file: No such file or directory"),
            "words.so cannot be loaded: it needs libfoo.so.1, which the system does not find"
        );
        assert_eq!(
            say("/var/lib/1234.so: cannot open shared object file: No such file or directory"),
            "words.so cannot be loaded: cannot open shared object file: No such file or directory"
        );
        assert_eq!(
            say("/var/lib/1234.so: undefined symbol: helper"),
            "words.so cannot be loaded: it uses `helper`, which no library defines (is a source \
             file, or a `link` entry, missing?)"
        );
        assert_eq!(
            say("/var/lib/1234.so: file too short"),
            "words.so cannot be loaded: file too short"
        );
        assert_eq!(say("strange"), "words.so cannot be loaded: strange");
    }

    #[test]
    fn a_missing_file_is_named_as_its_user_knows_it() {
        let error = Loaded::open(Path::new("/nonexistent/1234.so"), "words.so").err();
        let error = error.expect("it is not there").to_string();
        assert!(error.starts_with("words.so cannot be loaded: "), "{error}");
        assert!(!error.contains("1234"), "{error}");
    }
}
