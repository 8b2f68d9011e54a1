//! Bytes of a simulated file as shared pages: seen, kept and pending copies of one page are one allocation, and
//! a page of zeroes is none. Files are mostly zeroes written ahead, and every life of a world writes them again.

use std::rc::Rc;

use crate::base::limits::DISK_PAGE_BYTES;

const PAGE: usize = DISK_PAGE_BYTES;
static ZEROES: [u8; PAGE] = [0; PAGE];

/// A run of bytes starting at a page boundary.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    /// `None` is all zeroes. Bytes beyond `len` are zero.
    pages: Vec<Option<Rc<[u8; PAGE]>>>,
    len: usize,
}

impl Pages {
    pub(super) fn of(bytes: &[u8]) -> Pages {
        let page = |chunk: &[u8]| {
            (*chunk != ZEROES[..chunk.len()]).then(|| {
                let mut page = [0; PAGE];
                page[..chunk.len()].copy_from_slice(chunk);
                Rc::new(page)
            })
        };
        Pages {
            pages: bytes.chunks(PAGE).map(page).collect(),
            len: bytes.len(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The bytes from `pos` on; `None` when there are fewer than `len`.
    pub(super) fn read(&self, pos: usize, len: usize) -> Option<Vec<u8>> {
        let end = pos.checked_add(len).filter(|end| *end <= self.len)?;
        let mut bytes = vec![0; len];
        let mut at = pos;
        while at < end {
            let (page, offset) = (at / PAGE, at % PAGE);
            let taken = (PAGE - offset).min(end - at);
            if let Some(page) = &self.pages[page] {
                bytes[at - pos..][..taken].copy_from_slice(&page[offset..][..taken]);
            }
            at += taken;
        }
        Some(bytes)
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.read(0, self.len).unwrap_or_default()
    }

    /// Everything from page boundary `pos` on.
    pub(super) fn after(&self, pos: usize) -> Pages {
        Pages {
            pages: self.pages.get(pos / PAGE..).unwrap_or(&[]).to_vec(),
            len: self.len.saturating_sub(pos),
        }
    }

    /// Cuts off, or adds zeroes.
    pub(super) fn resize(&mut self, len: usize) {
        self.pages.resize(len.div_ceil(PAGE), None);
        if len < self.len
            && let Some(Some(last)) = self.pages.last_mut()
            && !len.is_multiple_of(PAGE)
        {
            Rc::make_mut(last)[len % PAGE..].fill(0);
        }
        self.len = len;
    }

    /// Overwrites from page boundary `pos` on, growing as needed.
    pub(super) fn put(&mut self, pos: usize, other: &Pages) {
        if self.len < pos + other.len {
            self.resize(pos + other.len);
        }
        self.put_within(pos, other);
    }

    /// Overwrites what lies in both, `other` standing at `pos`.
    pub(super) fn put_within(&mut self, pos: usize, other: &Pages) {
        let first = pos / PAGE;
        for (index, page) in other.pages.iter().enumerate() {
            let at = first + index;
            if at >= self.pages.len() {
                break;
            }
            let covered = (other.len - index * PAGE).min(PAGE);
            let wanted = (self.len - at * PAGE).min(PAGE);
            if covered >= wanted && wanted == PAGE {
                self.pages[at].clone_from(page);
            } else {
                let bytes = page.as_deref().unwrap_or(&ZEROES);
                let taken = covered.min(wanted);
                self.page_mut(at)[..taken].copy_from_slice(&bytes[..taken]);
            }
        }
    }

    /// Overwrites a few bytes inside one page, growing as needed.
    pub(super) fn put_bytes(&mut self, pos: usize, bytes: &[u8]) {
        if self.len < pos + bytes.len() {
            self.resize(pos + bytes.len());
        }
        self.page_mut(pos / PAGE)[pos % PAGE..][..bytes.len()].copy_from_slice(bytes);
    }

    fn page_mut(&mut self, index: usize) -> &mut [u8; PAGE] {
        Rc::make_mut(self.pages[index].get_or_insert_with(|| Rc::new([0; PAGE])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random puts and resizes against a plain vector.
    #[test]
    fn pages_are_a_vector_of_bytes() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut pages, mut plain) = (Pages::default(), Vec::new());
            for _ in 0..30 {
                let pos = rng.usize(..4) * PAGE;
                let mut bytes = vec![rng.u8(..2); rng.usize(1..3 * PAGE)];
                rng.fill(&mut bytes[..1]);
                let end = pos + bytes.len();
                match rng.u8(..4) {
                    0 => {
                        let len = rng.usize(..6 * PAGE);
                        pages.resize(len);
                        plain.resize(len, 0);
                    }
                    1 if pos < plain.len() => {
                        pages.put_within(pos, &Pages::of(&bytes));
                        let end = end.min(plain.len());
                        plain[pos..end].copy_from_slice(&bytes[..end - pos]);
                    }
                    2 => {
                        let pos = pos + 512 * rng.usize(..8);
                        pages.put_bytes(pos, &[7; 512]);
                        plain.resize(plain.len().max(pos + 512), 0);
                        plain[pos..pos + 512].fill(7);
                    }
                    _ => {
                        pages.put(pos, &Pages::of(&bytes));
                        plain.resize(plain.len().max(end), 0);
                        plain[pos..end].copy_from_slice(&bytes);
                    }
                }
                assert_eq!(pages.len(), plain.len(), "seed {seed}");
                assert!(pages.to_vec() == plain, "seed {seed}");
            }
            let at = rng.usize(..=plain.len());
            let part = rng.usize(..=plain.len() - at);
            assert!(
                pages.read(at, part).unwrap() == plain[at..at + part],
                "seed {seed}"
            );
            assert!(pages.read(at, plain.len() - at + 1).is_none());
        }
    }
}
