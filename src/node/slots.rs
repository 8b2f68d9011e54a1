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
        let ticket = self.reserve();
        self.give_back(ticket, value);
        ticket
    }

    /// A place whose value is still to come, as if it were lent.
    pub(crate) fn reserve(&mut self) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                value: None,
            });
            (self.entries.len() - 1) as u32
        });
        let entry = &self.entries[index as usize];
        u64::from(entry.generation) << 32 | u64::from(index)
    }

    pub(crate) fn get_mut(&mut self, ticket: u64) -> Option<&mut T> {
        let (generation, index) = split(ticket);
        let entry = self.entries.get_mut(index)?;
        (entry.generation == generation)
            .then_some(entry.value.as_mut())
            .flatten()
    }

    /// Whether the ticket still stands for something.
    pub(crate) fn holds(&self, ticket: u64) -> bool {
        let (generation, index) = split(ticket);
        let entry = self.entries.get(index);
        entry.is_some_and(|entry| entry.generation == generation && entry.value.is_some())
    }

    /// Frees every entry that `stays` says no to.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if entry.value.as_ref().is_some_and(|value| !stays(value)) {
                entry.value = None;
                entry.generation = entry.generation.wrapping_add(1);
                self.free.push(index as u32);
            }
        }
    }

    /// Takes the value out and keeps its place, until [`Slots::give_back`] or [`Slots::free`].
    pub(crate) fn lend(&mut self, ticket: u64) -> Option<T> {
        let (generation, index) = split(ticket);
        let entry = self.entries.get_mut(index)?;
        if entry.generation != generation {
            return None;
        }
        entry.value.take()
    }

    /// Puts a lent value back in its place.
    pub(crate) fn give_back(&mut self, ticket: u64, value: T) {
        let (generation, index) = split(ticket);
        let entry = &mut self.entries[index];
        assert!(
            entry.generation == generation && entry.value.is_none(),
            "the place was kept"
        );
        entry.value = Some(value);
    }

    /// Frees the place of a lent value.
    pub(crate) fn free(&mut self, ticket: u64) {
        let (generation, index) = split(ticket);
        let entry = &mut self.entries[index];
        assert!(
            entry.generation == generation && entry.value.is_none(),
            "the place was kept"
        );
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index as u32);
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
    fn a_lent_value_keeps_its_place() {
        let mut slots = Slots::new();
        let ticket = slots.insert('a');
        assert_eq!(slots.lend(ticket), Some('a'));
        assert_eq!((slots.lend(ticket), slots.remove(ticket)), (None, None));
        assert_ne!(slots.insert('b'), ticket);
        slots.give_back(ticket, 'c');
        assert_eq!(slots.lend(ticket), Some('c'));
        slots.free(ticket);
        assert_eq!(slots.lend(ticket), None);
        assert_eq!(slots.len(), 1);
    }

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
