//! What the real program answers to well-framed requests it does not like. Numbers as in `golden/http/line.txt`.

use crate::server::{End, GET, Reply, Server, get_request, put_request};

fn one(server: &Server, name: &str, request: &str, status: u16) -> Reply {
    let want = [(GET, status)];
    server
        .exchange(name, request.as_bytes(), &want, End::Kept)
        .remove(0)
}

#[test]
fn targets_methods_and_strangers() {
    let server = Server::start();
    let reply = one(&server, "6: known, not allowed", &get_request("/put"), 405);
    assert_eq!(reply.field("Allow"), Some("POST, PUT, OPTIONS"));
    for (name, target, status) in [
        ("23: broken query", "/get?key=%", 400),
        ("23: broken query", "/get?key=%2", 400),
        ("23: broken query", "/get?key=%GG", 400),
        ("no key", "/get", 400),
        ("empty key", "/get?key=", 400),
        ("bad number", "/scan?limit=-1", 400),
        ("24: NUL in a key", "/get?key=a%00b", 404),
        ("26: no normalisation", "/x/../get?key=a", 404),
        ("26: no normalisation", "//get?key=a", 404),
        ("26: no normalisation", "/%67et?key=a", 404),
        (
            "41: not our name by target",
            "http://evil.example/health",
            421,
        ),
        ("126: ranges", "/health", 200),
    ] {
        let request = get_request(target).replace("Host", "Range: bytes=0-0,1-1\r\nHost");
        one(&server, name, &request, status);
    }
    for (name, request, status) in [
        ("32", "OPTIONS * HTTP/1.1\r\nHost: h", 204),
        ("41", "GET /health HTTP/1.1\r\nHost: evil.example", 421),
        (
            "403",
            "POST /delete?key=a HTTP/1.1\r\nHost: h\r\nOrigin: http://evil",
            403,
        ),
        (
            "403",
            "POST /put HTTP/1.1\r\nHost: h\r\nSec-Fetch-Site: cross-site",
            403,
        ),
        (
            "81: no length, no body",
            "POST /put HTTP/1.1\r\nHost: h",
            400,
        ),
        (
            "81: delete needs none",
            "POST /delete?key=a HTTP/1.1\r\nHost: h",
            200,
        ),
    ] {
        one(&server, name, &format!("{request}\r\n\r\n"), status);
    }
}

#[test]
fn json_that_is_refused() {
    let server = Server::start();
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    for (name, body) in [
        ("128: deep array", format!(r#"{{"items":{open}{close}}}"#)),
        (
            "128: deep where nobody looks",
            format!(r#"{{"items":[],"x":{open}{close}}}"#),
        ),
        (
            "129: same field twice",
            r#"{"items":[{"key":"a","value":"b","key":"c"}]}"#.to_owned(),
        ),
        ("129: NaN", r#"{"items":[],"x":NaN}"#.to_owned()),
        ("129: 1e999", r#"{"items":[],"x":1e999}"#.to_owned()),
        (
            "129: lone surrogate",
            r#"{"items":[{"key":"a","value":"\ud800"}]}"#.to_owned(),
        ),
        (
            "one bad item",
            r#"{"items":[{"key":"n","value":"1"},{"key":"o"}]}"#.to_owned(),
        ),
    ] {
        let length = body.len();
        let head = format!("POST /batch HTTP/1.1\r\nHost: h\r\nContent-Length: {length}");
        one(&server, name, &format!("{head}\r\n\r\n{body}"), 400);
    }
    one(
        &server,
        "nothing of a bad batch is applied",
        &get_request("/get?key=n"),
        404,
    );
}

#[test]
fn bodies_too_large_and_keys_with_line_ends() {
    let server = Server::start();
    let too_long = "POST /batch HTTP/1.1\r\nHost: h\r\nContent-Length: 67108865\r\n\r\n";
    let expecting = too_long.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let chunks = format!("8000\r\n{}\r\n", "x".repeat(0x8000)).repeat(3);
    let head = "POST /delete?key=k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked";
    let chunked = format!("{head}\r\n\r\n{chunks}");
    for (name, request) in [
        ("82: before a byte is read", too_long),
        ("109: instead of 100", &expecting),
        ("83: chunked beyond the limit", &chunked),
    ] {
        server.exchange(name, request.as_bytes(), &[(GET, 413)], End::Closed);
    }

    let zipped = put_request("z", "x").replace("Host", "Content-Encoding: gzip\r\nHost");
    one(&server, "125: never inflated", &zipped, 200);
    for (key, value) in [(r"k\r\nSet-Cookie: a", "1"), (r"k\r\nX: b", "2")] {
        one(&server, "130", &put_request(key, value), 200);
    }
    let scan = get_request("/scan?start=k&end=l&limit=1");
    let reply = one(&server, "130: line ends stay out of the head", &scan, 200);
    assert_eq!(reply.field("Set-Cookie"), None);
    assert_eq!(reply.body, b"{\"k\\r\\nSet-Cookie: a\":\"1\"}\n");
}
