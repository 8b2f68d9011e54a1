//! Every curl of the original README for one node, with exactly its answers: by raw sockets, then by curl.

use std::process::Command;

use crate::process::{Node, scratch};

#[test]
fn the_api_reference_word_for_word() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    let mut client = node.connect();
    let check = |answer: std::io::Result<crate::client::Answer>, status: u16, body: &str| {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (status, body));
        answer
    };
    check(client.put("user:1001", "Alice Smith"), 200, "OK");
    let got = check(client.get("/get?key=user:1001"), 200, "Alice Smith");
    assert_eq!(got.field("content-type"), Some("text/plain; charset=utf-8"));
    let batch = br#"{
    "items": [
      {"key":"product:101","value":"Laptop"},
      {"key":"product:102","value":"Mouse"},
      {"key":"product:103","value":"Keyboard"}
    ]
  }"#;
    check(client.post("/batch", batch), 200, "Batch Processed");
    let scan = check(
        client.get("/scan?start=product:101&end=product:199"),
        200,
        "{\"product:101\":\"Laptop\",\"product:102\":\"Mouse\",\"product:103\":\"Keyboard\"}\n",
    );
    assert_eq!(scan.field("content-type"), Some("application/json"));
    check(client.post("/delete?key=user:1001", b""), 200, "Deleted");
    check(client.get("/get?key=user:1001"), 404, "Not Found\n");
    // Scenario 3.
    check(client.put("temp:1", "delete-me"), 200, "OK");
    check(client.get("/get?key=temp:1"), 200, "delete-me");
    check(client.post("/delete?key=temp:1", b""), 200, "Deleted");
    check(client.get("/get?key=temp:1"), 404, "Not Found\n");
    // Test 3: the later write wins.
    check(client.put("versioned:key", "v1"), 200, "OK");
    check(client.put("versioned:key", "v2"), 200, "OK");
    check(client.get("/get?key=versioned:key"), 200, "v2");
}

#[test]
fn metrics_begin_with_the_originals_nine_counters() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    let mut client = node.connect();
    client.put("a", "1").expect("an answer");
    client.put("b", "2").expect("an answer");
    client.get("/get?key=a").expect("an answer");
    client.get("/scan").expect("an answer");
    client.post("/delete?key=a", b"").expect("an answer");
    client
        .post("/batch", br#"{"items":[]}"#)
        .expect("an answer");
    let metrics = client.get("/metrics").expect("an answer");
    assert_eq!(metrics.field("content-type"), Some("application/json"));
    let text = metrics.text();
    let mut rest = text.as_str();
    for name in [
        "writes",
        "reads",
        "batches",
        "scans",
        "deletes",
        "errors",
        "compactions",
        "flushes",
        "wal_syncs",
        "l0_files",
    ] {
        let at = rest
            .find(&format!("\"{name}\":"))
            .unwrap_or_else(|| panic!("{name} is not next: {text}"));
        assert!(at <= 24, "{name} is not next: {text}");
        rest = &rest[at + name.len() + 3..];
    }
    let values: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (name, count) in [
        ("writes", 2),
        ("reads", 1),
        ("batches", 1),
        ("scans", 1),
        ("deletes", 1),
        ("errors", 0),
    ] {
        assert_eq!(values[name], count, "{name}: {text}");
    }
    assert!(
        values["wal_syncs"].as_u64().is_some_and(|syncs| syncs >= 3),
        "{text}"
    );
    let health = client.get("/health").expect("an answer");
    assert_eq!(health.status, 200);
}

/// 47, not the original's 50: byte order (README, "SCAN").
#[test]
fn scanning_prod_1_to_50_of_100_finds_47() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    let mut client = node.connect();
    let items: Vec<String> = (1..=100)
        .map(|i| format!("{{\"key\":\"prod:{i}\",\"value\":\"item-{i}\"}}"))
        .collect();
    let body = format!("{{\"items\":[{}]}}", items.join(","));
    assert_eq!(
        client
            .post("/batch", body.as_bytes())
            .expect("an answer")
            .text(),
        "Batch Processed"
    );
    let scan = client
        .get("/scan?start=prod:1&end=prod:50")
        .expect("an answer")
        .text();
    let mut keys: Vec<String> = (1..=100)
        .map(|i| format!("prod:{i}"))
        .filter(|key| key.as_str() <= "prod:50")
        .collect();
    keys.sort();
    assert_eq!(keys.len(), 47);
    let rows: Vec<String> = keys
        .iter()
        .map(|key| format!("\"{key}\":\"item-{}\"", &key[5..]))
        .collect();
    assert_eq!(scan, format!("{{{}}}\n", rows.join(",")));
}

/// Commands as they stand in the original, but quiet, and a few more of curl's ways; what each prints.
const CURLS: &[(&str, &str)] = &[
    (
        r#"curl -sS -X POST http://localhost:8081/put \
                -H "Content-Type: application/json" \
                -d '{"key":"user:1001","value":"Alice Smith"}'"#,
        "OK",
    ),
    (
        r#"curl -sS "http://localhost:8081/get?key=user:1001""#,
        "Alice Smith",
    ),
    (
        r#"curl -sS -X POST http://localhost:8081/batch \
                -H "Content-Type: application/json" \
                -d '{
                  "items": [
                    {"key":"product:101","value":"Laptop"},
                    {"key":"product:102","value":"Mouse"},
                    {"key":"product:103","value":"Keyboard"}
                  ]
                }'"#,
        "Batch Processed",
    ),
    (
        r#"curl -sS "http://localhost:8081/scan?start=product:101&end=product:199""#,
        "{\"product:101\":\"Laptop\",\"product:102\":\"Mouse\",\"product:103\":\"Keyboard\"}\n",
    ),
    (
        r#"curl -sS -X POST "http://localhost:8081/delete?key=user:1001""#,
        "Deleted",
    ),
    (
        r#"curl -sS "http://localhost:8081/get?key=user:1001""#,
        "Not Found\n",
    ),
    (
        r#"curl -sS -X POST http://localhost:8081/put -d '{"key":"test:1","value":"hello"}'"#,
        "OK",
    ),
    (
        r#"curl -sS "http://localhost:8081/get?key=test:1""#,
        "hello",
    ),
    (
        r#"curl -sS -o /dev/null -w '%{http_code}' http://localhost:8081/metrics"#,
        "200",
    ),
    (
        r#"curl -sS -G --data-urlencode 'key=a b+é' -o /dev/null -w '%{http_code}' http://127.0.0.1:8081/get"#,
        "404",
    ),
    (
        r#"curl -sS -0 "http://localhost:8081/get?key=test:1""#,
        "hello",
    ),
    (
        r#"curl -sSI "http://localhost:8081/get?key=test:1" | grep -i ^content-length | tr -d '\r'"#,
        "Content-Length: 5\n",
    ),
];

#[test]
fn by_curl() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: curl is not installed");
        return;
    }
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &[]);
    for (command, wanted) in CURLS {
        let command = command.replace("8081", &node.port.to_string());
        let run = Command::new("sh")
            .args(["-c", &command])
            .output()
            .expect("there is a shell");
        assert_eq!(
            String::from_utf8_lossy(&run.stdout),
            *wanted,
            "{command}\n{run:?}"
        );
    }
}
