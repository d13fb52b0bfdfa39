//! Many queues in one buffer: what batches, rounds and groups hold, first in, first out.
//!
//! However many queues come and go, the buffer is as long as the most entries there have been at
//! once, and an entry given back is the next one taken.

use crate::limits::BUFFER_ENTRIES_KEPT;

/// No node.
const NONE: u32 = u32::MAX;

/// One queue of a [`Queues`]: where it begins and ends there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    first: u32,
    last: u32,
    len: u32,
}

impl Queue {
    /// Without entries.
    pub(super) const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
        len: 0,
    };

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// The buffer of many queues.
pub(super) struct Queues<E> {
    nodes: Vec<Node<E>>,
    free: u32,
    used: u32,
}

struct Node<E> {
    entry: E,
    next: u32,
}

impl<E: Copy> Queues<E> {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: NONE,
            used: 0,
        }
    }

    /// Entries in all queues.
    pub(super) fn len(&self) -> u32 {
        self.used
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Adds an entry at a queue's end.
    pub(super) fn push(&mut self, queue: &mut Queue, entry: E) {
        let node = Node { entry, next: NONE };
        let pushed = self.free;
        let pushed = match self.nodes.get_mut(pushed as usize) {
            Some(free) => {
                self.free = free.next;
                *free = node;
                pushed
            }
            None => {
                if self.nodes.is_empty() {
                    // Often there is no second one.
                    self.nodes.reserve_exact(1);
                }
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("limits keep tables below 2^32")
            }
        };
        match self.nodes.get_mut(queue.last as usize) {
            Some(last) => last.next = pushed,
            None => queue.first = pushed,
        }
        queue.last = pushed;
        queue.len += 1;
        self.used += 1;
    }

    /// Takes a queue's first entry.
    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<E> {
        let popped = queue.first;
        let node = self.nodes.get_mut(popped as usize)?;
        let entry = node.entry;
        queue.first = std::mem::replace(&mut node.next, self.free);
        queue.len -= 1;
        if queue.first == NONE {
            queue.last = NONE;
        }
        self.free = popped;
        self.used -= 1;
        Some(entry)
    }

    /// Takes all of a queue's entries, first to last.
    pub(super) fn drain(&mut self, queue: &mut Queue) -> impl Iterator<Item = E> {
        std::iter::from_fn(|| self.pop(queue))
    }

    /// Forgets the entries of all queues, which the caller forgets too.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.nodes.shrink_to(BUFFER_ENTRIES_KEPT);
        self.free = NONE;
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_share_a_buffer_and_nothing_else() {
        let mut queues = Queues::new();
        let (mut a, mut b) = (Queue::EMPTY, Queue::EMPTY);
        for number in 0..6 {
            queues.push(if number % 2 == 0 { &mut a } else { &mut b }, number);
        }
        assert_eq!((a.len(), b.len(), queues.len()), (3, 3, 6));
        assert_eq!(queues.pop(&mut a), Some(0));
        queues.push(&mut b, 6);
        assert_eq!(queues.drain(&mut b).collect::<Vec<_>>(), [1, 3, 5, 6]);
        assert_eq!(queues.pop(&mut b), None);
        assert_eq!(queues.drain(&mut a).collect::<Vec<_>>(), [2, 4]);
        assert!(queues.is_empty() && a.is_empty() && b.is_empty());
    }

    #[test]
    fn the_buffer_is_as_long_as_the_most_entries_at_once() {
        let mut queues = Queues::new();
        let mut queue = Queue::EMPTY;
        for number in 0..1000 {
            queues.push(&mut queue, number);
            queues.push(&mut queue, number);
            assert_eq!(queues.drain(&mut queue).count(), 2);
        }
        assert_eq!(queues.nodes.len(), 2);
    }

    #[test]
    fn a_long_buffer_is_given_back_when_it_is_cleared() {
        let mut queues = Queues::new();
        let mut queue = Queue::EMPTY;
        for number in 0..10 * BUFFER_ENTRIES_KEPT {
            queues.push(&mut queue, number);
        }
        queues.clear();
        assert!(queues.nodes.capacity() <= BUFFER_ENTRIES_KEPT);
    }
}
