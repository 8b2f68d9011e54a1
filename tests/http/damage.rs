//! Random damage to the golden stories: no panic, bounded memory, the same outcome under every cut, and
//! nothing accepted that httparse refuses.

use fastrand::Rng;
use kvstore::http::parser::{Next, Parser};

use crate::stories::{body_limit, load, replay};

const BITS: [&[u8]; 22] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\0",
    b"\xff",
    b"%",
    b"0",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: h\r\n",
    b"HTTP/1.0",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"0\r\n\r\n",
    b"GET / HTTP/1.1\r\n",
    b"\"",
];

fn damaged(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[rng.usize(..seeds.len())].clone();
    if rng.u8(..4) == 0 {
        bytes.extend_from_slice(&seeds[rng.usize(..seeds.len())]);
    }
    for _ in 0..rng.usize(..5) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..8)).min(bytes.len());
        match rng.u8(..5) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, bytes[at..end].to_vec()).count()),
            2 => drop(
                bytes
                    .splice(at..at, BITS[rng.usize(..BITS.len())].iter().copied())
                    .count(),
            ),
            3 if at < bytes.len() => bytes[at] = rng.u8(..),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

fn seeds() -> Vec<Vec<u8>> {
    load()
        .into_iter()
        .flat_map(|(_, _, stories)| stories)
        .map(|story| story.bytes())
        .filter(|bytes| bytes.len() < 2000)
        .collect()
}

#[test]
fn damage_is_survived_and_cuts_never_matter() {
    let seeds = seeds();
    for seed in 0..16_000 {
        let rng = &mut Rng::with_seed(seed);
        let bytes = damaged(rng, &seeds);
        let strip = |mut events: Vec<String>| {
            events.retain(|event| event != "continue");
            events
        };
        let whole = strip(replay([bytes.as_slice()]));
        let cuts: Vec<usize> = {
            let mut cuts: Vec<usize> = (0..rng.usize(1..6))
                .map(|_| rng.usize(..=bytes.len()))
                .collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            cuts
        };
        let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        let cut = strip(replay(pieces));
        assert_eq!(
            whole,
            cut,
            "seed {seed}: {} cut at {cuts:?}",
            bytes.escape_ascii()
        );
        assert_eq!(
            whole,
            strip(replay(bytes.chunks(1))),
            "seed {seed}: {}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn what_we_accept_httparse_accepts_too() {
    let seeds = seeds();
    let mut accepted = 0;
    for seed in 0..40_000 {
        let bytes = damaged(&mut Rng::with_seed(seed), &seeds);
        let mut parser = Parser::default();
        let Next::Request { request, .. } = parser.next(&bytes, &body_limit) else {
            continue;
        };
        // A later minor version is the one thing we take and httparse does not.
        let line = bytes.strip_prefix(b"\r\n").unwrap_or(&bytes);
        let line = line.split(|&byte| byte == b'\n').next().expect("a line");
        if !line.ends_with(b"1.0\r") && !line.ends_with(b"1.1\r") {
            continue;
        }
        accepted += 1;
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Request::new(&mut headers);
        let shown = bytes.escape_ascii();
        assert!(
            other.parse(&bytes).is_ok_and(|status| status.is_complete()),
            "seed {seed}: {shown}"
        );
        assert_eq!(
            other.method,
            Some(request.method.name()),
            "seed {seed}: {shown}"
        );
        assert_eq!(
            other.version == Some(0),
            request.http10,
            "seed {seed}: {shown}"
        );
        let target = other.path.expect("complete").as_bytes();
        assert!(
            target
                .windows(request.path.len())
                .any(|part| part == request.path)
                || request.path == b"/"
        );
    }
    assert!(
        accepted > 3_000,
        "only {accepted} of the damaged requests were accepted: the test is blunt"
    );
}

#[test]
fn a_parser_never_holds_more_than_it_was_given() {
    let head = b"POST /batch HTTP/1.1\r\nHost: h\r\nContent-Length: 67108864\r\n\r\n";
    let mut parser = Parser::default();
    let limit = |_: &kvstore::http::request::Request<'_>| Some(64 << 20);
    assert!(matches!(parser.next(head, &limit), Next::NeedMore { .. }));
    let piece = vec![b'x'; 40_000];
    for n in 1..100 {
        assert!(matches!(
            parser.next(&piece, &limit),
            Next::NeedMore { consumed: 40_000 }
        ));
        assert!(
            parser.memory_bytes() <= 2 * n * piece.len() + 1000,
            "{} after {n}",
            parser.memory_bytes()
        );
    }
    // Chunked says nothing about the whole; the same bound must hold.
    let mut parser = Parser::default();
    assert!(matches!(
        parser.next(
            b"POST /batch HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4000000\r\n",
            &limit
        ),
        Next::NeedMore { .. }
    ));
    for n in 1..100 {
        assert!(matches!(
            parser.next(&piece, &limit),
            Next::NeedMore { consumed: 40_000 }
        ));
        assert!(
            parser.memory_bytes() <= 2 * n * piece.len() + 1000,
            "{} after {n}",
            parser.memory_bytes()
        );
    }
}
