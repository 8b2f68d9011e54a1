//! HTTP as it is spoken on the wire: pipelines, versions, `Expect`, chunks, and framing nobody may doubt.

use std::io;

use crate::client::Connection;
use crate::process::{Node, scratch};

fn exchange(client: &mut Connection, bytes: &[u8]) -> (u16, String) {
    client.send(bytes).expect("the node reads");
    let answer = client.answer().expect("an answer");
    (answer.status, answer.text())
}

#[test]
fn a_pipeline_is_answered_in_order() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    let mut client = node.connect();
    let mut bytes = Vec::new();
    for n in 0..200 {
        let body = format!("{{\"key\":\"p:{n}\",\"value\":\"{n}\"}}");
        bytes.extend(
            format!(
                "POST /put HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
        bytes.extend(format!("GET /get?key=p:{n} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    }
    client.send(&bytes).expect("the node reads");
    for n in 0..200 {
        assert_eq!(client.answer().expect("an answer").text(), "OK");
        assert_eq!(
            client.answer().expect("an answer").text(),
            n.to_string(),
            "a read sees the write before it"
        );
    }
}

#[test]
fn bytes_may_arrive_one_by_one() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    let mut client = node.connect();
    let body = r#"{"key":"slow","value":"x"}"#;
    let request = format!(
        "POST /put HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for byte in request.as_bytes() {
        client.send(&[*byte]).expect("the node reads");
    }
    assert_eq!(client.answer().expect("an answer").text(), "OK");
}

#[test]
fn old_and_closing_clients() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    let mut client = node.connect();
    assert_eq!(
        exchange(&mut client, b"GET /get?key=a HTTP/1.0\r\n\r\n").0,
        404
    );
    assert!(client.is_closed(), "HTTP/1.0 closes");
    let mut client = node.connect();
    client
        .send(b"GET /get?key=a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .expect("the node reads");
    let answer = client.answer().expect("an answer");
    assert!(
        answer
            .field("connection")
            .is_some_and(|it| it.eq_ignore_ascii_case("keep-alive"))
    );
    assert_eq!(
        client
            .get("/get?key=a")
            .expect("the connection lives")
            .status,
        404
    );
    client
        .send(b"GET /get?key=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("the node reads");
    let answer = client.answer().expect("an answer");
    assert!(
        answer
            .field("connection")
            .is_some_and(|it| it.eq_ignore_ascii_case("close"))
    );
    assert!(client.is_closed());
}

#[test]
fn chunked_bodies() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    let mut client = node.connect();
    let head = "POST /put HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = "A;note=x\r\n{\"key\":\"c\"\r\n0e\r\n,\"value\":\"abc\"\r\n1\r\n}\r\n0\r\nX-Trailer: y\r\n\r\n";
    assert_eq!(
        exchange(&mut client, format!("{head}{chunks}").as_bytes()),
        (200, "OK".to_string())
    );
    assert_eq!(
        client
            .get("/get?key=c")
            .expect("the connection lives")
            .text(),
        "abc"
    );
    let other = "POST /put HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
    assert_eq!(exchange(&mut client, other.as_bytes()).0, 501);
}

#[test]
fn expect_100_continue() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    let mut client = node.connect();
    let body = br#"{"key":"e","value":"x"}"#;
    let head = format!(
        "POST /put HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.send(head.as_bytes()).expect("the node reads");
    assert_eq!(client.answer_head().expect("an interim answer").status, 100);
    assert_eq!(exchange(&mut client, body), (200, "OK".to_string()));
    let too_large = "POST /put HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(
        exchange(&mut client, too_large.as_bytes()).0,
        413,
        "the final answer comes instead of 100"
    );
    let mut client = node.connect();
    let odd = "POST /put HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(exchange(&mut client, odd.as_bytes()).0, 417);
}

/// 400, then close, and a request smuggled behind the doubt is never processed.
#[test]
fn doubtful_framing_ends_the_connection() -> io::Result<()> {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    for (name, head) in [
        ("no Host", "GET /health HTTP/1.1\r\n\r\n"),
        (
            "two lengths",
            "POST /put HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        ),
        (
            "length and chunks",
            "POST /put HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "space before colon",
            "GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
        ),
        (
            "folded field",
            "GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        ),
        ("bare LF", "GET /health HTTP/1.1\nHost: localhost\n\n"),
        (
            "signed length",
            "POST /put HTTP/1.1\r\nHost: localhost\r\nContent-Length: +2\r\n\r\n{}",
        ),
        (
            "bad chunk size",
            "POST /put HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ),
        ("not HTTP", "\x16\x03\x01\x02\r\n\r\n"),
    ] {
        let mut client = node.connect();
        let smuggled = "POST /delete?key=precious HTTP/1.1\r\nHost: localhost\r\n\r\n";
        node.connect().put("precious", "x")?;
        client.send(format!("{head}{smuggled}").as_bytes())?;
        let answer = client.answer()?;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert!(client.is_closed(), "{name}: nothing follows the refusal");
        assert_eq!(
            node.connect().get("/get?key=precious")?.status,
            200,
            "{name}: the smuggled request ran"
        );
    }
    Ok(())
}
