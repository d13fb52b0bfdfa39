//! What a service manager is told (`sd_notify(3)`): datagrams to the socket named in the
//! environment. Without one nobody is told anything.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Where the manager listens.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How often it wants to hear that all is well, in microseconds, and of which process.
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    next_beat: Instant,
    status: String,
}

impl Manager {
    /// The one that the environment names.
    ///
    /// # Errors
    /// It is named and cannot be reached.
    pub fn of_environment() -> io::Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let is_ours = variable(WATCHDOG_PID)
            .and_then(|pid| pid.to_str()?.parse::<u32>().ok())
            .is_none_or(|pid| pid == std::process::id());
        let watchdog = variable(WATCHDOG).filter(|_| is_ours);
        Self::new(variable(SOCKET), watchdog)
    }

    fn new(path: Option<OsString>, watchdog: Option<OsString>) -> io::Result<Self> {
        let interval = watchdog.and_then(|usec| usec.to_str()?.parse().ok());
        Ok(Self {
            socket: path.map(|path| connect(&path)).transpose()?,
            // Half of it, as sd_watchdog_enabled(3) asks.
            watchdog: interval.map(|usec| Duration::from_micros(usec) / 2),
            next_beat: Instant::now(),
            status: String::new(),
        })
    }

    /// All apps are there and calls are taken.
    pub fn ready(&mut self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
        status.clone_into(&mut self.status);
    }

    /// Sessions end, then the node.
    pub fn stopping(&mut self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// All is well: said as often as is wanted. With a status where that has changed.
    pub fn is_well(&mut self, status: &str) {
        self.say_status(status);
        let now = Instant::now();
        if let Some(interval) = self.watchdog
            && now >= self.next_beat
        {
            self.next_beat = now + interval;
            self.tell("WATCHDOG=1");
        }
    }

    /// Something is wrong: the watchdog is not fed.
    pub fn is_unwell(&mut self, status: &str) {
        self.say_status(status);
    }

    fn say_status(&mut self, status: &str) {
        if self.status != status {
            self.tell(&format!("STATUS={status}"));
            status.clone_into(&mut self.status);
        }
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // A manager that does not listen any more has other worries, and so has this node.
            let _ = socket.send(state.as_bytes());
        }
    }
}

/// A path, or, behind an `@`, a name in the abstract namespace.
fn connect(path: &OsStr) -> io::Result<UnixDatagram> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).expect("no waiting");
        let mut buffer = [0; 1024];
        std::iter::from_fn(|| {
            let bytes = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..bytes]).into_owned())
        })
        .collect()
    }

    #[test]
    fn the_manager_hears_of_readiness_changes_and_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let mut manager = Manager::new(Some(path.into()), Some("20000".into())).expect("there");
        manager.ready("serving");
        manager.is_well("serving");
        manager.is_well("serving");
        manager.is_unwell("stuck");
        manager.stopping();
        let expected = [
            "READY=1\nSTATUS=serving",
            "WATCHDOG=1",
            "STATUS=stuck",
            "STOPPING=1\nSTATUS=stopping",
        ];
        assert_eq!(heard(&socket), expected);
        std::thread::sleep(Duration::from_millis(11));
        manager.is_well("stuck");
        assert_eq!(heard(&socket), ["WATCHDOG=1"], "half of 20 ms have passed");
    }

    #[test]
    fn a_manager_may_listen_on_an_abstract_name() {
        let name = format!("pheromone-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        let mut manager = Manager::new(Some(format!("@{name}").into()), None).expect("there");
        manager.is_well("serving");
        assert_eq!(heard(&socket), ["STATUS=serving"], "no watchdog is wanted");
    }

    #[test]
    fn without_a_manager_nobody_is_told_and_one_that_is_not_there_is_an_error() {
        let mut nobody = Manager::new(None, None).expect("nobody");
        nobody.ready("serving");
        nobody.is_well("serving");
        nobody.stopping();
        assert!(Manager::new(Some("/nonexistent/notify".into()), None).is_err());
    }
}
