//! Who is at the other end of a connection, and what it may do.
//!
//! Managing is a way out of every sandbox, so it needs the node's Unix socket and the node's own
//! uid or root, from a process that the node has not started in any generation; or the bearer
//! token. A loopback address proves nothing: any user and, through a browser, any web page reach
//! it.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::answer::Problem;

/// Shortest token: fewer characters can be guessed.
const TOKEN_CHARACTERS_MIN: usize = 16;
/// Longest token file that is read.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;
/// Most generations between a process and the first; a chain in /proc that is longer is a race.
const GENERATIONS_MAX: usize = 1000;

/// The bearer token, as its hash: so compared, it takes the same time whatever is wrong.
#[derive(Clone)]
pub struct Token {
    hash: [u8; 32],
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others could read it.
    #[error(
        "the token file {} can be read by others (mode {mode:o}); make it yours alone: chmod 600",
        path.display()
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds no good token.
    #[error("a token has {TOKEN_CHARACTERS_MIN} to 4096 visible characters on one line")]
    Weak,
}

impl Token {
    /// This token.
    ///
    /// # Errors
    /// Too short, or with characters that no header can carry.
    pub fn new(token: &str) -> Result<Self, TokenError> {
        let token = token.trim();
        let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.len() < TOKEN_CHARACTERS_MIN || !visible {
            return Err(TokenError::Weak);
        }
        Ok(Self {
            hash: Sha256::digest(token).into(),
        })
    }

    /// The token in this file, which must be its owner's alone.
    ///
    /// # Errors
    /// Unreadable, open to others, or no token.
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        let unreadable = |source| TokenError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        file.take(TOKEN_FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Self::new(&text)
    }

    fn is(&self, presented: &str) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        let differing = self
            .hash
            .iter()
            .zip(presented)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        differing == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over the Unix socket: the node's user or root, no process of the node's.
    Owner,
    /// Over the Unix socket, anybody else.
    Stranger,
    /// Over TCP.
    Tcp(SocketAddr),
}

impl Peer {
    /// The process of this id and user, at the other end of the Unix socket.
    pub fn of_process(uid: u32, pid: i32, own_uid: u32) -> Self {
        let owner = uid == own_uid || uid == 0;
        if owner && !descends_from_node(pid) {
            Self::Owner
        } else {
            Self::Stranger
        }
    }
}

/// Whether a process is this one's descendant: an executor, what it has started, or an orphan of
/// those, which falls to the node, their subreaper. What cannot be looked at is taken for one.
fn descends_from_node(pid: i32) -> bool {
    let own = std::process::id().cast_signed();
    if pid == own {
        return false;
    }
    let mut at = pid;
    for _ in 0..GENERATIONS_MAX {
        match parent_of(at) {
            Some(parent) if parent == own => return true,
            // The first process, or one whose parent is outside of this pid namespace.
            Some(parent) if parent <= 1 => return false,
            Some(parent) => at = parent,
            None => return true,
        }
    }
    true
}

