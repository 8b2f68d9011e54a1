//! Reads the WAL back at open, and refuses when something that was answered is missing.
//!
//! ```text
//! wal/*.wal -> headers -> judge: which are in use, in one unbroken chain?  -> walk each (format/walk.rs)
//!                                                                           -> ops above flushed_seq: apply
//!  1 flushed    2 first_seq 40      3 first_seq 95          4 prev_id 0: a later boot    5 never used
//!  (skipped)    .. must reach 94    .. must reach 4's - 1   .. may end in a torn tail    (removed at open)
//! ```
//!
//! A header's `first_seq` promises all groups before it: within a boot because they were answered, at the
//! start of a boot because replay had taken them and made them durable. So every segment but the last must
//! reach its successor exactly, and only the last may end torn.
//!
//! The `flushed_seq` filter is a rule of correctness, not of speed: a replayed put whose tombstone has been
//! compacted away would come back to life. Old files are only read here; they go when a flush releases them.

use std::io;
use std::path::{Path, PathBuf};

use super::Op;
use super::format::frame::{BadHeader, Header, Log, claims_group};
use super::format::record::Ops;
use super::format::walk::{End, Walk};
use super::format::{Owner, TMP_SUFFIX, segment_id};
use super::unreadable::Unreadable;
use crate::base::limits::DISK_PAGE_BYTES;
use crate::base::planted::{self, Bug};
use crate::rt::Rt;
use crate::rt::file::{File, Mode};

/// Shorter than any segment ever made; one page each for header, group, SEAL and ROLL.
const SEGMENT_BYTES_MIN: u64 = 4 * DISK_PAGE_BYTES as u64;
/// A segment without a header is looked through in pieces of this size: it is as a rule an unused one, and a map
/// would fault in all its zeros.
const READ_BYTES: u64 = 1 << 20;
/// Other tasks get a turn after this many bytes of groups.
const YIELD_EVERY_BYTES: usize = 256 << 10;

/// What replay found.
#[derive(Debug)]
pub struct Replayed {
    /// Ops applied.
    pub entries: u64,
    /// Groups they were in.
    pub groups: u64,
    /// An unfinished write at the end; it was never answered. For the log only.
    pub torn_tail: Option<TornTail>,
    /// For `Wal::open`.
    pub resume: Resume,
}

/// Where a write was cut off.
#[derive(Clone, Debug)]
pub struct TornTail {
    pub file: PathBuf,
    pub offset: u64,
    /// What lies there.
    pub first: [u8; 16],
}

/// How the log goes on.
#[derive(Debug)]
pub struct Resume {
    pub next_seq: u64,
    pub next_segment_id: u64,
    /// Segments to keep until a release, oldest first.
    pub old_segments: Vec<OldSegment>,
    /// Segments without a header of their own.
    pub unused: Vec<PathBuf>,
    /// Segments with a header and no group, each before the start of a boot: superfluous once the next header
    /// says where the log goes on. Without this, boots that write nothing would add a segment each.
    pub hollow: Vec<PathBuf>,
}

impl Resume {
    /// Removes what no log needs: half made segments, and those that were never used.
    pub(crate) async fn clear(&mut self, rt: &Rt, dir: &Path) -> io::Result<()> {
        let names = match rt.list(dir).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        for name in names.iter().filter(|name| name.ends_with(TMP_SUFFIX)) {
            rt.remove(&dir.join(name)).await?;
        }
        for path in std::mem::take(&mut self.unused) {
            rt.remove(&path).await?;
        }
        Ok(())
    }
}

/// A segment of an earlier boot.
#[derive(Clone, Debug)]
pub struct OldSegment {
    pub path: PathBuf,
    pub bytes: u64,
    pub last_seq: u64,
}

