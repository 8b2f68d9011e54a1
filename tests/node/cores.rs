//! Shards are fixed, cores are not: one directory served by 2 cores, 1, then 2 again.

use crate::process::{Node, scratch};

#[test]
fn another_number_of_cores_loses_and_doubles_nothing() {
    let dir = scratch();
    let mut expected: Vec<(String, String)> = Vec::new();
    for (round, cores) in ["2", "1", "2"].iter().enumerate() {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            println!("skipped: this machine has one core");
            return;
        }
        let settings = [("MEMTABLE_SIZE", "64KB"), ("MAX_L0_FILES", "2")];
        let node = Node::start(dir.path(), &settings, &["-cores", cores]);
        let printed = node.printed();
        assert!(printed.contains("Shards:           2\n"), "{printed}");
        assert!(
            printed.contains(&format!("Cores:            {cores}\n")),
            "{printed}"
        );
        let mut client = node.connect();
        scan_is(&mut client, &expected);
        for n in 0..600 {
            let key = format!("r{round}:{n:04}");
            let value = format!("{round}-{}", "x".repeat(n % 300));
            assert_eq!(client.put(&key, &value).expect("an answer").text(), "OK");
            expected.push((key, value));
        }
        // Every seventh key of the rounds before is written anew, every eleventh deleted.
        let mut kept = Vec::new();
        for (at, (key, value)) in expected.drain(..).enumerate() {
            let own = key.starts_with(&format!("r{round}:"));
            if !own && at % 11 == 0 {
                let answer = client
                    .post(&format!("/delete?key={key}"), b"")
                    .expect("an answer");
                assert_eq!(answer.text(), "Deleted");
            } else if !own && at % 7 == 0 {
                let value = format!("again-{round}");
                assert_eq!(client.put(&key, &value).expect("an answer").text(), "OK");
                kept.push((key, value));
            } else {
                kept.push((key, value));
            }
        }
        expected = kept;
        scan_is(&mut client, &expected);
        for (key, value) in &expected {
            let answer = client.get(&format!("/get?key={key}")).expect("an answer");
            assert_eq!((answer.status, &answer.text()), (200, value), "{key}");
        }
        if round == 0 {
            node.kill();
        } else {
            assert!(node.stop().success());
        }
    }
}

fn scan_is(client: &mut crate::client::Connection, expected: &[(String, String)]) {
    let mut rows: Vec<String> = expected
        .iter()
        .map(|(key, value)| format!("\"{key}\":\"{value}\""))
        .collect();
    rows.sort();
    let scan = client.get("/scan").expect("an answer");
    assert_eq!(scan.text(), format!("{{{}}}\n", rows.join(",")));
}
