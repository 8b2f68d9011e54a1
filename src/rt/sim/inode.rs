//! One stored file: what processes see, what is on stable storage, and what lies between.
//!
//! ```text
//! write_at ──> seen ──────────────> read_at
//!                └─ pending: writes since the last sync, oldest first
//! sync     ──> kept   (every version written before the sync began)
//! crash    ──> per pending sector: kept, one of the versions, zeroes or garbage
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::pages::Pages;

/// What a power loss never splits.
pub(super) const SECTOR_BYTES: usize = 512;

/// How hard a power loss hits what was not synced; drawn once per crash, so that the clean extremes come up
/// as often as the mixtures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing unsynced survives.
    All,
    /// Everything survives, as if the cache had been written back in time.
    None,
    /// Each sector old or new.
    Mixed,
    /// Each sector old, new, zero or garbage.
    Torn,
}

impl Loss {
    pub(super) fn draw(rng: &mut fastrand::Rng) -> Loss {
        match rng.u8(..8) {
            0 => Loss::All,
            1 => Loss::None,
            2..=4 => Loss::Mixed,
            _ => Loss::Torn,
        }
    }

    /// Whether one unsynced thing that cannot be torn survives.
    pub(super) fn spares(self, rng: &mut fastrand::Rng) -> bool {
        match self {
            Loss::All => false,
            Loss::None => true,
            Loss::Mixed | Loss::Torn => rng.bool(),
        }
    }
}

#[derive(Default)]
pub(super) struct Inode {
    seen: Pages,
    kept: Pages,
    /// Writes no sync has covered, oldest first.
    pending: Vec<Write>,
    /// Truncated since the last sync: `kept` may come back whole.
    cut: bool,
    stamp: u64,
}

struct Write {
    stamp: u64,
    /// A page boundary.
    pos: usize,
    bytes: Pages,
    /// A sync that failed gave this up: no later sync saves it (fsyncgate).
    abandoned: bool,
}

impl Write {
    /// Takes over what a newer write, now on stable storage, wrote: whatever becomes of this one, that stays.
    fn yield_to(&mut self, newer: &Write) {
        if newer.pos >= self.pos {
            self.bytes.put_within(newer.pos - self.pos, &newer.bytes);
        } else {
            let skipped = self.pos - newer.pos;
            self.bytes.put_within(0, &newer.bytes.after(skipped));
        }
    }
}

/// The point in a file's history a sync covers.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    stamp: u64,
    len: usize,
}

impl Inode {
    /// A file whose bytes are on stable storage already.
    pub(super) fn stored(bytes: &[u8]) -> Inode {
        let bytes = Pages::of(bytes);
        Inode {
            seen: bytes.clone(),
            kept: bytes,
            ..Inode::default()
        }
    }

    pub(super) fn seen(&self) -> &Pages {
        &self.seen
    }

    pub(super) fn kept(&self) -> &Pages {
        &self.kept
    }

    pub(super) fn truncate(&mut self) {
        self.seen = Pages::default();
        self.pending.clear();
        self.cut = true;
    }

    /// A write that the next sync will save. `pos` is a page boundary.
    pub(super) fn write(&mut self, pos: usize, bytes: &[u8]) {
        let bytes = Pages::of(bytes);
        self.stamp += 1;
        self.seen.put(pos, &bytes);
        self.pending.push(Write {
            stamp: self.stamp,
            pos,
            bytes,
            abandoned: false,
        });
    }

    /// A write that is on stable storage at once.
    pub(super) fn write_through(&mut self, pos: usize, bytes: &[u8]) {
        let bytes = Pages::of(bytes);
        self.settle_cut();
        self.seen.put(pos, &bytes);
        self.kept.put(pos, &bytes);
        let write = Write {
            stamp: self.stamp,
            pos,
            bytes,
            abandoned: false,
        };
        for older in &mut self.pending {
            older.yield_to(&write);
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            stamp: self.stamp,
            len: self.seen.len(),
        }
    }

    /// Saves everything written up to the mark.
    pub(super) fn sync(&mut self, mark: Mark) {
        self.settle_cut();
        let (covered, mut rest): (Vec<Write>, Vec<Write>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|write| write.stamp <= mark.stamp && !write.abandoned);
        for write in &covered {
            self.kept.put(write.pos, &write.bytes);
            for older in rest.iter_mut().filter(|other| other.stamp < write.stamp) {
                older.yield_to(write);
            }
        }
        self.pending = rest;
        // A gap never written reads as zeroes.
        if self.kept.len() < mark.len.min(self.seen.len()) {
            self.kept.resize(mark.len);
        }
    }

    /// A sync up to the mark failed.
    pub(super) fn abandon(&mut self, mark: Mark) {
        for write in &mut self.pending {
            write.abandoned |= write.stamp <= mark.stamp;
        }
    }

    /// Power loss.
    pub(super) fn tear(&mut self, loss: Loss, rng: &mut fastrand::Rng) {
        let pending = std::mem::take(&mut self.pending);
        if self.cut && !loss.spares(rng) {
            self.seen.clone_from(&self.kept);
            self.cut = false;
            return;
        }
        if pending.is_empty() && !self.cut && self.kept.len() == self.seen.len() {
            return;
        }
        self.settle_cut();
        let (old_len, new_len) = (self.kept.len(), self.seen.len());
        let len = match loss {
            Loss::All => old_len,
            Loss::None => new_len,
            Loss::Mixed | Loss::Torn => match rng.u8(..3) {
                0 => old_len,
                1 => new_len,
                _ => between(old_len, new_len, rng),
            },
        };
        let mut sectors: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for write in pending.iter().filter(|_| loss != Loss::All) {
            let bytes = write.bytes.to_vec();
            for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                let versions = sectors.entry(write.pos / SECTOR_BYTES + index).or_default();
                versions.push(sector.to_vec());
            }
        }
        for (sector, versions) in sectors {
            if let Some(bytes) = survivor(&versions, loss, rng) {
                self.kept.put_bytes(sector * SECTOR_BYTES, &bytes);
            }
        }
        self.kept.resize(len);
        self.seen.clone_from(&self.kept);
    }

    fn settle_cut(&mut self) {
        if std::mem::take(&mut self.cut) {
            self.kept = Pages::default();
        }
    }
}

/// A whole number of sectors between two lengths, or one of them.
fn between(low: usize, high: usize, rng: &mut fastrand::Rng) -> usize {
    let low_sectors = low.div_ceil(SECTOR_BYTES);
    let high_sectors = high / SECTOR_BYTES;
    if low_sectors >= high_sectors {
        return low;
    }
    rng.usize(low_sectors..=high_sectors) * SECTOR_BYTES
}

/// What takes the place of a sector; `None`: what was there stays.
fn survivor<'a>(
    versions: &'a [Vec<u8>],
    loss: Loss,
    rng: &mut fastrand::Rng,
) -> Option<Cow<'a, [u8]>> {
    let newest = versions.last()?;
    match loss {
        Loss::All => return None,
        Loss::None => return Some(Cow::from(newest)),
        Loss::Mixed | Loss::Torn => {}
    }
    match rng.u8(..16) {
        0..=6 => None,
        14 if loss == Loss::Torn => Some(Cow::from(vec![0; SECTOR_BYTES])),
        15 if loss == Loss::Torn => {
            let mut garbage = vec![0; SECTOR_BYTES];
            rng.fill(&mut garbage);
            Some(Cow::from(garbage))
        }
        _ => Some(Cow::from(&versions[rng.usize(..versions.len())])),
    }
}