/// Reads every group above `flushed_seq` in `dir`, oldest first, and hands its ops to `apply`.
pub async fn replay(
    rt: &Rt,
    dir: &Path,
    owner: Owner,
    flushed_seq: u64,
    apply: &mut dyn FnMut(u64, Op<'_>),
) -> Result<Replayed, Unreadable> {
    let files = find(rt, dir).await?;
    let mut found = Vec::new();
    for file in &files {
        let seen = Found::read(file, owner).await;
        found.push(seen.map_err(Unreadable::io(&file.path))?);
    }
    let steps = judge(&found, flushed_seq).map_err(|bad| {
        Unreadable::corrupt(
            files.get(bad.file).map_or(dir, |file| &file.path),
            bad.offset,
            bad.why,
        )
    })?;
    let mut replayed = Replayed {
        entries: 0,
        groups: 0,
        torn_tail: None,
        resume: Resume {
            next_seq: flushed_seq + 1,
            next_segment_id: found.last().map_or(1, |last| last.id + 1),
            old_segments: Vec::new(),
            unused: Vec::new(),
            hollow: Vec::new(),
        },
    };
    for step in &steps {
        let file = &files[step.file];
        read(rt, file, step, flushed_seq, apply, &mut replayed).await?;
    }
    if let Some(step) = steps.last() {
        // What was read may still sit in the drive's cache, after a kill; it is about to be served.
        let last = &files[step.file];
        last.file.sync().await.map_err(Unreadable::io(&last.path))?;
    }
    let unused = |n: &usize| !steps.iter().any(|step| step.file == *n);
    replayed.resume.unused = (0..files.len())
        .filter(unused)
        .map(|n| files[n].path.clone())
        .collect();
    Ok(replayed)
}

struct SegmentFile {
    id: u64,
    path: PathBuf,
    file: File,
}

impl SegmentFile {
    /// The first `len` bytes, fewer when the file is shorter.
    async fn read(&self, len: u64) -> io::Result<Vec<u8>> {
        let len = len.min(self.file.len());
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        while (bytes.len() as u64) < len {
            let at = bytes.len() as u64;
            bytes.append(&mut self.piece(at, len).await?);
        }
        Ok(bytes)
    }

    /// What lies at `at`, one read's worth, before `end`.
    async fn piece(&self, at: u64, end: u64) -> io::Result<Vec<u8>> {
        let len = usize::try_from(READ_BYTES.min(end - at)).expect("a piece fits memory");
        self.file.read_at(at, len).await
    }
}

async fn find(rt: &Rt, dir: &Path) -> Result<Vec<SegmentFile>, Unreadable> {
    let names = match rt.list(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(Unreadable::io(dir))?,
    };
    let mut files = Vec::new();
    for (id, name) in names
        .iter()
        .filter_map(|name| Some((segment_id(name)?, name)))
    {
        let path = dir.join(name);
        let file = rt.open(&path, Mode::Read).await;
        let file = file.map_err(Unreadable::io(&path))?;
        files.push(SegmentFile { id, path, file });
    }
    files.sort_by_key(|file| file.id);
    Ok(files)
}

/// Reads one segment of the plan.
async fn read(
    rt: &Rt,
    file: &SegmentFile,
    step: &Step,
    flushed_seq: u64,
    apply: &mut dyn FnMut(u64, Op<'_>),
    replayed: &mut Replayed,
) -> Result<(), Unreadable> {
    let corrupt = |offset, why: &str| Unreadable::corrupt(&file.path, offset, why);
    let mut last_seq = step.limit;
    if !step.is_flushed {
        let bytes = rt.map(&file.path).await;
        let bytes = bytes.map_err(Unreadable::io(&file.path))?;
        let mut walk = Walk::new(&bytes, step.header, step.promised, step.limit);
        let mut unyielded = 0;
        while let Some(group) = walk.next() {
            if group.seq > flushed_seq {
                replayed.groups += 1;
                for op in Ops::new(group.body) {
                    let op = op.map_err(|_| corrupt(walk.at(), "a group does not hold records"))?;
                    replayed.entries += 1;
                    if replayed.entries != 3 || !planted::is(Bug::ReplaySkips) {
                        apply(group.seq, op);
                    }
                }
            }
            unyielded += group.body.len();
            if unyielded > YIELD_EVERY_BYTES {
                unyielded = 0;
                rt.yield_now().await;
            }
        }
        let end = walk.end();
        if let Some(why) = step.objection(end, walk.next_seq()) {
            return Err(corrupt(walk.at(), why));
        }
        if let End::Torn { offset, first } = end {
            let file = file.path.clone();
            replayed.torn_tail = Some(TornTail {
                file,
                offset,
                first,
            });
        }
        last_seq = walk.next_seq() - 1;
    }
    replayed.resume.next_seq = replayed.resume.next_seq.max(last_seq + 1);
    if step.ends_boot && last_seq < step.header.first_seq {
        replayed.resume.hollow.push(file.path.clone());
        return Ok(());
    }
    replayed.resume.old_segments.push(OldSegment {
        path: file.path.clone(),
        bytes: file.file.len(),
        last_seq,
    });
    Ok(())
}

/// What the header page of one file says.
struct Found {
    id: u64,
    bytes: u64,
    header: Result<Header, BadHeader>,
    /// Some page looks like a group of this very file.
    claims_group: bool,
}

impl Found {
    /// Only where the header is no header is more than that page looked at: an unused segment is nothing but zeros,
    /// or a used one has lost its header.
    async fn read(file: &SegmentFile, owner: Owner) -> io::Result<Found> {
        let bytes = file.file.len();
        let page = file.read(DISK_PAGE_BYTES as u64).await?;
        let header = Header::decode(Log::Wal, owner, &page);
        let (mut claims, mut at) = (false, 0);
        while header.is_err() && !claims && at < bytes {
            let piece = file.piece(at, bytes).await?;
            let mut pages = piece.chunks(DISK_PAGE_BYTES);
            claims = pages.any(|page| claims_group(page, file.id));
            at += piece.len() as u64;
        }
        Ok(Found {
            id: file.id,
            bytes,
            header,
            claims_group: claims,
        })
    }
}

/// One segment to read.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// Index of the file.
    file: usize,
    header: Header,
    /// Every group up to here must be there.
    promised: u64,
    /// Groups above belong to the next segment.
    limit: u64,
    /// All of it is in tables: not read, only kept until released.
    is_flushed: bool,
    is_last: bool,
    /// No segment names this one as the one before it.
    ends_boot: bool,
}

impl Step {
    /// Why this end of the segment cannot be.
    fn objection(&self, end: End, next_seq: u64) -> Option<&'static str> {
        match end {
            End::Broken { why, .. } => Some(why),
            End::Rolled if self.is_last => {
                Some("the segment says that another one follows, and there is none")
            }
            _ if !self.is_last && next_seq != self.limit + 1 => {
                Some("groups are missing between this segment and the next")
            }
            _ => None,
        }
    }
}

