//! A response on its way out of an app's memory, read in pieces so that no long one holds up the
//! others.
//!
//! Its list of parts comes in several messages; they are read as they come, as far as the reader's
//! time goes, which is counted here in bytes.

use std::collections::VecDeque;

use pheromone_core::event::Part;

use crate::regions::Regions;

/// What a part costs beside its bytes: its system call takes about as long as copying so many.
pub const PART_COST_BYTES: u64 = 4096;

/// A response being read.
#[derive(Debug, Default)]
pub struct Reading {
    /// Not yet read, but for `taken_bytes` of the first.
    parts: VecDeque<Part>,
    taken_bytes: u64,
    body: Vec<u8>,
    /// Bytes of all parts that have come.
    size_bytes: u64,
    /// All of its parts have come.
    is_whole: bool,
    /// Why it cannot be given. Nothing is read any more, and nothing kept.
    spoilt: Option<String>,
}

impl Reading {
    /// Takes the next parts, of which at most `limit_bytes` may come in all.
    pub fn add(&mut self, parts: Vec<Part>, limit_bytes: u64) {
        if self.spoilt.is_some() {
            return;
        }
        self.size_bytes = parts.iter().fold(self.size_bytes, |sum, part| {
            sum.saturating_add(part.size_bytes)
        });
        let size_bytes = self.size_bytes;
        if size_bytes > limit_bytes {
            self.spoil(format!(
                "the response has {size_bytes} bytes or more, and the app's `memory` of \
                 {limit_bytes} bytes is the most that is put together for a caller"
            ));
            return;
        }
        let more = usize::try_from(size_bytes).unwrap_or(usize::MAX) - self.body.len();
        if let Err(error) = self.body.try_reserve_exact(more) {
            self.spoil(format!("the response could not be read: {error}"));
            return;
        }
        self.parts.extend(parts);
    }

    /// No more parts will come.
    pub fn end(&mut self) {
        self.is_whole = true;
    }

    /// Reads until nothing is left or the budget is used up.
    pub fn read(&mut self, regions: &Regions, budget_bytes: &mut u64) {
        while *budget_bytes > 0
            && let Some(part) = self.parts.front()
        {
            let from = self.taken_bytes;
            let most = budget_bytes.saturating_sub(PART_COST_BYTES).max(1);
            let until = part.size_bytes.min(from.saturating_add(most));
            let bytes = from..until;
            let read = regions.read(part.region, part.offset_units, bytes, &mut self.body);
            if let Err(error) = read {
                self.spoil(format!("the response could not be read: {error}"));
                return;
            }
            *budget_bytes = budget_bytes.saturating_sub(PART_COST_BYTES + (until - from));
            self.taken_bytes = until;
            if until == part.size_bytes {
                self.parts.pop_front();
                self.taken_bytes = 0;
            }
        }
    }

