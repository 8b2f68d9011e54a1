//! The edges of the API, row by row as the design's table has them: exact status, exact text.

use crate::client::{Answer, Connection};
use crate::process::{Node, scratch};

/// Method, target, body; status and text of the answer.
type Row = (&'static str, &'static str, &'static [u8], u16, &'static str);

/// One node for all rows of one test; every row has a connection of its own.
fn rows(node: &Node, rows: &[Row]) {
    for &(method, target, body, status, text) in rows {
        let answer = ask(node, method, target, body, "");
        let row = format!("{method} {target} {}", String::from_utf8_lossy(body));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, text),
            "{row}"
        );
        assert_eq!(
            answer.field("x-content-type-options"),
            Some("nosniff"),
            "{row}"
        );
    }
}

/// `extra`: whole field lines with their line ends.
fn ask(node: &Node, method: &str, target: &str, body: &[u8], extra: &str) -> Answer {
    let mut client = node.connect();
    let length = match method {
        "GET" | "HEAD" => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{length}{extra}\r\n");
    client
        .send(&[head.as_bytes(), body].concat())
        .expect("the node reads");
    match method {
        "HEAD" => client.answer_head(),
        _ => client.answer(),
    }
    .expect("an answer")
}

const NO_KEY: &str = "missing query parameter: key\n";
const BAD_KEY: &str = "key must be a non-empty string\n";
const NO_VALUE: &str = "value is required\n";

const KEYS_AND_VALUES: &[Row] = &[
    ("GET", "/get?key=absent", b"", 404, "Not Found\n"),
    ("GET", "/get", b"", 400, NO_KEY),
    ("GET", "/get?key=", b"", 400, NO_KEY),
    ("POST", "/delete", b"", 400, NO_KEY),
    ("POST", "/delete?key=", b"", 400, NO_KEY),
    ("POST", "/delete?key=absent", b"", 200, "Deleted"),
    ("POST", "/put", b"{}", 400, BAD_KEY),
    ("POST", "/put", br#"{"value":"x"}"#, 400, BAD_KEY),
    ("POST", "/put", br#"{"key":"","value":"x"}"#, 400, BAD_KEY),
    ("POST", "/put", br#"{"KEY":"a","value":"x"}"#, 400, BAD_KEY),
    ("POST", "/put", br#"{"key":"a"}"#, 400, NO_VALUE),
    (
        "POST",
        "/put",
        br#"{"key":"a","value":null}"#,
        400,
        NO_VALUE,
    ),
    (
        "POST",
        "/put",
        br#"{"key":"a","value":5}"#,
        400,
        "value must be a JSON string (got number); quote it\n",
    ),
    (
        "POST",
        "/put",
        br#"{"key":"a","value":true}"#,
        400,
        "value must be a JSON string (got boolean); quote it\n",
    ),
    (
        "POST",
        "/put",
        br#"{"key":"a","value":{}}"#,
        400,
        "value must be a JSON string (got object); quote it\n",
    ),
    (
        "POST",
        "/put",
        br#"{"key":"a","value":"x","ttl":5}"#,
        200,
        "OK",
    ),
    (
        "POST",
        "/put",
        br#"{"key":"a","key":"b","value":"x"}"#,
        400,
        "duplicate field: key\n",
    ),
    (
        "POST",
        "/put",
        br#"{"key":"a","value":"x"} y"#,
        400,
        "trailing data at byte 24\n",
    ),
    (
        "POST",
        "/put",
        b"",
        400,
        "empty body; expected {\"key\":...,\"value\":...}\n",
    ),
    (
        "POST",
        "/put",
        b"{\"key\":\"a\",\"value\":\"\xff\"}",
        400,
        "body is not valid UTF-8 at byte 20\n",
    ),
    ("POST", "/put", br#"{"key":"empty","value":""}"#, 200, "OK"),
    ("GET", "/get?key=empty", b"", 200, ""),
    ("GET", "/get?key=%zz", b"", 400, "bad percent-encoding\n"),
    ("GET", "/get?key=%ff", b"", 404, "Not Found\n"),
    (
        "POST",
        "/put",
        br#"{"key":"a b+c","value":"plus"}"#,
        200,
        "OK",
    ),
    ("GET", "/get?key=a+b%2Bc", b"", 200, "plus"),
    (
        "POST",
        "/put",
        br#"{"key":"a;b","value":"semicolon"}"#,
        200,
        "OK",
    ),
    ("GET", "/get?key=a;b", b"", 200, "semicolon"),
    ("GET", "/get?key=a;b&key=other", b"", 200, "semicolon"),
    ("GET", "http://localhost/get?key=a;b", b"", 200, "semicolon"),
    (
        "PUT",
        "/put",
        br#"{"key":"lenient","value":"x"}"#,
        200,
        "OK",
    ),
    ("DELETE", "/delete?key=lenient", b"", 200, "Deleted"),
];

#[test]
fn keys_and_values() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    rows(&node, KEYS_AND_VALUES);
    let surrogate = ask(
        &node,
        "POST",
        "/put",
        br#"{"key":"a","value":"\ud800"}"#,
        "",
    );
    assert_eq!(surrogate.status, 400);
    let empty = ask(&node, "GET", "/get?key=empty", b"", "");
    assert_eq!(empty.field("content-length"), Some("0"));
    assert_eq!(
        empty.field("content-type"),
        Some("text/plain; charset=utf-8")
    );
    let head = ask(&node, "HEAD", "/get?key=a;b", b"", "");
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some("9"))
    );
    // A POST without any length has an empty body, as `curl -X POST` sends it.
    let mut client = node.connect();
    client
        .send(b"POST /delete?key=a HTTP/1.1\r\nHost: x.localhost\r\n\r\n")
        .expect("the node reads");
    assert_eq!(client.answer().expect("an answer").text(), "Deleted");
}

#[test]
fn batches() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    rows(&node, &[
        ("POST", "/batch", br#"{"items":[]}"#, 200, "Batch Processed"),
        ("POST", "/batch", b"{}", 400, "items is required\n"),
        ("POST", "/batch", br#"{"items":[{"key":"a","value":"7"},{"key":"b","value":"2"},{"key":"a","value":"3"}]}"#, 200, "Batch Processed"),
        ("GET", "/get?key=a", b"", 200, "3"),
        ("POST", "/batch", br#"{"items":[{"key":"a","value":"9"},{"key":"b","value":9}]}"#, 400, "items[1].value: value must be a JSON string (got number); quote it\n"),
        ("GET", "/get?key=a", b"", 200, "3"),
        ("POST", "/batch", br#"{"items":[{"key":"c","value":"1"},{"value":"2"}]}"#, 400, "items[1].key: key must be a non-empty string\n"),
        ("GET", "/get?key=c", b"", 404, "Not Found\n"),
    ]);
}

#[test]
fn scans() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    rows(&node, &[
        ("GET", "/scan", b"", 200, "{}\n"),
        ("POST", "/batch", "{\"items\":[{\"key\":\"b\",\"value\":\"<&>\"},{\"key\":\"a\",\"value\":\"\\\"\\n\"},{\"key\":\"é\",\"value\":\"ü\"}]}".as_bytes(), 200, "Batch Processed"),
        ("GET", "/scan", b"", 200, "{\"a\":\"\\\"\\n\",\"b\":\"<&>\",\"é\":\"ü\"}\n"),
        ("GET", "/scan?start=b", b"", 200, "{\"b\":\"<&>\",\"é\":\"ü\"}\n"),
        ("GET", "/scan?end=b", b"", 200, "{\"a\":\"\\\"\\n\",\"b\":\"<&>\"}\n"),
        ("GET", "/scan?start=b&end=b", b"", 200, "{\"b\":\"<&>\"}\n"),
        ("GET", "/scan?start=b&end=a", b"", 200, "{}\n"),
        ("GET", "/scan?start=c&end=d", b"", 200, "{}\n"),
        ("GET", "/scan?limit=x", b"", 400, "limit must be a whole number above 0\n"),
    ]);
    let first = ask(&node, "GET", "/scan?limit=1", b"", "");
    assert_eq!(first.text(), "{\"a\":\"\\\"\\n\"}\n");
    let next = first.field("x-kv-next").expect("rows are left").to_string();
    let rest = ask(&node, "GET", &format!("/scan?start={next}"), b"", "");
    assert_eq!(rest.text(), "{\"b\":\"<&>\",\"é\":\"ü\"}\n");
}

/// Up to 1 MiB a scan carries its length; beyond, it is chunked; HTTP/1.0 never sees chunks.
#[test]
fn large_scans_are_streamed() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[("MEMTABLE_SIZE", "256KB")], &[]);
    let mut client = node.connect();
    let value = "v".repeat(10_000);
    let mut rows = Vec::new();
    for n in 0..300 {
        let key = format!("k{n:04}");
        assert_eq!(client.put(&key, &value).expect("an answer").text(), "OK");
        rows.push(format!("\"{key}\":\"{value}\""));
    }
    let small = client.get("/scan?end=k0009").expect("an answer");
    assert!(small.field("content-length").is_some());
    assert_eq!(small.text(), format!("{{{}}}\n", rows[..10].join(",")));
    let large = client.get("/scan").expect("an answer");
    assert_eq!(large.field("transfer-encoding"), Some("chunked"));
    assert!(
        large.text() == format!("{{{}}}\n", rows.join(",")),
        "the streamed rows differ"
    );
    // The connection goes on.
    assert_eq!(
        client.get("/get?key=k0299").expect("an answer").text(),
        value
    );
    client
        .send(b"GET /scan HTTP/1.0\r\n\r\n")
        .expect("the node reads");
    let old = client.answer().expect("an answer");
    assert_eq!(old.field("transfer-encoding"), None);
    assert!(
        old.text() == format!("{{{}}}\n", rows.join(",")),
        "the rows for HTTP/1.0 differ"
    );
}

#[test]
fn methods_paths_and_forms_of_errors() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    for (method, target, allow) in [
        ("GET", "/put", "POST, PUT, OPTIONS"),
        ("POST", "/get?key=a", "GET, HEAD, OPTIONS"),
        ("DELETE", "/scan", "GET, HEAD, OPTIONS"),
        ("GET", "/delete?key=a", "POST, DELETE, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
        ("PATCH", "/batch", "POST, OPTIONS"),
    ] {
        let answer = ask(&node, method, target, b"", "");
        assert_eq!(
            (answer.status, answer.field("allow")),
            (405, Some(allow)),
            "{method} {target}"
        );
    }
    let unknown = ask(&node, "GET", "/nothing", b"", "");
    assert_eq!(unknown.status, 404);
    for endpoint in [
        "/put", "/get", "/batch", "/scan", "/delete", "/metrics", "/health",
    ] {
        assert!(unknown.text().contains(endpoint), "{}", unknown.text());
    }
    let json = "Accept: application/json\r\n";
    let absent = ask(&node, "GET", "/get?key=absent", b"", json);
    assert_eq!(absent.field("content-type"), Some("application/json"));
    assert_eq!(
        absent.text(),
        "{\"error\":\"not_found\",\"message\":\"key not found\"}\n"
    );
    let refused = ask(&node, "GET", "/get", b"", json);
    assert_eq!(
        refused.text(),
        "{\"error\":\"missing_key\",\"message\":\"missing query parameter: key\"}\n"
    );
    let any = ask(&node, "GET", "/get?key=absent", b"", "Accept: */*\r\n");
    assert_eq!(any.text(), "Not Found\n");
}

#[test]
fn foreign_sites_and_names_are_refused() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-host-names", "kv.example"]);
    let body = br#"{"key":"a","value":"x"}"#;
    for (fields, status) in [
        ("Origin: http://evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: http://localhost\r\n", 200),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
    ] {
        assert_eq!(
            ask(&node, "POST", "/put", body, fields).status,
            status,
            "{fields}"
        );
    }
    for (host, status) in [
        ("evil.example", 421),
        ("kv.example", 404),
        ("127.0.0.1:1", 404),
        ("[::1]", 404),
    ] {
        let mut client = node.connect();
        client
            .send(format!("GET /get?key=absent HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .expect("the node reads");
        assert_eq!(client.answer().expect("an answer").status, status, "{host}");
    }
}

#[test]
fn pages_of_listed_origins_may_send_and_read() {
    let dir = scratch();
    let origins = ["-cors-origins", "https://app.example,http://b:3000"];
    let node = Node::start(dir.path(), &[], &origins);
    let body = br#"{"key":"a","value":"x"}"#;
    let listed = "Origin: https://app.example\r\nSec-Fetch-Site: cross-site\r\n";
    let asked = "Access-Control-Request-Method: POST\r\n";
    let preflight = ask(&node, "OPTIONS", "/put", b"", &format!("{listed}{asked}"));
    assert_eq!(preflight.status, 204);
    let field = |answer: &Answer, name: &str| answer.field(name).unwrap_or_default().to_owned();
    assert_eq!(
        field(&preflight, "access-control-allow-methods"),
        "POST, PUT, OPTIONS"
    );
    assert!(field(&preflight, "access-control-allow-headers").contains("Content-Type"));
    let put = ask(&node, "POST", "/put", body, listed);
    let got = ask(&node, "GET", "/get?key=a", b"", listed);
    let absent = ask(&node, "GET", "/get?key=b", b"", listed);
    let scan = ask(&node, "GET", "/scan", b"", listed);
    let bad = ask(&node, "GET", "/get", b"", listed);
    let all = [
        (preflight, 204),
        (put, 200),
        (got, 200),
        (absent, 404),
        (scan, 200),
        (bad, 400),
    ];
    for (answer, status) in all {
        assert_eq!(answer.status, status);
        assert_eq!(
            field(&answer, "access-control-allow-origin"),
            "https://app.example"
        );
        assert_eq!(field(&answer, "vary"), "Origin", "{status}");
    }
    // Others hear nothing of it, and are refused as ever.
    let foreign = "Origin: https://evil.example\r\n";
    let refused = ask(&node, "OPTIONS", "/put", b"", &format!("{foreign}{asked}"));
    let plain = ask(&node, "OPTIONS", "/put", b"", "");
    for (answer, status) in [(refused, 403), (plain, 204)] {
        assert_eq!(answer.status, status);
        for name in [
            "access-control-allow-origin",
            "access-control-allow-methods",
            "vary",
        ] {
            assert_eq!(field(&answer, name), "", "{status} {name}");
        }
    }
}

#[test]
fn limits_of_keys_and_values() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    let key = "k".repeat(4096);
    let put = |key: &str, value: &str| {
        format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}").into_bytes()
    };
    let largest = "v".repeat(8 << 20);
    assert_eq!(
        ask(&node, "POST", "/put", &put(&key, &largest), "").text(),
        "OK"
    );
    assert!(ask(&node, "GET", &format!("/get?key={key}"), b"", "").text() == largest);
    for (body, status) in [
        (put(&format!("{key}k"), "x"), 400),
        (put("a", &format!("{largest}v")), 413),
    ] {
        assert_eq!(ask(&node, "POST", "/put", &body, "").status, status);
    }
    assert_eq!(
        ask(&node, "GET", &format!("/get?key={key}k"), b"", "").status,
        400
    );
    assert_eq!(
        ask(
            &node,
            "GET",
            &format!("/get?key={}", "k".repeat(20_000)),
            b"",
            ""
        )
        .status,
        414
    );
    let fields = format!("X-Long: {}\r\n", "x".repeat(33_000));
    assert_eq!(ask(&node, "GET", "/health", b"", &fields).status, 431);
    // Announced too large: answered before the body is sent, and the connection ends.
    let mut client: Connection = node.connect();
    client
        .send(b"POST /batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        .expect("the node reads");
    assert_eq!(client.answer().expect("an answer").status, 413);
}