/// A file that cannot be what it should be.
#[derive(Debug, PartialEq, Eq)]
struct Bad {
    /// Index of the file; beyond the last one: the directory.
    file: usize,
    offset: u64,
    why: String,
}

/// Which of the files hold the log, in order. Pure: this is the decision, the rest is reading.
fn judge(found: &[Found], flushed_seq: u64) -> Result<Vec<Step>, Bad> {
    let mut used: Vec<(usize, Header)> = Vec::new();
    for (n, file) in found.iter().enumerate() {
        match file.header() {
            Ok(header) => used.extend(header.map(|header| (n, header))),
            Err(why) => {
                return Err(Bad {
                    file: n,
                    offset: 0,
                    why,
                });
            }
        }
    }
    let mut steps: Vec<Step> = Vec::new();
    for (at, (n, header)) in used.iter().enumerate() {
        let next = used.get(at + 1).map(|(_, next)| next);
        let bad = |why: String| Bad {
            file: *n,
            offset: 0,
            why,
        };
        let limit = next.map_or(u64::MAX, |next| next.first_seq - 1);
        let is_flushed = limit <= flushed_seq;
        if !is_flushed {
            let unread = steps.last().is_none_or(|before| before.is_flushed);
            if unread && header.first_seq > flushed_seq + 1 {
                let (first, flushed) = (header.first_seq, flushed_seq);
                return Err(bad(format!(
                    "groups {} to {} are missing: tables hold those up to {flushed}, the oldest segment begins at {first}",
                    flushed + 1,
                    first - 1
                )));
            }
            if let Some(next) = next {
                if next.first_seq < header.first_seq {
                    return Err(bad("the next segment begins before this one".into()));
                }
                if ![0, header.id].contains(&next.prev_id) {
                    let prev = next.prev_id;
                    return Err(bad(format!(
                        "the next segment follows on segment {prev}, not on this one"
                    )));
                }
            }
        }
        steps.push(Step {
            file: *n,
            header: *header,
            promised: if next.is_some() { limit } else { flushed_seq },
            limit,
            is_flushed,
            is_last: next.is_none(),
            ends_boot: next.is_none_or(|next| next.prev_id == 0),
        });
    }
    if steps.is_empty() && flushed_seq > 0 {
        return Err(Bad {
            file: found.len(),
            offset: 0,
            why: format!("there is no log, but groups up to {flushed_seq} were written to one"),
        });
    }
    Ok(steps)
}

