//! Drives one [`Scan`]: asks the shards for pages, and gives the answer away in pieces.
//!
//! ```text
//!  pages ─▶ Scan ─▶ body ──(whole and at most SCAN_BUFFER_BYTES)──▶ one answer with Content-Length
//!                    └─────(longer)──▶ chunked head, then pieces as fast as the connection takes them
//! ```
//!
//! Back-pressure: rows are written only into room that the connection has, and pages are asked for only as rows
//! leave; a client that does not read stops the scan with two pages per shard in memory at most.
//!
//! With `limit=` the answer is always whole: it ends at the limit or at about SCAN_BUFFER_BYTES, whichever
//! comes first, and `X-Kv-Next` holds the `start=` of the rest.
//!
//! A failure before the first byte is a 5xx; after it the connection is cut without the last chunk, so that
//! what the client has never looks like a whole answer.

use std::borrow::Cow;

use super::answer::Form;
use super::arrivals::Asker;
use super::failure::Failure;
use super::links::{Heard, What};
use super::msg::Ask;
use super::route::{Place, Router, Waiting};
use super::scan::{Progress, Scan, Sources, Stream};
use crate::base::limits::{
    SCAN_BUFFER_BYTES, SCAN_BYTES_PER_CORE_MAX, SCAN_PAGE_BYTES, SCANS_PER_CORE_MAX,
};
use crate::base::member::NodeId;
use crate::base::slices::Slices;
use crate::base::time::Instant;
use crate::cluster::cover::cover;
use crate::cluster::merge::Disorder;
use crate::http::response::{self, Kind};
use crate::http::status::Status;
use crate::store::{Page, ScanRange};
use crate::wire::message::{self as wire, Message, Why};

/// A scan on its way to one connection.
pub(super) struct ScanRun {
    place: Place,
    form: Form,
    limited: bool,
    scan: Scan,
    /// Answer bytes not given away yet.
    body: Vec<u8>,
    progress: Progress,
    stream: Option<response::Stream>,
    failure: Option<Failure>,
    /// What the core has counted this scan to hold.
    counted: usize,
    /// Pages asked of peers and not here yet, and when the last of them is given up.
    peer_pages: usize,
    peer_deadline: Instant,
}

/// What [`Router::take_scan`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Pages are on their way; the connection is stirred when they have come.
    Waiting,
    /// The room is used up; come again when the client has read.
    NoRoom,
    /// The answer is complete.
    Done,
    /// Part of the answer has left and the rest will not come: cut the connection.
    Cut,
}

impl ScanRun {
    /// Something is there for the connection to take.
    fn is_ripe(&self) -> bool {
        self.failure.is_some()
            || match self.progress {
                Progress::Done { .. } | Progress::Full => true,
                Progress::Blocked => self.stream.is_some() && !self.body.is_empty(),
            }
    }
}

