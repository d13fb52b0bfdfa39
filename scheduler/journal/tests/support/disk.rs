//! A disk in memory that keeps apart what is written and what is durable, fails when told, and
//! gives what a crash could leave of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use pheromone_journal::{Disk, DiskFile, Way};

use super::Random;

/// What reaches the disk as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What goes wrong, once as many writes and flushes have been done as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The n-th operation fails, the others do not.
    Once(u64, i32),
    /// From the n-th operation on all fail.
    From(u64, i32),
    /// From the n-th operation on, each write takes half of its bytes.
    Short(u64),
}

/// A disk whose state outlives the journals that are opened on it.
#[derive(Clone)]
pub struct Sim(Arc<Mutex<State>>);

#[derive(Clone)]
struct State {
    files: BTreeMap<u64, FileState>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names that are not yet durable, in order.
    name_changes: Vec<NameChange>,
    next_file: u64,
    operations: u64,
    fault: Fault,
}

#[derive(Clone, Default)]
struct FileState {
    /// What is read.
    content: Vec<u8>,
    /// What is left after a crash, at least.
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone)]
enum NameChange {
    Set(String, u64),
    Remove(String),
    Rename(String, String, u64),
}

fn apply_name(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Set(name, file) => {
            names.insert(name.clone(), *file);
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
        NameChange::Rename(from, to, file) => {
            if names.get(from) == Some(file) {
                names.remove(from);
            }
            names.insert(to.clone(), *file);
        }
    }
}

fn write_into(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + bytes.len());
    if content.len() < to {
        content.resize(to, 0);
    }
    content[from..to].copy_from_slice(bytes);
}

impl State {
    /// Counts an operation that changes something; an error if it shall fail.
    fn operation(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Fault::Once(n, error) if number == n => Err(io::Error::from_raw_os_error(error)),
            Fault::From(n, error) if number >= n => Err(io::Error::from_raw_os_error(error)),
            _ => Ok(()),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.name_changes.push(change);
    }
}

impl Sim {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            next_file: 0,
            operations: 0,
            fault: Fault::None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with it")
    }

    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Operations that have changed something, or were to.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    pub fn set_fault(&self, fault: Fault) {
        self.state().fault = fault;
    }

    /// A disk with the same content, as after the process alone has died, and no faults.
    pub fn copy(&self) -> Self {
        let mut state = self.state().clone();
        state.fault = Fault::None;
        Self(Arc::new(Mutex::new(state)))
    }

    /// A disk with what a loss of power could leave: what is durable, of later writes any sectors,
    /// of later changes of names the first few, or any.
    pub fn crash(&self, random: &mut Random) -> Self {
        let mut state = self.state().clone();
        let is_ordered = random.below(2) == 0;
        let kept = random.below(state.name_changes.len() as u64 + 1) as usize;
        for (n, change) in state.name_changes.iter().enumerate() {
            let is_kept = if is_ordered {
                n < kept
            } else {
                random.below(2) == 0
            };
            if is_kept {
                apply_name(&mut state.durable_names, change);
            }
        }
        for file in state.files.values_mut() {
            for change in std::mem::take(&mut file.changes) {
                keep_some(&mut file.durable, &change, random);
            }
            file.content = file.durable.clone();
        }
        state.names = state.durable_names.clone();
        state.name_changes.clear();
        state.fault = Fault::None;
        Self(Arc::new(Mutex::new(state)))
    }

    /// The names of the files, in order.
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// The last segment's name.
    pub fn last_segment(&self) -> String {
        let names = self.names();
        let segment = names.iter().rfind(|name| name.ends_with(".log"));
        segment.expect("a segment").clone()
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[name]].content.clone()
    }

    /// Changes a file behind the journal's back.
    pub fn set_content(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        let id = match state.names.get(name) {
            Some(id) => *id,
            None => state.next_file,
        };
        state.next_file += 1;
        let file = FileState {
            durable: content.clone(),
            content,
            changes: Vec::new(),
        };
        state.files.insert(id, file);
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
    }

    /// Bytes of all files that have a name.
    pub fn bytes(&self) -> u64 {
        let state = self.state();
        let files = state.names.values();
        files
            .map(|file| state.files[file].content.len() as u64)
            .sum()
    }

    fn file(&self, id: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            sim: self.clone(),
            id,
        })
    }
}

fn keep_some(durable: &mut Vec<u8>, change: &Change, random: &mut Random) {
    match change {
        Change::Length(length) => {
            if random.below(2) == 0 {
                durable.resize(*length as usize, 0);
            }
        }
        Change::Write(offset, bytes) => {
            let luck = random.below(4);
            let mut at = 0;
            while at < bytes.len() {
                let absolute = *offset as usize + at;
                let sector_end = (absolute / SECTOR_BYTES + 1) * SECTOR_BYTES;
                let length = (sector_end - absolute).min(bytes.len() - at);
                if random.below(4) < luck {
                    write_into(durable, absolute as u64, &bytes[at..at + length]);
                }
                at += length;
            }
        }
    }
}

impl Disk for Sim {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.operation()?;
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, FileState::default());
        state.change_name(NameChange::Set(name.to_owned(), id));
        drop(state);
        Ok(self.file(id))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.state().names.get(name).copied();
        id.map(|id| self.file(id))
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let file = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        state.name_changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn way(&self) -> Way {
        Way::Plain {
            reason: "simulated".to_owned(),
        }
    }
}

struct SimFile {
    sim: Sim,
    id: u64,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, u64) -> T) -> T {
        act(&mut self.sim.state(), self.id)
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.with(|state, id| state.files[&id].content.len() as u64))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, id| {
            let content = &state.files[&id].content;
            let from = (offset as usize).min(content.len());
            let length = bytes.len().min(content.len() - from);
            bytes[..length].copy_from_slice(&content[from..from + length]);
            Ok(length)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.with(|state, id| {
            let outcome = state.operation();
            let is_short = matches!(state.fault, Fault::Short(n) if state.operations > n);
            // A write that fails may have done a part of its work.
            let length = if outcome.is_err() || is_short {
                bytes.len().div_ceil(2)
            } else {
                bytes.len()
            };
            let bytes = &bytes[..length];
            let file = state.files.get_mut(&id).expect("an open file");
            write_into(&mut file.content, offset, bytes);
            file.changes.push(Change::Write(offset, bytes.to_vec()));
            outcome.map(|()| length)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, id| {
            let outcome = state.operation();
            let file = state.files.get_mut(&id).expect("an open file");
            if outcome.is_ok() {
                for change in std::mem::take(&mut file.changes) {
                    match change {
                        Change::Write(offset, bytes) => {
                            write_into(&mut file.durable, offset, &bytes);
                        }
                        Change::Length(length) => file.durable.resize(length as usize, 0),
                    }
                }
            } else {
                // The kernel takes the pages for clean now: no later flush writes them.
                file.changes.clear();
            }
            outcome
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.with(|state, id| {
            state.operation()?;
            let file = state.files.get_mut(&id).expect("an open file");
            file.content.resize(length as usize, 0);
            file.changes.push(Change::Length(length));
            Ok(())
        })
    }
}