impl Found {
    /// The header when the segment is in use, `None` when it holds nothing, or why neither can be.
    fn header(&self) -> Result<Option<Header>, String> {
        if self.bytes < SEGMENT_BYTES_MIN {
            return Err(format!("{} bytes are too few for a segment", self.bytes));
        }
        match self.header {
            Ok(header) if header.id != self.id => Ok(None),
            Ok(header) if header.bytes > self.bytes => Err(format!(
                "the file has {} bytes, its header says {}",
                self.bytes, header.bytes
            )),
            Ok(header) => Ok(Some(header)),
            Err(BadHeader::UnknownFormat(format)) => {
                Err(format!("format {format}, and this program reads format 1"))
            }
            Err(BadHeader::Foreign(owner)) => Err(format!(
                "the segment belongs to shard {} of node {:032x}",
                owner.shard, owner.node
            )),
            Err(_) if self.claims_group => Err("the header is damaged and groups follow".into()),
            Err(BadHeader::Blank | BadHeader::Damaged) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { node: 1, shard: 0 };

    fn segment(id: u64, first_seq: u64, prev_id: u64) -> Found {
        let header = Header {
            log: Log::Wal,
            owner: OWNER,
            id,
            bytes: SEGMENT_BYTES_MIN,
            salt: id,
            first_seq,
            prev_id,
        };
        Found {
            id,
            bytes: SEGMENT_BYTES_MIN,
            header: Ok(header),
            claims_group: false,
        }
    }

    fn bad(id: u64, header: BadHeader, claims_group: bool) -> Found {
        Found {
            header: Err(header),
            claims_group,
            ..segment(id, 1, 0)
        }
    }

    /// (file, limit, is_flushed, is_last) of each step.
    fn plan(found: &[Found], flushed_seq: u64) -> Result<Vec<(usize, u64, bool, bool)>, String> {
        let steps = judge(found, flushed_seq).map_err(|bad| bad.why)?;
        Ok(steps
            .iter()
            .map(|step| (step.file, step.limit, step.is_flushed, step.is_last))
            .collect())
    }

    #[test]
    fn a_chain_is_read_from_the_first_segment_that_tables_do_not_cover() {
        let chain = [segment(3, 1, 0), segment(4, 10, 3), segment(6, 20, 0)];
        let last = (2, u64::MAX, false, true);
        let unflushed = [(0, 9, false, false), (1, 19, false, false), last];
        assert_eq!(plan(&chain, 0), Ok(unflushed.to_vec()));
        assert_eq!(plan(&chain, 8), Ok(unflushed.to_vec()));
        let flushed = [(0, 9, true, false), (1, 19, true, false), last];
        assert_eq!(plan(&chain, 19), Ok(flushed.to_vec()));
        assert_eq!(plan(&chain[1..], 9).map(|steps| steps.len()), Ok(2));
        assert_eq!(plan(&[], 0), Ok(vec![]));
    }

    #[test]
    fn what_is_missing_is_noticed() {
        let chain = || [segment(3, 1, 0), segment(4, 10, 3), segment(5, 20, 4)];
        let [one, two, three] = chain();
        for (found, flushed_seq, why) in [
            (vec![two, three], 5, "groups 6 to 9 are missing"),
            (vec![one, segment(5, 20, 4)], 0, "follows on segment 4"),
            (vec![], 7, "there is no log"),
            (
                vec![segment(3, 1, 0), segment(4, 10, 3), segment(5, 6, 4)],
                0,
                "begins before this one",
            ),
        ] {
            let refused = plan(&found, flushed_seq).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        // A released segment that outlived its removal is no gap, whatever follows it.
        let [one, _, three] = chain();
        assert_eq!(plan(&[one, three], 19).map(|steps| steps.len()), Ok(2));
    }

    #[test]
    fn files_without_a_header_of_their_own_hold_nothing_unless_groups_say_otherwise() {
        let renamed = Found {
            id: 9,
            ..segment(2, 1, 0)
        };
        let unused = [
            segment(3, 1, 0),
            bad(7, BadHeader::Blank, false),
            bad(8, BadHeader::Damaged, false),
            renamed,
        ];
        assert_eq!(plan(&unused, 0).map(|steps| steps.len()), Ok(1));
        let short = Found {
            bytes: SEGMENT_BYTES_MIN - 1,
            ..segment(3, 1, 0)
        };
        let mut cut = segment(3, 1, 0);
        cut.header = cut.header.map(|header| Header {
            bytes: 2 * SEGMENT_BYTES_MIN,
            ..header
        });
        for (found, why) in [
            (bad(3, BadHeader::Blank, true), "groups follow"),
            (bad(3, BadHeader::Damaged, true), "groups follow"),
            (bad(3, BadHeader::UnknownFormat(2), false), "format 2"),
            (
                bad(3, BadHeader::Foreign(OWNER), false),
                "belongs to shard 0",
            ),
            (short, "too few"),
            (cut, "its header says"),
        ] {
            let refused = plan(&[found], 0).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn only_the_last_segment_may_end_anywhere() {
        let steps = judge(&[segment(3, 1, 0), segment(4, 10, 3)], 0).unwrap();
        let torn = End::Torn {
            offset: 0,
            first: [0; 16],
        };
        let (first, last) = (&steps[0], &steps[1]);
        assert_eq!(first.objection(End::Rolled, 10), None);
        assert_eq!(first.objection(End::Clean, 10), None);
        assert!(first.objection(End::Rolled, 9).is_some());
        assert_eq!(last.objection(torn, 15), None);
        assert!(last.objection(End::Rolled, 15).is_some());
        let broken = End::Broken {
            offset: 0,
            why: "x",
        };
        assert_eq!(last.objection(broken, 15), Some("x"));
    }
}