impl Router {
    /// Starts a scan; its pieces are fetched with [`Router::take_scan`] under the ticket.
    pub(crate) fn start_scan(
        &mut self,
        place: Place,
        form: Form,
        [from, to]: [Option<Cow<'_, [u8]>>; 2],
        rows_max: Option<u64>,
        needed: u16,
    ) -> Result<u64, Failure> {
        if self.scans >= SCANS_PER_CORE_MAX {
            return Err(Failure::Busy);
        }
        let own = |end: Cow<'_, [u8]>| end.into_owned().into_boxed_slice();
        let sources = self.sources(needed)?;
        let scan = Scan::new(from.map(own), to.map(own), rows_max, sources);
        let ticket = self.waiting.insert(Waiting::Scan(Box::new(ScanRun {
            place,
            form,
            limited: rows_max.is_some(),
            scan,
            body: Vec::new(),
            progress: Progress::Blocked,
            stream: None,
            failure: None,
            counted: 0,
            peer_pages: 0,
            peer_deadline: Instant(0),
        })));
        self.scans += 1;
        self.advance(ticket, SCAN_BUFFER_BYTES);
        Ok(ticket)
    }

    /// Forgets a scan: its connection has gone, or it is done. Pages still on their way are dropped.
    pub(crate) fn end_scan(&mut self, ticket: u64) {
        if let Some(Waiting::Scan(run)) = self.waiting.remove(ticket) {
            self.scans -= 1;
            self.scan_bytes -= run.counted;
        }
    }

    /// Keeps the sum of what all scans hold; a scan that has just grown it too far fails.
    fn recount_scan(&mut self, ticket: u64) {
        let Some(Waiting::Scan(run)) = self.waiting.get_mut(ticket) else {
            return;
        };
        let held = run.scan.held_bytes() + run.body.len();
        self.scan_bytes += held;
        self.scan_bytes -= run.counted;
        if held > run.counted && self.scan_bytes > SCAN_BYTES_PER_CORE_MAX {
            run.failure = Some(Failure::Busy);
        }
        run.counted = held;
    }

    /// Writes rows while there is room in the body, and asks for the pages that became wanted.
    fn advance(&mut self, ticket: u64, bytes_max: usize) {
        let Some(Waiting::Scan(run)) = self.waiting.get_mut(ticket) else {
            return;
        };
        if run.body.len() < bytes_max && !matches!(run.progress, Progress::Done { .. }) {
            // What the rows at hand come to, but for quotes and escapes: one allocation, not a dozen that double.
            run.body.reserve(run.scan.held_bytes().min(bytes_max));
            run.progress = run.scan.write(&mut run.body, bytes_max);
        }
        let mut wanted = Vec::new();
        while let Some((at, range, rows_max)) = run.scan.next_wanted() {
            let stream = run.scan.stream(at).cloned();
            wanted.extend(stream.map(|stream| (at, stream, range, rows_max)));
        }
        for (at, stream, range, rows_max) in wanted {
            self.ask_page(ticket, at, &stream, range, rows_max);
        }
    }

    fn ask_page(
        &mut self,
        ticket: u64,
        at: usize,
        stream: &Stream,
        range: ScanRange,
        rows_max: usize,
    ) {
        let shard = stream.shard;
        if let Some(node) = stream.node {
            return self.ask_peer_page(ticket, at, (node, shard), &range, rows_max);
        }
        let core = self.owners.core_of(shard);
        if core == self.rt.core() {
            self.scan_local(shard, range, rows_max, Asker::Here(ticket));
        } else {
            let ask = Ask::Scan {
                shard,
                range,
                rows_max,
            };
            self.ask(core, ticket, ask);
        }
    }

    fn ask_peer_page(
        &mut self,
        ticket: u64,
        at: usize,
        (node, shard): (NodeId, u16),
        range: &ScanRange,
        rows_max: usize,
    ) {
        let now = self.now();
        let message = Message::Scan(wire::Scan {
            shard,
            rows_max: rows_max as u32,
            from: range.from.as_deref(),
            after: range.after.as_deref(),
            to: range.to.as_deref(),
            slices: range.slices.clone(),
        });
        let Some(member) = &mut self.member else {
            return;
        };
        let timeout = member.facts.timeout;
        let sent = member
            .peers
            .send(node, None, (ticket, What::Page(at)), timeout, &message);
        let Some(Waiting::Scan(run)) = self.waiting.get_mut(ticket) else {
            return;
        };
        if sent.is_err() {
            run.failure = Some(Failure::Lost);
            self.stirred.push(run.place.token);
            return;
        }
        run.peer_pages += 1;
        run.peer_deadline = now + timeout;
        self.set_deadline(now + timeout, ticket);
    }

    /// A page of a peer has come, or will not come.
    pub(super) fn on_peer_page(&mut self, ticket: u64, at: usize, heard: Heard) {
        let Some(Waiting::Scan(run)) = self.waiting.get_mut(ticket) else {
            return;
        };
        run.peer_pages -= 1;
        let page = match heard {
            Heard::Page { rows, resume } => Ok(Page { rows, resume }),
            Heard::Refused(Why::Busy) => Err(Failure::Busy),
            _ => Err(Failure::Lost),
        };
        self.add_page(ticket, at, page);
    }

    /// The time of some page is over.
    pub(super) fn on_scan_overdue(&mut self, ticket: u64) {
        let now = self.now();
        let Some(Waiting::Scan(run)) = self.waiting.get_mut(ticket) else {
            return;
        };
        if run.peer_pages > 0 && run.peer_deadline <= now {
            run.failure = Some(Failure::Lost);
            self.stirred.push(run.place.token);
        }
    }

    /// Who shows which slices to a scan that wants every key from `needed` replicas.
    fn sources(&self, needed: u16) -> Result<Sources, Failure> {
        let Some(member) = &self.member else {
            return Ok(Sources::alone(self.owners.shards()));
        };
        let me = member.facts.me;
        let covered = cover(
            |slice| member.ring.replicas(slice),
            |node| member.peers.state(node),
            me,
            usize::from(needed),
        );
        let covered = covered.map_err(|gap| Failure::Unavailable {
            alive: gap.alive as u16,
            needed,
        })?;
        let mut streams = Vec::new();
        for part in covered {
            let here = part.node == me;
            let shards = if here {
                self.owners.shards()
            } else {
                member.peers.shards(part.node)
            };
            let slices = (part.slices != Slices::ALL).then(|| Box::new(part.slices));
            streams.extend((0..shards).map(|shard| Stream {
                node: (!here).then_some(part.node),
                shard,
                slices: slices.clone(),
            }));
        }
        Ok(Sources {
            streams,
            copies: needed,
        })
    }

    /// A page of a shard of this node has come.
    pub(super) fn on_page(&mut self, ticket: u64, shard: u16, page: Result<Page, Failure>) {
        let Some(Waiting::Scan(run)) = self.waiting.get_mut(ticket) else {
            return;
        };
        if let Some(at) = run.scan.own_stream(shard) {
            self.add_page(ticket, at, page);
        }
    }

    fn add_page(&mut self, ticket: u64, at: usize, page: Result<Page, Failure>) {
        let Some(Waiting::Scan(run)) = self.waiting.get_mut(ticket) else {
            return;
        };
        let added = page.and_then(|page| {
            let added = run.scan.add(at, page.rows, page.resume);
            added.map_err(|Disorder| Failure::Lost)
        });
        if let Err(failure) = added {
            run.failure = Some(failure);
        }
        self.advance(ticket, SCAN_BUFFER_BYTES);
        self.recount_scan(ticket);
        if let Some(Waiting::Scan(run)) = self.waiting.get_mut(ticket)
            && run.is_ripe()
        {
            self.stirred.push(run.place.token);
        }
    }

    /// Appends what is ready of the answer, until `out` has `bytes_max`. Called for the first request of a
    /// connection only.
    pub(crate) fn take_scan(&mut self, ticket: u64, out: &mut Vec<u8>, bytes_max: usize) -> Taken {
        loop {
            let pen = &mut self.pen;
            let Some(Waiting::Scan(run)) = self.waiting.get_mut(ticket) else {
                return Taken::Cut;
            };
            if let Some(failure) = run.failure {
                let (started, form) = (run.stream.is_some(), run.form);
                if !started {
                    pen.refused(out, form, &failure.into());
                }
                self.end_scan(ticket);
                return if started { Taken::Cut } else { Taken::Done };
            }
            match (run.progress, run.stream) {
                (Progress::Full, None) if run.limited => {
                    run.scan.cut();
                    run.progress = run.scan.write(&mut run.body, usize::MAX);
                }
                (Progress::Full, None) => {
                    let form = run.form;
                    let stream = form
                        .frame
                        .start(out, &pen.date, Status::Ok, Kind::Json, &[]);
                    run.stream = Some(stream);
                    if form.frame.head_only {
                        self.end_scan(ticket);
                        return Taken::Done;
                    }
                }
                (Progress::Done { cut }, None) => {
                    let next = cut.then(|| next_start(run.scan.last_key()));
                    let extra = next.as_ref().map(|next| ("X-Kv-Next", &next[..]));
                    let (frame, date) = (run.form.frame, &pen.date);
                    let extra = extra.as_slice();
                    frame.answer(out, date, Status::Ok, Kind::Json, extra, &run.body);
                    self.end_scan(ticket);
                    return Taken::Done;
                }
                (Progress::Blocked, None) => return Taken::Waiting,
                (progress, Some(stream)) => {
                    stream.piece(out, &run.body);
                    run.body.clear();
                    if matches!(progress, Progress::Done { .. }) {
                        stream.end(out);
                        self.end_scan(ticket);
                        return Taken::Done;
                    }
                    if out.len() >= bytes_max {
                        return Taken::NoRoom;
                    }
                    self.advance(ticket, SCAN_PAGE_BYTES);
                    if let Some(Waiting::Scan(run)) = self.waiting.get_mut(ticket)
                        && !run.is_ripe()
                    {
                        return Taken::Waiting;
                    }
                }
            }
        }
    }
}

/// The smallest key after `last`, percent-encoded: ready to be a `start=`.
fn next_start(last: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = Vec::with_capacity(last.len() + 3);
    for &byte in last.iter().chain(&[0]) {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte);
        } else {
            text.push(b'%');
            text.push(HEX[usize::from(byte >> 4)]);
            text.push(HEX[usize::from(byte & 15)]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_start_is_the_successor_and_safe_in_a_url() {
        assert_eq!(next_start(b"a:b"), b"a%3Ab%00");
        assert_eq!(next_start("é".as_bytes()), b"%C3%A9%00");
    }
}