fn parent_of(pid: i32) -> Option<i32> {
    if pid <= 0 {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// What everybody is judged by.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// Gives all rights over TCP.
    pub token: Option<Token>,
    /// Addresses listened on.
    pub listened: Vec<SocketAddr>,
}

impl Rights {
    /// Whether a request may be heard at all.
    ///
    /// # Errors
    /// A host or origin that is not ours, or a peer from elsewhere without the token.
    pub fn admit(&self, peer: Peer, headers: &HeaderMap) -> Result<(), Problem> {
        let Peer::Tcp(address) = peer else {
            return Ok(());
        };
        if self.has_token(headers) {
            return Ok(());
        }
        if !address.ip().to_canonical().is_loopback() {
            return Err(no_token());
        }
        let host = headers
            .get(header::HOST)
            .map(|host| host.to_str().unwrap_or_default());
        if !host.is_some_and(|host| self.is_own_host(host)) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "this Host is not the node's: use localhost, or an address that it listens on",
            ));
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let host = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            if !host.is_some_and(|host| self.is_own_host(host)) {
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "web pages of other origins may not use this node",
                ));
            }
        }
        Ok(())
    }

    /// Whether a request may manage and look into the node.
    ///
    /// # Errors
    /// It may not.
    pub fn admit_management(&self, peer: Peer, headers: &HeaderMap) -> Result<(), Problem> {
        match peer {
            Peer::Owner => Ok(()),
            Peer::Stranger => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "only the node's own user and root may do this, and no process that an app of the \
                 node's has started",
            )),
            Peer::Tcp(_) if self.has_token(headers) => Ok(()),
            Peer::Tcp(_) => Err(no_token()),
        }
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let presented = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let presented = presented.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        match (&self.token, presented) {
            (Some(token), Some(presented)) => token.is(presented),
            _ => false,
        }
    }

    /// A loopback name, or an address listened on, as RFC 3986 writes them (that of IPv6, and
    /// nothing else, in brackets); with or without a port, without a user.
    fn is_own_host(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        let name = authority.host();
        // What is no port after it, or a user before it, makes it another's.
        let is_port = |rest: &str| {
            let port = rest.strip_prefix(':').unwrap_or(rest);
            rest.is_empty() || port.len() < rest.len() && port.bytes().all(|b| b.is_ascii_digit())
        };
        if !host.strip_prefix(name).is_some_and(is_port) {
            return false;
        }
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let bracketed = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let address = match bracketed {
            Some(address) => address.parse().map(IpAddr::V6),
            None => name.parse().map(IpAddr::V4),
        };
        address.is_ok_and(|address| {
            let address = address.to_canonical();
            address.is_loopback() || self.listened.iter().any(|own| own.ip() == address)
        })
    }
}

