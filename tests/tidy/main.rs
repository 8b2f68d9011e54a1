//! The house rules as a test: layers, purity, sizes, dead files, words, reasons.
//!
//! Each rule is a function from sources to complaints (`file:line: what`); the repository must have none, and
//! for each rule a planted mistake in `planted` shows that it still bites. The layer table is the one people read, at
//! the top of `src/lib.rs`.

#![expect(clippy::disallowed_methods, reason = "it reads the sources")]

mod planted;
mod rules;
mod source;

use std::path::Path;

use rules::*;
use source::Source;

/// Every `.rs` file below `folder`, in path order.
fn read_sources(folder: &Path, name: &str, into: &mut Vec<Source>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .expect("the sources are readable")
        .map(|entry| entry.expect("the sources are readable").path())
        .collect();
    entries.sort();
    for path in entries {
        let file = path
            .file_name()
            .and_then(|f| f.to_str())
            .expect("names are UTF-8");
        let name = format!("{name}/{file}");
        if path.is_dir() {
            read_sources(&path, &name, into);
        } else if file.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
            into.push(Source::new(&name, &text));
        }
    }
}

fn repository() -> (Vec<Layer>, Vec<Source>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "tests", "benches"] {
        if root.join(folder).is_dir() {
            read_sources(&root.join(folder), folder, &mut sources);
        }
    }
    let lib = std::fs::read_to_string(root.join("src/lib.rs")).expect("src/lib.rs is readable");
    (layer_table(&lib), sources)
}

#[test]
fn the_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (table, sources) = repository();
    assert!(
        table.len() >= 6 && sources.len() > 20,
        "the repository was not found"
    );
    let mut complaints = check_table(&table, &sources);
    complaints.extend(check_dead_files(&sources));
    for source in &sources {
        let exists = |name: &str| root.join(name).exists();
        if source.path.starts_with("src/") {
            complaints.extend(check_layers(&table, source));
            complaints.extend(check_doorways(source));
            complaints.extend(check_purity(&table, source));
        }
        complaints.extend(check_sizes(source));
        complaints.extend(check_header(source));
        complaints.extend(check_words(source));
        complaints.extend(check_reasons(source));
        complaints.extend(check_unsafe(source));
        if source.path != "tests/tidy/planted.rs" {
            complaints.extend(check_documents(&source.path, &source.text, exists));
        }
    }
    for document in ["README.md", "docs/architecture.md"] {
        let text = std::fs::read_to_string(root.join(document)).expect("the document exists");
        complaints.extend(check_documents(document, &text, |name| {
            root.join(name).exists()
        }));
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_readme_names_every_setting() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))
        .expect("README.md");
    for row in kvstore::cli::settings::SETTINGS {
        let flag = row.flag.map_or(String::new(), |flag| format!("`-{flag}`"));
        let found = readme.lines().any(|line| {
            line.starts_with('|')
                && line.contains(&format!("`{}`", row.env))
                && line.contains(&flag)
                && line.contains(row.default)
        });
        assert!(
            found,
            "README.md: no table row with `{}` {flag} and default {:?}",
            row.env, row.default
        );
    }
}

/// Every test, script and file that a page names as evidence is there, and none of the faults is left out.
#[test]
fn pages_name_real_tests() {
    const FAULTS: u32 = 34;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| {
        let path = root.join(name);
        path.exists()
            .then(|| std::fs::read_to_string(path).unwrap_or_default())
    };
    let page = |name: &str| read(name).expect("the page exists");
    let [promises, faults] = ["docs/guarantees.md", "docs/original-bugs.md"];
    assert!(evidence(&page(promises)).count() > 20, "a page of promises");
    let mut complaints = check_evidence(promises, &page(promises), read);
    complaints.extend(check_evidence(faults, &page(faults), read));
    complaints.extend(check_numbered_rows(faults, &page(faults), FAULTS));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
