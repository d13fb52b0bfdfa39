//! What two threads of one process take to ask and answer, by the ways that calls come in.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use crate::histogram::Distribution;

/// Over channels, as between threads of a node.
///
/// # Errors
/// The other thread is gone.
pub fn over_channels(size_bytes: usize, count: u32, warm_up: u32) -> Result<Distribution> {
    let (ask, asked) = mpsc::channel::<Vec<u8>>();
    let (answer, answered) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            for body in asked {
                if answer.send(body).is_err() {
                    return;
                }
            }
        });
        timed(count, warm_up, || {
            ask.send(vec![0x5a; size_bytes])?;
            ensure!(answered.recv()?.len() == size_bytes, "an echo was cut");
            Ok(())
        })
        .inspect(|_| drop(ask))
    })
}

/// Over a Unix socket.
///
/// # Errors
/// What the kernel says.
pub fn over_unix(size_bytes: usize, count: u32, warm_up: u32) -> Result<Distribution> {
    let (near, far) = UnixStream::pair()?;
    over(near, far, size_bytes, count, warm_up)
}

/// Over loopback.
///
/// # Errors
/// What the kernel says.
pub fn over_tcp(size_bytes: usize, count: u32, warm_up: u32) -> Result<Distribution> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    over(near, far, size_bytes, count, warm_up)
}

fn over<S: Read + Write + Send>(
    mut near: S,
    mut far: S,
    size_bytes: usize,
    count: u32,
    warm_up: u32,
) -> Result<Distribution> {
    thread::scope(|scope| {
        let echoing = scope.spawn(move || -> Result<()> {
            let mut bytes = vec![0; size_bytes];
            for _ in 0..u64::from(warm_up) + u64::from(count) {
                far.read_exact(&mut bytes)?;
                far.write_all(&bytes)?;
            }
            Ok(())
        });
        let (sent, mut back) = (vec![0x5a; size_bytes], vec![0; size_bytes]);
        let times = timed(count, warm_up, || {
            near.write_all(&sent)?;
            near.read_exact(&mut back)?;
            ensure!(back == sent, "an echo was garbled");
            Ok(())
        });
        // It hears of a failure here, and ends.
        drop(near);
        let echoed = echoing.join().map_err(|_| anyhow!("an echo panicked"))?;
        let times = times?;
        echoed?;
        Ok(times)
    })
}

/// Does it so often, and counts how long it took each time after the first `warm_up`.
///
/// # Errors
/// Those of what is done.
pub fn timed(
    count: u32,
    warm_up: u32,
    mut once: impl FnMut() -> Result<()>,
) -> Result<Distribution> {
    let mut times = Distribution::new();
    for number in 0..u64::from(warm_up) + u64::from(count) {
        let began = Instant::now();
        once()?;
        let took = began.elapsed();
        if number >= u64::from(warm_up) {
            times.record_ns(u64::try_from(took.as_nanos())?);
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_echoes_and_counts() {
        for over in [over_channels, over_unix, over_tcp] {
            for size_bytes in [1, 100_000] {
                assert_eq!(over(size_bytes, 20, 3).unwrap().count(), 20);
            }
        }
    }
}
