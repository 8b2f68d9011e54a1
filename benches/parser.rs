//! Bytes of a request to an answer, without sockets or store: ns per request, best of several rounds.
//!
//! Budget (docs: performance): parser and lookup together 1.5 us of a 7-8 us request.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "its output is a table")]

use std::hint::black_box;
use std::time::Instant;

use kvstore::http::date::Date;
use kvstore::http::parser::{Next, Parser};
use kvstore::http::query;
use kvstore::http::request::Request;
use kvstore::http::response::{Frame, Kind};
use kvstore::http::status::Status;
use kvstore::node::body;

const WRK_GET: &[u8] = b"GET /get?key=user:1001 HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n\r\n";
const CURL_GET: &[u8] = b"GET /get?key=user%3A1001 HTTP/1.1\r\nHost: localhost:8081\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";
const HEY_GET: &[u8] = b"GET /get?key=read:500 HTTP/1.1\r\nHost: localhost:8081\r\nUser-Agent: hey/0.0.1\r\nContent-Type: text/html\r\nAccept-Encoding: gzip\r\n\r\n";

fn main() {
    let body = format!(r#"{{"key":"user:1001","value":"{}"}}"#, "v".repeat(112));
    let put = format!(
        "POST /put HTTP/1.1\r\nHost: localhost:8081\r\nUser-Agent: hey/0.0.1\r\nContent-Length: {}\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n{body}",
        body.len()
    );
    let pipelined = WRK_GET.repeat(16);
    println!("{:<44} {:>10}", "what", "ns/request");
    measure("parse: GET as wrk sends it", 1, |sink| {
        parse(WRK_GET, sink, |_, _| ())
    });
    measure("parse: GET as curl sends it", 1, |sink| {
        parse(CURL_GET, sink, |_, _| ())
    });
    measure("parse: GET as hey sends it", 1, |sink| {
        parse(HEY_GET, sink, |_, _| ())
    });
    measure("parse: GET x16 in one read", 16, |sink| {
        parse(&pipelined, sink, |_, _| ())
    });
    measure("parse: PUT, 140 B of JSON left alone", 1, |sink| {
        parse(put.as_bytes(), sink, |_, _| ())
    });
    measure("parse, decode JSON: PUT of 140 B", 1, |sink| {
        parse(put.as_bytes(), sink, decode)
    });
    measure("decode JSON: 140 B", 1, |_| {
        black_box(body::put(black_box(body.as_bytes())).is_ok());
    });
    let date = Date::new(1_700_000_000_000);
    let answer = |request: &Request<'_>, sink: &mut Vec<u8>| {
        let key = query::get(request.query, "key");
        let value = black_box(key).ok().flatten().map_or(0, |key| key.len());
        Frame::of(request).answer(
            sink,
            &date,
            Status::Ok,
            Kind::Text,
            &[],
            &[b'v'; 64][..64 - value],
        );
    };
    measure("parse, find key, answer: GET as wrk", 1, |sink| {
        parse(WRK_GET, sink, answer)
    });
    measure("parse, find key, answer: GET x16", 16, |sink| {
        parse(&pipelined, sink, answer)
    });
}

fn decode(request: &Request<'_>, _: &mut Vec<u8>) {
    black_box(body::put(request.body).is_ok());
}

fn parse(input: &[u8], sink: &mut Vec<u8>, then: impl Fn(&Request<'_>, &mut Vec<u8>)) {
    let mut parser = Parser::default();
    let mut rest = black_box(input);
    loop {
        match parser.next(rest, &|_| Some(1 << 20)) {
            Next::Request { request, consumed } => {
                then(black_box(&request), sink);
                rest = &rest[consumed..];
            }
            Next::NeedMore { .. } => return,
            other => panic!("{other:?}"),
        }
    }
}

/// Rounds are short, so that on a busy machine some of them run undisturbed.
fn measure(what: &str, requests: u32, mut run: impl FnMut(&mut Vec<u8>)) {
    const RUNS: u32 = 1600;
    let mut sink = Vec::with_capacity(64 << 10);
    let mut best = u128::MAX;
    for _ in 0..1000 {
        let start = Instant::now();
        for _ in 0..RUNS / requests {
            run(&mut sink);
            sink.clear();
        }
        best = best.min(start.elapsed().as_nanos());
    }
    println!("{what:<44} {:>10}", best / u128::from(RUNS));
}
