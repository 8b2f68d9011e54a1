//! Golden stories (`tests/golden/http/*.txt`; format in `line.txt`), each replayed under every cut.

use std::fmt::Write as _;
use std::path::PathBuf;

use kvstore::http::parser::{Next, Parser, Phase};
use kvstore::http::request::Request;

/// One story: what comes in, in which pieces, and what the file says about it.
pub(crate) struct Story {
    pub(crate) name: String,
    /// The upper half as it stands in the file.
    source: String,
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) want: Vec<String>,
}

impl Story {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/http")
}

/// Every story of every file, files in order of name.
pub(crate) fn load() -> Vec<(PathBuf, String, Vec<Story>)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut preface = String::new();
            let mut stories = Vec::new();
            for block in text.split("\n\n") {
                match parse(block.trim_end_matches('\n')) {
                    Some(story) => stories.push(story),
                    None => preface = format!("{}\n", block.trim_end_matches('\n')),
                }
            }
            (path, preface, stories)
        })
        .collect()
}

/// `None`: only remarks.
fn parse(block: &str) -> Option<Story> {
    let (source, want) = block.split_once("\n----\n").unwrap_or((block, ""));
    let (remarks, input): (Vec<&str>, Vec<&str>) =
        source.lines().partition(|line| line.starts_with("# "));
    if input.is_empty() {
        return None;
    }
    let mut pieces = vec![Vec::new()];
    for line in input {
        if line == "|" {
            pieces.push(Vec::new());
        } else {
            let line = repeated(line);
            pieces.last_mut().expect("never empty").extend(line);
        }
    }
    Some(Story {
        name: remarks.join(" "),
        source: source.to_owned(),
        pieces,
        want: want.lines().map(str::to_owned).collect(),
    })
}

/// Expands `<<text*count>>` and escapes.
fn repeated(line: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("<<") {
        let (inside, behind) = after.split_once(">>").expect("<< needs >>");
        let (text, count) = inside.rsplit_once('*').expect("<<text*count>>");
        out.extend(unescaped(before));
        out.extend(unescaped(text).repeat(count.parse().expect("a count")));
        rest = behind;
    }
    out.extend(unescaped(rest));
    out
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next().expect("an escape") {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'x' => {
                    let mut digit =
                        || char::from(bytes.next().unwrap()).to_digit(16).unwrap() as u8;
                    digit() << 4 | digit()
                }
                byte => byte,
            },
            byte => byte,
        });
    }
    out
}

pub(crate) fn body_limit(head: &Request<'_>) -> Option<usize> {
    Some(match head.path {
        b"/put" => 100,
        b"/batch" => 100_000,
        _ => 16,
    })
}

/// What a connection holding a parser would do with these pieces, one line per event.
pub(crate) fn replay<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<String> {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    let mut kept: Vec<u8> = Vec::new();
    for piece in pieces {
        kept.extend_from_slice(piece);
        let mut at = 0;
        loop {
            match parser.next(&kept[at..], &body_limit) {
                Next::NeedMore { consumed } => {
                    at += consumed;
                    break;
                }
                Next::Continue { consumed } => {
                    at += consumed;
                    events.push("continue".to_owned());
                }
                Next::Request { request, consumed } => {
                    at += consumed;
                    events.push(shown(&request));
                }
                Next::Reject { reject } => {
                    events.push(format!("reject {} {}", reject.status.code(), reject.text));
                    return events;
                }
            }
        }
        kept.drain(..at);
        assert!(kept.len() <= 32 << 10, "a head is bounded");
    }
    events.push(
        match parser.phase() {
            Phase::Idle => "idle",
            Phase::Head => "in head",
            Phase::Body => "in body",
        }
        .to_owned(),
    );
    events
}

fn shown(request: &Request<'_>) -> String {
    let mut out = format!("{} {}", request.method.name(), short(request.path));
    if let Some(query) = request.query {
        write!(out, " ?{}", short(query)).unwrap();
    }
    match request.host {
        Some(host) => write!(out, " host={}", short(host)).unwrap(),
        None => out.push_str(" no host"),
    }
    if !request.body.is_empty() {
        write!(out, " body={}", short(request.body)).unwrap();
    }
    if let Some(token) = request.authorization {
        write!(out, " authorization={}", short(token)).unwrap();
    }
    let accept = request.accept;
    for (on, name) in [
        (accept.json, " json"),
        (accept.text_plain, " text/plain"),
        (request.is_cross_site(), " cross-site"),
        (request.http10, " 1.0"),
        (!request.keep_alive, " close"),
    ] {
        if on {
            out.push_str(name);
        }
    }
    out
}

fn short(bytes: &[u8]) -> String {
    if bytes.len() <= 60 {
        bytes.escape_ascii().to_string()
    } else {
        format!("{}..({} bytes)", bytes[..20].escape_ascii(), bytes.len())
    }
}

fn pieces_of(story: &Story) -> Vec<String> {
    replay(story.pieces.iter().map(Vec::as_slice))
}

#[test]
fn stories_end_as_written() {
    let update = std::env::var_os("UPDATE").is_some();
    for (path, preface, stories) in load() {
        let mut text = preface;
        for story in &stories {
            let got = pieces_of(story);
            if !update {
                assert_eq!(got, story.want, "{}: {}", path.display(), story.name);
            }
            write!(text, "\n{}\n----\n{}\n", story.source, got.join("\n")).unwrap();
        }
        if update {
            std::fs::write(&path, text.trim_start()).unwrap();
        }
    }
}

/// "100 Continue" is the one thing that depends on the cut: it is said when the head came alone.
fn without_continue(mut events: Vec<String>) -> Vec<String> {
    events.retain(|event| event != "continue");
    events
}

#[test]
fn no_cut_changes_the_outcome() {
    for (path, _, stories) in load() {
        for story in &stories {
            let bytes = story.bytes();
            let want = without_continue(story.want.clone());
            let check = |pieces: Vec<&[u8]>, cut: String| {
                let got = without_continue(replay(pieces));
                assert_eq!(got, want, "{}: {} cut {cut}", path.display(), story.name);
            };
            check(vec![&bytes], "nowhere".to_owned());
            check(bytes.chunks(1).collect(), "everywhere".to_owned());
            check(bytes.chunks(1000).collect(), "every 1000 bytes".to_owned());
            for at in (1..bytes.len()).step_by(1 + (bytes.len() / 5000).pow(3)) {
                check(vec![&bytes[..at], &bytes[at..]], format!("at {at}"));
            }
        }
    }
}

#[test]
fn pipelined_stories_end_as_each_alone() {
    let all: Vec<Story> = load()
        .into_iter()
        .flat_map(|(_, _, stories)| stories)
        .filter(|story| story.pieces.len() == 1 && story.pieces[0].len() < 1000)
        .collect();
    let ends_idle = |story: &&Story| story.want.last().is_some_and(|last| last == "idle");
    for first in all.iter().filter(ends_idle) {
        // A story of one empty line uses up the forgiveness of the next; after a last request nothing counts.
        let closes = first.want.iter().any(|event| event.ends_with(" close"));
        if first.want.len() == 1 || closes {
            continue;
        }
        for second in &all {
            let both = [first.bytes(), second.bytes()].concat();
            let mut want = first.want[..first.want.len() - 1].to_vec();
            want.extend(second.want.iter().cloned());
            assert_eq!(
                replay([both.as_slice()]),
                want,
                "{} then {}",
                first.name,
                second.name
            );
        }
    }
}
