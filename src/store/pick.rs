//! Pure. Which compaction to run next: a decision over table metadata, no I/O.
//!
//! Leveled shape: level 0 holds flushed tables that may overlap (newest first); levels 1 to 4 hold disjoint
//! tables, each level ten times the one above.
//!
//! ```text
//! score(L0) = tables / MAX_L0_FILES          score(Ln) = bytes / target(n),  target(n) = base * 10^(n-1)
//! ```
//!
//! The level with the highest score of at least 1 is compacted into the next: the oldest tables of level 0 with what
//! they overlap, or from level n the table that drags the least of level n+1 along (RocksDB's
//! kMinOverlappingRatio); ties go to the smallest key, so the choice is repeatable.

use super::format::edit::TableMeta;

/// Levels of the tree, level 0 included.
pub(crate) const LEVELS: usize = 5;
/// Each level's size over the one above it.
const FANOUT: u64 = 10;

/// What the choice depends on beside the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// MAX_L0_FILES.
    pub(crate) l0_files_max: usize,
    /// Target size of level 1.
    pub(crate) base_bytes: u64,
}

impl Policy {
    /// Size above which a level is compacted into the next.
    fn target_bytes(&self, level: usize) -> u64 {
        self.base_bytes
            .saturating_mul(FANOUT.saturating_pow(level.saturating_sub(1) as u32))
    }
}

/// One compaction: merge the inputs, write the result to `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Tables of level `from`, in that level's order.
    pub(crate) upper: Vec<u64>,
    /// Tables of level `to` that overlap them, in key order.
    pub(crate) lower: Vec<u64>,
    /// Nothing to merge with: the table only changes its level, by an edit of the manifest.
    pub(crate) moves: bool,
}

/// The most urgent compaction, if any level is over its target. `levels[0]` is newest first, the others are
/// in key order.
///
/// Also how urgent it is: the score of the level it relieves.
pub(crate) fn pick(levels: &[Vec<&TableMeta>], policy: &Policy) -> Option<(f64, Job)> {
    let (from, score) = (0..LEVELS - 1)
        .map(|level| (level, score(levels, level, policy)))
        .filter(|(_, score)| *score >= 1.0)
        .max_by(|(a, left), (b, right)| left.total_cmp(right).then(b.cmp(a)))?;
    let job = match from {
        0 => oldest_of_level_0(levels, policy),
        _ => one_table(levels, from),
    };
    Some((score, job?))
}

/// How far a level is over its target: 1.0 is full.
pub(crate) fn score(levels: &[Vec<&TableMeta>], level: usize, policy: &Policy) -> f64 {
    let Some(tables) = levels.get(level) else {
        return 0.0;
    };
    if level == 0 {
        return tables.len() as f64 / policy.l0_files_max.max(1) as f64;
    }
    let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
    bytes as f64 / policy.target_bytes(level).max(1) as f64
}

/// Level 0 tables overlap each other: taking the oldest ones, without a gap, keeps "newer above older" true.
/// MAX_L0_FILES of them, or more if they are small: a level 0 that has grown is worked off in jobs that stay short.
fn oldest_of_level_0(levels: &[Vec<&TableMeta>], policy: &Policy) -> Option<Job> {
    let newest_first = levels.first()?;
    let mut bytes = 0u64;
    let oldest = (0..).zip(newest_first.iter().rev());
    let oldest = oldest.take_while(|(before, table)| {
        bytes = bytes.saturating_add(table.bytes);
        *before < policy.l0_files_max || bytes <= policy.base_bytes
    });
    let upper = newest_first.get(newest_first.len() - oldest.count()..)?;
    let smallest = upper.iter().map(|table| table.smallest.as_slice()).min()?;
    let largest = upper.iter().map(|table| table.largest.as_slice()).max()?;
    Some(Job {
        from: 0,
        to: 1,
        upper: upper.iter().map(|table| table.id).collect(),
        lower: overlapping(levels, 1, smallest, largest)
            .map(|table| table.id)
            .collect(),
        moves: false,
    })
}

