//! Each rule finds its planted mistake, and only that.

use crate::rules::*;
use crate::source::{Source, blank};

const TABLE: &str = "//! | module | may name | pure | what\n//! | base | | yes | words\n//! | rt | base | | door\n//! | store | base rt | | tree\n";

fn file(path: &str, text: &str) -> Source {
    Source::new(path, text)
}

#[test]
fn blanking_keeps_code_and_nothing_else() {
    let text = "let a = \"x // \\\" y\"; // z\nlet b = 'q'; let c: &'static str = r#\"k\"l\"#; /* m */ let d = '\\'';";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    for gone in ["x", "y", "z", "q", "k\"l", " m "] {
        assert!(
            !code.contains(&format!("{gone}\"")) && !code.contains(&format!("'{gone}'")),
            "{gone}: {code}"
        );
    }
    assert!(
        code.contains("&'static str") && code.contains("let d ="),
        "{code}"
    );
}

#[test]
fn table() {
    let table = layer_table(&format!(
        "{TABLE}//! | low | high | | x\n//! | high | | | x\n"
    ));
    let complaints = check_table(
        &table,
        &[file("src/base/mod.rs", ""), file("src/odd/mod.rs", "")],
    );
    for part in [
        "low may name high",
        "src/odd: no row",
        "layer rt has no folder",
    ] {
        assert!(
            complaints.iter().any(|c| c.contains(part)),
            "{part}: {complaints:?}"
        );
    }
}

#[test]
fn layers() {
    let table = layer_table(TABLE);
    for (path, bad) in [
        ("src/base/x.rs", "use crate::rt::Rt;"),
        ("src/base/x.rs", "use crate::{base::y, store::{Store}};"),
        ("src/rt/mod.rs", "use super::store::Store;"),
        (
            "src/rt/uring/net.rs",
            "fn f() { super::super::super::store::f() }",
        ),
        (
            "src/rt/x.rs",
            "#[cfg(test)]\nmod tests {\n use super::super::super::store::S;\n}",
        ),
    ] {
        assert_eq!(
            check_layers(&table, &file(path, bad)).len(),
            1,
            "{path}: {bad}"
        );
    }
    for (path, good) in [
        (
            "src/store/x.rs",
            "use crate::rt::Rt; use crate::store::wal; // crate::node",
        ),
        (
            "src/rt/uring/net.rs",
            "use super::super::store_like; use super::super::rt;",
        ),
    ] {
        assert!(
            check_layers(&table, &file(path, good)).is_empty(),
            "{path}: {good}"
        );
    }
}

#[test]
fn doorways_and_purity() {
    let table = layer_table(TABLE);
    for bad in [
        "use std::fs;",
        "use std::{io, thread};",
        "use std::net::TcpStream;",
        "glommio::x();",
        "let t = Instant::now();",
    ] {
        assert_eq!(
            check_doorways(&file("src/store/x.rs", bad)).len(),
            1,
            "{bad}"
        );
        assert!(
            check_doorways(&file("src/rt/x.rs", bad)).is_empty(),
            "{bad}"
        );
        assert_eq!(
            check_purity(&table, &file("src/base/x.rs", bad)).len(),
            1,
            "{bad}"
        );
    }
    for good in [
        "use std::net::SocketAddr;",
        "// std::fs",
        "#[cfg(test)]\nmod tests { use std::fs; }",
    ] {
        assert!(
            check_doorways(&file("src/store/x.rs", good)).is_empty(),
            "{good}"
        );
    }
    for bad in ["async fn f() {}", "f().await;"] {
        assert_eq!(
            check_purity(&table, &file("src/base/x.rs", bad)).len(),
            1,
            "{bad}"
        );
        assert!(
            check_purity(&table, &file("src/store/x.rs", bad)).is_empty(),
            "{bad}"
        );
        let marked = format!("//! Pure. Words.\n{bad}");
        assert_eq!(
            check_purity(&table, &file("src/store/x.rs", &marked)).len(),
            1,
            "{bad}"
        );
    }
}

