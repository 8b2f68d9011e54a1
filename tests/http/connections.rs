//! Pipelines, ends of connections and clients that go, against the real program. Numbers as in
//! `golden/http/line.txt`.

use std::io::Read;

use kvstore::http::request::Method;

use crate::server::{End, GET, Heard, Reply, Server, Talk, get_request, put_request};

#[test]
fn answers_come_in_order_and_reads_see_the_writes_before_them() {
    let server = Server::start();
    let many = |name: &str, requests: &str, n: usize, status: u16| {
        server.exchange(
            name,
            requests.as_bytes(),
            &vec![(GET, status); n],
            End::Kept,
        )
    };
    let health = get_request("/health");
    many("100", &health.repeat(2), 2, 200);
    many("101", &health.repeat(1000), 1000, 200);
    let target = |n: usize| get_request(&format!("/get?key=none{n}"));
    many(
        "101: of the store",
        &(0..1000).map(target).collect::<String>(),
        1000,
        404,
    );
    for round in 0..50 {
        let key = format!("r{round}");
        let (old, new) = (put_request(&key, "old"), put_request(&key, "new"));
        let requests = format!("{old}{new}{}", get_request(&format!("/get?key={key}")));
        let replies = many("103", &requests, 3, 200);
        assert_eq!(replies[2].body, b"new", "103, round {round}");
    }
}

#[test]
fn nothing_behind_the_end_is_carried_out() {
    let server = Server::start();
    let (first, last) = (put_request("p", "1"), put_request("p", "2"));
    let get = get_request("/get?key=p");
    let bad = format!("{first}GET /x HTTP/1.1\r\nHost : h\r\n\r\n{last}");
    server.exchange(
        "102",
        bad.as_bytes(),
        &[(GET, 200), (GET, 400)],
        End::Closed,
    );
    assert_eq!(
        server.ask(&get).body,
        b"1",
        "102: the third was carried out"
    );

    let close = "GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    server.exchange("104", close.as_bytes(), &[(GET, 200)], End::Closed);
    let after = format!("{close}{last}");
    server.exchange("104", after.as_bytes(), &[(GET, 200)], End::Closed);
    assert_eq!(
        server.ask(&get).body,
        b"1",
        "104: what follows was carried out"
    );

    let half = &last[..last.len() - 1];
    server.exchange("115", half.as_bytes(), &[], End::HalfClosed);
    let body = r#"{"key":"p","value":"3"}"#;
    let head = "POST /put HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked";
    let chunked = format!("{head}\r\n\r\n17\r\n{body}\r\n");
    server.exchange("93", chunked.as_bytes(), &[], End::HalfClosed);
    assert_eq!(
        server.ask(&get).body,
        b"1",
        "93, 115: half a request was carried out"
    );
    let whole = format!("{chunked}0\r\n\r\n");
    server.exchange("84", whole.as_bytes(), &[(GET, 200)], End::HalfClosed);
    assert_eq!(server.ask(&get).body, b"3");
}

#[test]
fn versions_heads_and_half_closes() {
    let server = Server::start();
    let old = "GET /health HTTP/1.0\r\n";
    let once = format!("{old}\r\n");
    server.exchange("105", once.as_bytes(), &[(GET, 200)], End::Closed);
    let kept = format!("{old}Connection: keep-alive\r\n\r\n");
    let replies = server.exchange("105", kept.as_bytes(), &[(GET, 200)], End::Kept);
    assert_eq!(replies[0].field("Connection"), Some("keep-alive"));

    server.ask(&put_request("p", "1"));
    let get = get_request("/get?key=p");
    let both = format!("{}{get}", get.replace("GET", "HEAD"));
    let want = [(Method::Head, 200), (GET, 200)];
    let replies = server.exchange("107", both.as_bytes(), &want, End::Kept);
    assert_eq!(replies[0].field("Content-Length"), Some("1"));
    assert_eq!(
        (replies[0].body.len(), replies[1].body.as_slice()),
        (0, &b"1"[..])
    );

    let health = get_request("/health").repeat(3);
    server.exchange("113", health.as_bytes(), &[(GET, 200); 3], End::HalfClosed);
    let put = put_request("q", "1");
    server.exchange("113", put.as_bytes(), &[(GET, 200)], End::HalfClosed);
    server.exchange("114", b"GET /health HTTP/1.1\r\nHo", &[], End::HalfClosed);

    let mut talk = server.connect();
    for byte in put_request("slow", "1").as_bytes() {
        talk.send(&[*byte]);
    }
    assert!(
        matches!(talk.hear(GET), Heard::Answer(Reply { status: 200, .. })),
        "60"
    );
    assert!(talk.is_kept(), "60");
}

#[test]
fn large_answers_early_errors_and_clients_that_go() {
    let server = Server::start();
    let value = "v".repeat(8 << 20);
    let put = put_request("big", &value);
    server.exchange("large", put.as_bytes(), &[(GET, 200)], End::Kept);
    let get = get_request("/get?key=big");
    let gets = get.repeat(3);
    let replies = server.exchange("large", gets.as_bytes(), &[(GET, 200); 3], End::Kept);
    assert!(replies.iter().all(|reply| reply.body == value.as_bytes()));

    // The client is still sending its body when it is refused, and yet sees why.
    let head = "POST /put HTTP/1.1\r\nHost : h\r\nContent-Length: 200000";
    let early = format!("{head}\r\n\r\n{}", "x".repeat(200_000));
    server.exchange("123", early.as_bytes(), &[(GET, 400)], End::Closed);

    // Gone with answers or half a body on their way. What the client has not read makes its close a reset.
    let half = "POST /put HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nhalf";
    let leave = [get.repeat(2), format!("{}{half}", get_request("/health"))];
    for request in leave.iter().cycle().take(40) {
        let mut talk = server.connect();
        talk.send(request.as_bytes());
        assert!(talk.socket.read(&mut [0; 10]).unwrap() > 0, "115, 116");
    }
    server.assert_serves("115, 116");
}

#[test]
fn clients_wait_when_descriptors_run_out() {
    let server = Server::start_with("ulimit -n 100; KVSTORE_CORES=1 exec \"$0\" \"$@\"");
    server.ask(&put_request("a", "1"));
    let mut talks: Vec<Talk> = (0..300).map(|_| server.connect()).collect();
    for talk in &mut talks {
        talk.send(put_request("b", "1").as_bytes());
    }
    // One core, so they are taken in order: each that goes makes room for one that waits.
    for (n, mut talk) in talks.into_iter().enumerate() {
        let heard = talk.hear(GET);
        assert!(
            matches!(heard, Heard::Answer(Reply { status: 200, .. })),
            "122: {n}: {heard:?}"
        );
    }
    server.assert_serves("122");
}
