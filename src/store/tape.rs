//! The WAL segment being written: groups go on at its end, each on stable storage before the next begins.
//!
//! ```text
//! |header|DATA|DATA DATA|SEAL|DATA|...|ROLL|
//!                                  ^at
//! ```
//!
//! Two pages stay free behind every DATA group, for the SEAL and the ROLL that may have to follow it. After
//! an error nothing more may be written: what lies at `at` is unknown.

use std::io;
use std::path::PathBuf;

use super::format::Owner;
use super::format::frame::{Chain, Header, Kind, Log, group_bytes};
use super::segments::Ready;
use crate::base::limits::DISK_PAGE_BYTES;
use crate::rt::Rt;
use crate::rt::file::File;

const PAGE: u64 = DISK_PAGE_BYTES as u64;

/// The segment being written.
pub(crate) struct Tape {
    pub(crate) id: u64,
    pub(crate) bytes: u64,
    pub(crate) path: PathBuf,
    file: File,
    at: u64,
    chain: Chain,
    /// No DATA group since the last SEAL, or since the start.
    sealed: bool,
}

impl Tape {
    /// Length a segment must have to take a group with this body.
    pub(crate) fn bytes_for(body_len: usize) -> u64 {
        PAGE + group_bytes(body_len) as u64 + 2 * PAGE
    }

    /// Begins a segment: its header, with a fresh salt, is durable when this returns.
    pub(crate) async fn start(
        rt: &Rt,
        owner: Owner,
        ready: Ready,
        first_seq: u64,
        prev_id: u64,
    ) -> io::Result<Tape> {
        let header = Header {
            log: Log::Wal,
            owner,
            id: ready.id,
            bytes: ready.bytes,
            salt: rt.entropy(),
            first_seq,
            prev_id,
        };
        let mut page = ready.file.alloc(DISK_PAGE_BYTES);
        header.encode(&mut page);
        ready.file.write_at(page, 0).await?;
        Ok(Tape {
            id: ready.id,
            bytes: ready.bytes,
            path: ready.path,
            file: ready.file,
            at: PAGE,
            chain: Chain::new(&header),
            sealed: true,
        })
    }

    /// Whether a group with this body still fits.
    pub(crate) fn fits(&self, body_len: usize) -> bool {
        self.at + group_bytes(body_len) as u64 + 2 * PAGE <= self.bytes
    }

    /// Number of the last DATA group.
    pub(crate) fn seq(&self) -> u64 {
        self.chain.seq()
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Writes one DATA group, which must fit; returns its length on disk.
    pub(crate) async fn write(&mut self, records: u32, body: &[u8]) -> io::Result<u64> {
        let mut buf = self.file.alloc(group_bytes(body.len()));
        let len = buf.len() as u64;
        self.chain.data(records, body, &mut buf);
        self.file.write_at(buf, self.at).await?;
        self.at += len;
        self.sealed = false;
        Ok(len)
    }

    /// Writes a SEAL or a ROLL.
    pub(crate) async fn mark(&mut self, kind: Kind) -> io::Result<()> {
        let mut page = self.file.alloc(DISK_PAGE_BYTES);
        self.chain.mark(kind, &mut page);
        self.file.write_at(page, self.at).await?;
        self.at += PAGE;
        self.sealed = true;
        Ok(())
    }
}