#[test]
fn sizes() {
    let long = "x\n".repeat(FILE_LINES_MAX + 1);
    assert_eq!(check_sizes(&file("src/base/x.rs", &long)).len(), 1);
    let tests = format!(
        "#[cfg(test)]\nmod tests {{\n{}}}\n",
        "x\n".repeat(FILE_LINES_MAX)
    );
    assert!(check_sizes(&file("src/base/x.rs", &tests)).is_empty());
    let both = format!("{}{}", tests, "x\n".repeat(500));
    assert_eq!(check_sizes(&file("src/base/x.rs", &both)).len(), 1);
    let body = |lines: usize| {
        format!(
            "fn f(a: [u8; 4]) -> u8 {{\n{}}}\n",
            "x;\n".repeat(lines - 2)
        )
    };
    assert!(check_sizes(&file("src/base/x.rs", &body(FUNCTION_LINES_MAX))).is_empty());
    assert_eq!(
        check_sizes(&file("src/base/x.rs", &body(FUNCTION_LINES_MAX + 1))).len(),
        1
    );
}

#[test]
fn headers_and_dead_files() {
    assert_eq!(check_header(&file("src/a.rs", "use x;")).len(), 1);
    assert!(check_header(&file("src/a.rs", "//! A.")).is_empty());
    let sources = [
        file("src/lib.rs", "pub mod a;\n// mod dead;"),
        file("src/a/mod.rs", "mod b;"),
        file("src/a/b.rs", ""),
        file("src/dead.rs", ""),
    ];
    assert_eq!(
        check_dead_files(&sources),
        ["src/dead.rs:1: no mod line leads here"]
    );
}

#[test]
fn words_reasons_unsafe_documents() {
    for bad in [
        concat!("// TO", "DO later"),
        concat!("db", "g!(x);"),
        concat!("to", "do!()"),
        "let _ = f();",
    ] {
        assert_eq!(check_words(&file("src/a.rs", bad)).len(), 1, "{bad}");
    }
    assert_eq!(check_words(&file("src/util.rs", "")).len(), 1);
    assert_eq!(check_words(&file("src/helpers/mod.rs", "")).len(), 1);
    assert_eq!(
        check_reasons(&file("src/a.rs", "#[allow(dead_code)]")).len(),
        1
    );
    assert!(check_reasons(&file("src/a.rs", "#[expect(dead_code, reason = \"x\")]")).is_empty());
    assert_eq!(check_unsafe(&file("src/a.rs", "unsafe { f() }")).len(), 1);
    assert!(check_unsafe(&file("src/a.rs", "// SAFETY: it is.\nunsafe { f() }")).is_empty());
    let text = "see docs/nowhere.md and docs/here.md.";
    assert_eq!(
        check_documents("a", text, |name| name == "docs/here.md").len(),
        1
    );
}

#[test]
fn evidence_and_numbered_rows() {
    let read = |name: &str| match name {
        "src/a.rs" => Some("fn here() {}".to_owned()),
        "tests" | "tests/golden/" => Some(String::new()),
        _ => None,
    };
    let good = "`src/a.rs::here`, `tests/golden/`, `src/a.rs`, `nothing/of/ours.rs`";
    assert!(check_evidence("p", good, read).is_empty());
    for bad in [
        "`src/a.rs::her`",
        "`src/b.rs`",
        "`src/b.rs::here`",
        "`tests/golden/::x`",
    ] {
        assert_eq!(check_evidence("p", bad, read).len(), 1, "{bad}");
    }
    let row = |number: u32, cell: &str| format!("| {number} | what | {cell} |\n");
    let rows = [row(1, good), row(2, good), row(2, good)].concat();
    assert!(check_numbered_rows("p", &rows, 2).is_empty());
    let gap = row(1, good) + &row(3, good);
    assert_eq!(
        check_numbered_rows("p", &gap, 3),
        ["p: number 2 is missing"]
    );
    for bad in [
        row(1, "`tests/golden/`"),
        row(1, ""),
        row(2, good) + &row(1, good),
    ] {
        assert_eq!(check_numbered_rows("p", &bad, 1).len(), 1, "{bad}");
    }
}