    /// Whether there is something to read now.
    pub fn has_unread(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Whether it has come and been read to its end, or never will be.
    pub fn is_done(&self) -> bool {
        self.is_whole && !self.has_unread()
    }

    /// Why it cannot be given, if it cannot.
    pub fn spoilt(&self) -> Option<&str> {
        self.spoilt.as_deref()
    }

    /// What was read, or why it cannot be given.
    pub fn finish(self) -> Result<Vec<u8>, String> {
        match self.spoilt {
            None => Ok(self.body),
            Some(why) => Err(why),
        }
    }

    fn spoil(&mut self, why: String) {
        self.spoilt = Some(why);
        self.parts = VecDeque::new();
        self.body = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use pheromone_core::spec::{AppSpec, Isolation, Limits, Pool};
    use pheromone_shm::message::{Extent, UNIT_BYTES};

    use super::*;
    use crate::regions::write;

    const LIMIT_BYTES: u64 = 1 << 20;

    fn regions() -> Regions {
        Regions::create(&AppSpec {
            name: "a".into(),
            entry: None,
            keep_request: false,
            memory_bytes: LIMIT_BYTES,
            executors: Pool { min: 1, max: 1 },
            isolation: Isolation::None,
            weight: 1,
            response_required: false,
            session_timeout_ns: None,
            cancel_on_disconnect: false,
            keep_results_ns: 0,
            continuation: false,
            limits: Limits::default(),
            functions: Vec::new(),
            buckets: Vec::new(),
        })
        .unwrap()
    }

    /// Parts of these sizes one after another in the ingress region, and what they hold.
    fn parts(regions: &Regions, sizes: &[u64]) -> (Vec<Part>, Vec<u8>) {
        let (mut offset_units, mut whole, mut parts) = (0, Vec::new(), Vec::new());
        for &size_bytes in sizes {
            let payload: Vec<u8> = (0..size_bytes)
                .map(|at| (whole.len() as u64 + at) as u8)
                .collect();
            let len_units = Extent::units_for(size_bytes) as u32;
            let extent = Extent {
                offset_units,
                len_units,
            };
            write(regions.ingress(), extent, &payload).unwrap();
            parts.push(Part {
                region: regions.count() - 1,
                offset_units,
                size_bytes,
            });
            offset_units += len_units;
            whole.extend(payload);
        }
        (parts, whole)
    }

    #[test]
    fn whatever_the_pieces_the_response_is_the_same() {
        let regions = regions();
        let (parts, whole) = parts(&regions, &[0, 1, 100_000, 63, 64, 0, 65, 9000, 0]);
        for most in [1, PART_COST_BYTES, PART_COST_BYTES + 7, 10_000, u64::MAX] {
            let mut reading = Reading::default();
            for part in &parts {
                assert!(!reading.is_done());
                reading.add(vec![*part], LIMIT_BYTES);
                reading.read(&regions, &mut { most });
            }
            reading.end();
            while !reading.is_done() {
                reading.read(&regions, &mut { most.max(PART_COST_BYTES + 999) });
            }
            assert!(reading.finish().unwrap() == whole, "in pieces of {most}");
        }
    }

    #[test]
    fn no_piece_is_larger_than_its_budget() {
        let regions = regions();
        let budget = 16 * PART_COST_BYTES;
        for sizes in [vec![1; 10_000], vec![900_000]] {
            let (parts, whole) = parts(&regions, &sizes);
            let mut reading = Reading::default();
            reading.add(parts, LIMIT_BYTES);
            reading.end();
            let (mut seen_parts, mut seen_bytes) = (reading.parts.len(), 0);
            while !reading.is_done() {
                reading.read(&regions, &mut { budget });
                assert!(seen_parts - reading.parts.len() <= 16);
                assert!((reading.body.len() - seen_bytes) as u64 <= budget);
                (seen_parts, seen_bytes) = (reading.parts.len(), reading.body.len());
            }
            assert!(reading.finish().unwrap() == whole);
        }
    }

    #[test]
    fn what_is_too_long_or_lies_nowhere_spoils_the_response_and_nothing_of_it_is_kept() {
        let regions = regions();
        let (parts, _) = parts(&regions, &[1000]);
        let mut long = Reading::default();
        long.add(parts.clone(), 1500);
        long.read(&regions, &mut { u64::MAX });
        long.add(parts.clone(), 1500);
        assert!(!long.has_unread() && !long.is_done());
        long.add(parts.clone(), 1500);
        long.end();
        assert!(long.is_done() && long.body.capacity() == 0);
        assert!(long.spoilt().unwrap().contains("2000 bytes or more"));
        assert!(long.finish().is_err());
        let beyond = Part {
            offset_units: (regions.span_bytes() / UNIT_BYTES) as u32,
            ..parts[0]
        };
        let mut nowhere = Reading::default();
        nowhere.add(vec![parts[0], beyond, parts[0]], LIMIT_BYTES);
        nowhere.end();
        nowhere.read(&regions, &mut { u64::MAX });
        assert!(nowhere.finish().unwrap_err().contains("could not be read"));
    }
}
