//! Pure. Work that waits for an answer, found again by a ticket that may safely come too late.
//!
//! ```text
//! ticket: u64 = | generation 32 | index 32 |
//! ```
//!
//! A ticket travels to the log or to another core and back. The generation of an entry grows each time it is
//! freed, so a ticket that outlived its entry finds nothing instead of somebody else's work.

/// Entries of type `T`, each named by the ticket that [`Slots::insert`] gave out.
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

fn split(ticket: u64) -> (u32, usize) {
    ((ticket >> 32) as u32, (ticket & 0xffff_ffff) as usize)
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots {
            entries: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                value: None,
            });
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        entry.value = Some(value);
        u64::from(entry.generation) << 32 | u64::from(index)
    }

    pub(crate) fn get_mut(&mut self, ticket: u64) -> Option<&mut T> {
        let (generation, index) = split(ticket);
        let entry = self.entries.get_mut(index)?;
        (entry.generation == generation)
            .then_some(entry.value.as_mut())
            .flatten()
    }

    /// Frees the entry; the ticket and its copies are stale from now on.
    pub(crate) fn remove(&mut self, ticket: u64) -> Option<T> {
        let (generation, index) = split(ticket);
        let entry = self.entries.get_mut(index)?;
        if entry.generation != generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index as u32);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_ticket_finds_nothing_although_its_place_is_used_again() {
        let mut slots = Slots::new();
        let first = slots.insert('a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b');
        assert_eq!(first & 0xffff_ffff, second & 0xffff_ffff, "place reused");
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut 'b'));
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.get_mut(77), None, "never given out");
    }
}