/// The table of `from` with the least bytes below it per byte of its own.
fn one_table(levels: &[Vec<&TableMeta>], from: usize) -> Option<Job> {
    let cost = |table: &TableMeta| {
        let below: u64 = overlapping(levels, from + 1, &table.smallest, &table.largest)
            .map(|t| t.bytes)
            .sum();
        below as f64 / table.bytes.max(1) as f64
    };
    let table = levels
        .get(from)?
        .iter()
        .min_by(|a, b| cost(a).total_cmp(&cost(b)))?;
    let lower: Vec<u64> = overlapping(levels, from + 1, &table.smallest, &table.largest)
        .map(|table| table.id)
        .collect();
    // A table with tombstones is rewritten even when nothing overlaps: only a merge can drop them.
    let moves = lower.is_empty() && table.tombstones == 0;
    Some(Job {
        from,
        to: from + 1,
        upper: vec![table.id],
        lower,
        moves,
    })
}

/// Tables of `level` that share keys with `smallest..=largest`.
pub(crate) fn overlapping<'a>(
    levels: &'a [Vec<&'a TableMeta>],
    level: usize,
    smallest: &'a [u8],
    largest: &'a [u8],
) -> impl Iterator<Item = &'a TableMeta> {
    levels
        .get(level)
        .into_iter()
        .flatten()
        .copied()
        .filter(move |table| {
            table.smallest.as_slice() <= largest && smallest <= table.largest.as_slice()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::version::Version;
    use std::fmt::Write;

    /// `id:smallest-largest:bytes[!]` per table; `!` marks tombstones.
    fn parse(line: &str) -> Vec<TableMeta> {
        line.split_whitespace()
            .map(|word| {
                let mut parts = word.trim_end_matches('!').split([':', '-']);
                let mut next = || parts.next().expect("id:smallest-largest:bytes");
                TableMeta {
                    id: next().parse().expect("id"),
                    smallest: next().into(),
                    largest: next().into(),
                    bytes: next().parse().expect("bytes"),
                    entries: 1,
                    tombstones: u64::from(word.ends_with('!')),
                    min_version: Version::ZERO,
                    max_version: Version::ZERO,
                }
            })
            .collect()
    }

    fn answer(story: &str) -> String {
        let mut levels: Vec<Vec<TableMeta>> = (0..LEVELS).map(|_| Vec::new()).collect();
        for line in story.lines() {
            let (level, tables) = line.split_once(' ').expect("L0 tables");
            levels[level[1..].parse::<usize>().expect("level")] = parse(tables);
        }
        let view: Vec<Vec<&TableMeta>> =
            levels.iter().map(|level| level.iter().collect()).collect();
        let mut out = String::new();
        match pick(
            &view,
            &Policy {
                l0_files_max: 4,
                base_bytes: 100,
            },
        ) {
            None => out.push_str("nothing\n"),
            Some((_, job)) => writeln!(
                out,
                "L{} {:?} + L{} {:?}{}",
                job.from,
                job.upper,
                job.to,
                job.lower,
                if job.moves { " move" } else { "" }
            )
            .expect("a string takes all"),
        }
        out
    }

    /// Stories separated by blank lines: level lines, `----`, expected answer. UPDATE=1 rewrites the file.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "golden files are read by tests")]
    fn golden_stories() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pick/stories.txt");
        let text = std::fs::read_to_string(path).expect("golden file");
        let mut rewritten = String::new();
        for story in text.trim_end().split("\n\n") {
            let (title_and_input, _) = story.split_once("----\n").expect("a ---- line");
            let (title, input) = title_and_input.split_once('\n').expect("a title line");
            write!(
                rewritten,
                "{title}\n{input}----\n{}\n",
                answer(input.trim_end())
            )
            .expect("a string takes all");
        }
        let rewritten = format!("{}\n", rewritten.trim_end());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, rewritten).expect("golden file is writable");
        } else {
            assert_eq!(text, rewritten, "run with UPDATE=1 and read the diff");
        }
    }
}