fn no_token() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "this needs the node's Unix socket, or its bearer token (serve --token-file)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a-secret-of-some-length";

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    fn rights() -> Rights {
        Rights {
            token: Some(Token::new(SECRET).unwrap()),
            listened: vec!["192.0.2.7:7070".parse().unwrap()],
        }
    }

    fn local() -> Peer {
        Peer::Tcp("127.0.0.1:40000".parse().unwrap())
    }

    #[test]
    fn own_hosts_are_loopback_and_listened_addresses_and_nothing_that_looks_like_them() {
        let rights = rights();
        for host in [
            "localhost",
            "LOCALHOST:7070",
            "127.0.0.1",
            "127.8.9.10:1",
            "[::1]:7070",
            "[::1]",
            "192.0.2.7:7070",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(rights.is_own_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example:80",
            "localhost.evil.example",
            "192.0.2.8",
            "[::1",
            "evil@localhost",
            "2130706433",
            ":7070",
            "::1",
            "::1:7070",
            "[localhost]",
            "[127.0.0.1]:7070",
            "[::1].evil.example",
            "[::1]7070",
            "user@[::1]",
        ] {
            assert!(!rights.is_own_host(host), "{host}");
        }
    }

    #[test]
    fn foreign_hosts_and_origins_are_refused_on_tcp_and_hosts_must_be_said() {
        let rights = rights();
        let own = (header::HOST, "localhost:7070");
        assert!(
            rights
                .admit(local(), &headers(std::slice::from_ref(&own)))
                .is_ok()
        );
        let page = (header::ORIGIN, "http://localhost:7070");
        assert!(
            rights
                .admit(local(), &headers(&[own.clone(), page]))
                .is_ok()
        );
        for origin in ["https://evil.example", "null", "file://", "localhost"] {
            let with = headers(&[own.clone(), (header::ORIGIN, origin)]);
            assert!(rights.admit(local(), &with).is_err(), "{origin}");
        }
        assert!(rights.admit(local(), &HeaderMap::new()).is_err());
        let foreign = headers(&[(header::HOST, "evil.example")]);
        assert!(rights.admit(local(), &foreign).is_err());
        assert!(rights.admit(Peer::Owner, &foreign).is_ok());
    }

    #[test]
    fn from_elsewhere_everything_needs_the_token() {
        let rights = rights();
        let remote = Peer::Tcp("198.51.100.1:5".parse().unwrap());
        let own = (header::HOST, "192.0.2.7");
        assert!(
            rights
                .admit(remote, &headers(std::slice::from_ref(&own)))
                .is_err()
        );
        let bearer = (header::AUTHORIZATION, "Bearer a-secret-of-some-length");
        assert!(rights.admit(remote, &headers(&[own, bearer])).is_ok());
    }

    #[test]
    fn managing_takes_the_owner_or_the_token_and_no_other() {
        let rights = rights();
        let none = HeaderMap::new();
        assert!(rights.admit_management(Peer::Owner, &none).is_ok());
        assert!(rights.admit_management(Peer::Stranger, &none).is_err());
        for (value, right) in [
            ("Bearer a-secret-of-some-length", true),
            ("bearer a-secret-of-some-length", true),
            ("Bearer a-secret-of-some-lengtH", false),
            ("Bearer a-secret-of-some-length2", false),
            ("Bearer ", false),
            ("Basic a-secret-of-some-length", false),
            ("a-secret-of-some-length", false),
        ] {
            let with = headers(&[(header::AUTHORIZATION, value)]);
            assert_eq!(
                rights.admit_management(local(), &with).is_ok(),
                right,
                "{value}"
            );
            // A process of an app's stays one, whatever it has stolen.
            assert!(rights.admit_management(Peer::Stranger, &with).is_err());
        }
        let tokenless = Rights::default();
        let with = headers(&[(header::AUTHORIZATION, "Bearer ")]);
        assert!(tokenless.admit_management(local(), &with).is_err());
    }

    #[test]
    fn a_token_is_long_and_its_file_private() {
        assert!(Token::new("short").is_err());
        assert!(Token::new("with a space and long").is_err());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, format!("{SECRET}\n")).unwrap();
        let mode =
            |mode| fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode));
        mode(0o640).unwrap();
        assert!(matches!(
            Token::from_file(&path),
            Err(TokenError::Open { mode: 0o640, .. })
        ));
        mode(0o600).unwrap();
        assert!(Token::from_file(&path).unwrap().is(SECRET));
        assert!(matches!(
            Token::from_file(&directory.path().join("none")),
            Err(TokenError::Unreadable { .. })
        ));
    }

    #[test]
    fn own_descendants_are_strangers_and_own_ancestors_are_not() {
        let uid = rustix::process::geteuid().as_raw();
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 1000 & echo $!; exec sleep 1000"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(child.stdout.as_mut().unwrap()),
            &mut line,
        )
        .unwrap();
        let grandchild: i32 = line.trim().parse().unwrap();
        let pid = child.id().cast_signed();
        assert_eq!(Peer::of_process(uid, pid, uid), Peer::Stranger);
        assert_eq!(Peer::of_process(uid, grandchild, uid), Peer::Stranger);
        let grandchild = nix::unistd::Pid::from_raw(grandchild);
        nix::sys::signal::kill(grandchild, nix::sys::signal::Signal::SIGKILL).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            Peer::of_process(uid, pid, uid),
            Peer::Stranger,
            "it is gone"
        );
        let own = std::process::id().cast_signed();
        assert_eq!(Peer::of_process(uid, own, uid), Peer::Owner);
        assert_eq!(Peer::of_process(0, own, uid), Peer::Owner);
        assert_eq!(Peer::of_process(uid + 1, own, uid), Peer::Stranger);
        if let Some(parent) = parent_of(own).filter(|parent| *parent > 0) {
            assert_eq!(Peer::of_process(uid, parent, uid), Peer::Owner);
        }
    }
}
