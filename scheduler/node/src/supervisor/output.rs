//! What executors print: read a piece at a time, cut into lines, named and told.

use pheromone_executor::protocol::OutputHead;
use rustix::event::epoll;

use super::process::Stream;
use super::{Deployed, Key, Supervisor};
use crate::gateway::Command;
use crate::output::{Output, OutputKind};

/// Bytes taken from a pipe at a time, so that no executor's output can hold the others up.
pub(super) const PIPE_BYTES: usize = 16 * 1024;

/// Bytes read of what a dead process left in a pipe, or a failed one has printed: as large as a
/// pipe gets. A process that a function has started may go on writing, and must not keep us.
const LEFT_BYTES_MAX: usize = 1 << 20;

impl Supervisor {
    /// Reads what a process has printed until now.
    pub(super) fn read_all(&mut self, key: Key) {
        self.read(key, Stream::Tagged, LEFT_BYTES_MAX);
        self.read(key, Stream::Raw, LEFT_BYTES_MAX);
    }

    /// Reads what is in a pipe, at most about so many bytes.
    pub(super) fn read(&mut self, key: Key, stream: Stream, most: usize) {
        let mut buffer = [0; PIPE_BYTES];
        let mut taken = 0;
        while taken < most {
            let Some(process) = self.processes.get_mut(&key) else {
                return;
            };
            match rustix::io::read(process.pipe(stream), &mut buffer) {
                // Nobody holds the other end. Level-triggered, it would be ready for ever.
                Ok(0) => {
                    let _ = epoll::delete(&self.epoll, process.pipe(stream));
                    return;
                }
                Ok(read) => {
                    taken += read;
                    for (said, text) in process.cut(stream, &buffer[..read]) {
                        self.line(key, said, &text);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// One line, with what the executor says of it.
    pub(super) fn line(&mut self, key: Key, said: Option<OutputHead>, text: &str) {
        let kind = said.map_or(OutputKind::Raw, |head| head.kind.into());
        let (session, invocation) = said.map_or((0, 0), |head| (head.session, head.invocation));
        self.tails
            .entry(key)
            .or_default()
            .keep(invocation, kind, text);
        let Some(Deployed { version, .. }) = self.apps.get(&key.0) else {
            return;
        };
        self.outlet.put(Output {
            app: version.name().to_owned(),
            function: said.and_then(|head| {
                let name = version.function_names.get(usize::from(head.function));
                name.or(version.trigger_of_slot(key.1)).cloned()
            }),
            session,
            invocation,
            slot: Some(key.1),
            kind,
            text: text.to_owned(),
            dropped: said.map_or(0, |head| head.dropped.into()),
        });
    }

    pub(super) fn name(&self, app: u16) -> String {
        self.apps
            .get(&app)
            .map(|deployed| deployed.version.name().to_owned())
            .unwrap_or_default()
    }

    pub(super) fn tell_tail(&mut self, key: Key, invocation: u64, request: u64) {
        self.read_all(key);
        let lines = self
            .tails
            .get(&key)
            .map(|tail| tail.of(invocation))
            .unwrap_or_default();
        self.gateway.tell(Command::Tail { request, lines });
    }
}
