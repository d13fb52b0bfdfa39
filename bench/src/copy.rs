//! How long copying takes: what a system that copies payloads would pay at least.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

/// One timing takes at least this long, so that reading the clock does not matter.
const BATCH: Duration = Duration::from_micros(200);
/// Timings; the middle one counts.
const BATCHES: usize = 5;

/// Nanoseconds of one copy of `size_bytes` between two buffers whose pages are there, on this CPU.
pub fn copy_ns(size_bytes: usize, cpu: u32) -> f64 {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let mut set = CpuSet::new();
                set.set(cpu as usize % CpuSet::MAX_CPU);
                // A preference: the time of another CPU is still one.
                let _ = rustix::thread::sched_setaffinity(None, &set);
                timed(size_bytes)
            })
            .join()
            .unwrap_or(f64::NAN)
    })
}

fn timed(size_bytes: usize) -> f64 {
    let from = vec![1_u8; size_bytes];
    let mut to = vec![2_u8; size_bytes];
    let mut copies = 1;
    let mut times = Vec::new();
    while times.len() < BATCHES {
        let began = Instant::now();
        for _ in 0..copies {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
        }
        let took = began.elapsed();
        if took < BATCH {
            copies *= 2;
        } else {
            times.push(took.as_nanos() as f64 / f64::from(copies));
        }
    }
    times.sort_by(f64::total_cmp);
    times[BATCHES / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_bytes_take_longer() {
        assert!(copy_ns(8 << 20, 0) > copy_ns(8, 0));
        assert!(copy_ns(0, 0) > 0.0);
    }
}
