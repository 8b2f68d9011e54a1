//! Pure. Slices of the ring: the unit in which ownership, repair and damage are counted.
//!
//! ```text
//! token (64 bits) = | slice: 12 | rest |          4096 slices, whatever the number of virtual nodes
//! Slices          = one bit per slice, 512 bytes  what a bounded set of slices costs, for ever
//! ```

/// Slices of the ring.
pub const SLICES: usize = 1 << SLICE_BITS;
const SLICE_BITS: u32 = 12;
/// Length of a [`Slices`] as bytes.
pub const SLICES_BYTES: usize = SLICES / 8;

/// One slice, below [`SLICES`] by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice(u16);

impl Slice {
    /// The slice a token lies in.
    #[must_use]
    pub fn of(token: u64) -> Slice {
        Slice((token >> (64 - SLICE_BITS)) as u16)
    }

    /// All slices, in ring order.
    pub fn all() -> impl Iterator<Item = Slice> {
        (0..SLICES as u16).map(Slice)
    }

    /// The smallest token of this slice.
    #[must_use]
    pub fn first_token(self) -> u64 {
        u64::from(self.0) << (64 - SLICE_BITS)
    }

    /// As an index into tables with one entry per slice.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slices([u64; SLICES / 64]);

impl Slices {
    pub const NONE: Slices = Slices([0; SLICES / 64]);
    pub const ALL: Slices = Slices([u64::MAX; SLICES / 64]);

    pub fn insert(&mut self, slice: Slice) {
        self.0[slice.index() / 64] |= 1 << (slice.index() % 64);
    }

    pub fn remove(&mut self, slice: Slice) {
        self.0[slice.index() / 64] &= !(1 << (slice.index() % 64));
    }

    #[must_use]
    pub fn contains(&self, slice: Slice) -> bool {
        self.0[slice.index() / 64] >> (slice.index() % 64) & 1 == 1
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Slices in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn union(&mut self, other: &Slices) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
    }

    /// Takes out what is in `other`.
    pub fn subtract(&mut self, other: &Slices) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine &= !theirs;
        }
    }

    /// Members of the set, in ring order.
    pub fn iter(&self) -> impl Iterator<Item = Slice> {
        Slice::all().filter(|slice| self.contains(*slice))
    }

    /// Little-endian words, slice 0 in the lowest bit of the first.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SLICES_BYTES] {
        let mut bytes = [0; SLICES_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    #[must_use]
    pub fn from_bytes(bytes: &[u8; SLICES_BYTES]) -> Slices {
        let (words, _) = bytes.as_chunks::<8>();
        let mut slices = Slices::NONE;
        for (place, word) in slices.0.iter_mut().zip(words) {
            *place = u64::from_le_bytes(*word);
        }
        slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_survives_as_bytes() {
        let mut set = Slices::NONE;
        assert!(set.is_empty());
        let some = [Slice(0), Slice(63), Slice(64), Slice(4095)];
        for slice in some {
            set.insert(slice);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), some);
        assert_eq!(Slices::from_bytes(&set.to_bytes()), set);
        assert_eq!(set.to_bytes()[..9], [1, 0, 0, 0, 0, 0, 0, 0x80, 1]);
        set.remove(Slice(63));
        assert!(!set.contains(Slice(63)) && set.len() == 3);
        let mut other = Slices::NONE;
        other.insert(Slice(7));
        other.union(&set);
        assert_eq!((other.len(), Slices::ALL.len()), (4, SLICES));
        other.subtract(&set);
        assert_eq!(other.iter().collect::<Vec<_>>(), [Slice(7)]);
    }

    #[test]
    fn tokens_fall_into_the_slice_that_begins_before_them() {
        for slice in Slice::all() {
            assert_eq!(Slice::of(slice.first_token()), slice);
        }
        assert_eq!(Slice::of(u64::MAX), Slice(4095));
        assert_eq!(Slice::of((1 << 52) - 1), Slice(0));
    }
}
