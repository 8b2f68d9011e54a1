//! The rules: from sources to complaints.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, functions, names_below};

/// Lines of a file before its tests, and with them; lines of a function.
pub(crate) const FILE_LINES_MAX: usize = 600;
pub(crate) const FILE_LINES_WITH_TESTS_MAX: usize = 1000;
pub(crate) const FUNCTION_LINES_MAX: usize = 70;

/// One row of the table in `src/lib.rs`.
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) may_name: Vec<String>,
    pub(crate) pure: bool,
}

pub(crate) fn layer_table(lib: &str) -> Vec<Layer> {
    lib.lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .skip(1)
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            assert!(
                cells.len() >= 4,
                "a row of the layer table has four cells: {row}"
            );
            Layer {
                name: cells[0].to_string(),
                may_name: cells[1].split_whitespace().map(str::to_string).collect(),
                pure: cells[2] == "yes",
            }
        })
        .collect()
}

/// The table names only rows above, and has a row for each folder of `src` and no other.
pub(crate) fn check_table(table: &[Layer], sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut above = BTreeSet::new();
    for layer in table {
        for named in &layer.may_name {
            if !above.contains(named.as_str()) {
                complaints.push(format!(
                    "src/lib.rs: {} may name {named}, which is no row above it",
                    layer.name
                ));
            }
        }
        above.insert(layer.name.as_str());
    }
    let folders: BTreeSet<&str> = sources
        .iter()
        .filter(|source| source.path.starts_with("src/"))
        .map(Source::layer)
        .filter(|layer| !layer.is_empty())
        .collect();
    for missing in folders.difference(&above) {
        complaints.push(format!(
            "src/{missing}: no row in the layer table of src/lib.rs"
        ));
    }
    for missing in above.difference(&folders) {
        complaints.push(format!("src/lib.rs: layer {missing} has no folder"));
    }
    complaints
}

/// A module names only the layers its row allows.
pub(crate) fn check_layers(table: &[Layer], source: &Source) -> Vec<String> {
    let Some(own) = table.iter().find(|layer| layer.name == source.layer()) else {
        return Vec::new();
    };
    let is_layer = |name: &str| table.iter().any(|layer| layer.name == name);
    let mut named = names_below(&source.code, "crate");
    // `super::` climbing to the root names layers too; a test module is one step deeper.
    for extra in 0..2 {
        let root = vec!["super"; source.depth() + extra].join("::");
        named.extend(
            names_below(&source.code, &root)
                .into_iter()
                .filter(|(at, name)| {
                    let inside_tests = source.line_of(*at) > source.tests_from;
                    let longer = source.code[..*at].ends_with("super::");
                    (extra == 1) == inside_tests && !longer && name != "super"
                }),
        );
    }
    named
        .into_iter()
        .filter(|(_, name)| is_layer(name) && *name != own.name && !own.may_name.contains(name))
        .map(|(at, name)| {
            source.complain(
                source.line_of(at),
                format!("{} must not name {name}", own.name),
            )
        })
        .collect()
}

/// Types of `std::net` are words; everything else there is a doorway.
pub(crate) const NET_WORDS: [&str; 7] = [
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "AddrParseError",
];

/// What only `rt` may touch.
pub(crate) fn doorways(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, name) in names_below(&source.code, "std") {
        if matches!(name.as_str(), "fs" | "thread" | "process" | "env") {
            found.push((at, format!("std::{name}")));
        }
    }
    for (at, name) in names_below(&source.code, "std::net") {
        if !NET_WORDS.contains(&name.as_str()) {
            found.push((at, format!("std::net::{name}")));
        }
    }
    for (at, name) in names_below(&source.code, "std::sync") {
        if matches!(
            name.as_str(),
            "Mutex" | "RwLock" | "Condvar" | "mpsc" | "atomic"
        ) {
            found.push((at, format!("std::sync::{name}")));
        }
    }
    for word in [
        "glommio",
        "libc",
        "memmap2",
        "socket2",
        "signal_hook",
        "Instant::now",
        "SystemTime::now",
    ] {
        for (at, _) in source.code.match_indices(word) {
            let alone = !source.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if alone {
                found.push((at, word.to_string()));
            }
        }
    }
    found.retain(|(at, _)| source.line_of(*at) <= source.tests_from);
    found
}

/// `rt` alone names the outside. The command line may ask for its arguments and its environment.
pub(crate) fn check_doorways(source: &Source) -> Vec<String> {
    let words_of_cli = ["std::process", "std::env"];
    doorways(source)
        .into_iter()
        .filter(|(_, name)| match source.layer() {
            "rt" => false,
            "cli" | "" => !words_of_cli.contains(&name.as_str()),
            _ => true,
        })
        .map(|(at, name)| source.complain(source.line_of(at), format!("only rt may name {name}")))
        .collect()
}

/// A pure layer, and a file whose header says `Pure.`, neither waits nor touches the outside.
pub(crate) fn check_purity(table: &[Layer], source: &Source) -> Vec<String> {
    let header_says_so = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.contains("Pure."));
    let layer_is = table
        .iter()
        .any(|layer| layer.pure && layer.name == source.layer());
    if !header_says_so && !layer_is {
        return Vec::new();
    }
    let mut complaints: Vec<String> = doorways(source)
        .into_iter()
        .map(|(at, name)| source.complain(source.line_of(at), format!("a pure file names {name}")))
        .collect();
    for (number, line) in source.product_lines() {
        let words: Vec<&str> = line
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .collect();
        if words.contains(&"async") || line.contains(".await") {
            complaints.push(source.complain(number, "a pure file waits"));
        }
    }
    complaints
}

pub(crate) fn check_sizes(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let total = source.text.lines().count();
    let product = if source.path.starts_with("tests/") {
        total
    } else {
        source.tests_from
    };
    if product > FILE_LINES_MAX {
        complaints.push(source.complain(
            product,
            format!("{product} lines before the tests, {FILE_LINES_MAX} is the wall"),
        ));
    }
    if total > FILE_LINES_WITH_TESTS_MAX {
        complaints.push(source.complain(
            total,
            format!("{total} lines, {FILE_LINES_WITH_TESTS_MAX} is the wall"),
        ));
    }
    for (name, first, last) in functions(source) {
        let lines = last - first + 1;
        if lines > FUNCTION_LINES_MAX {
            complaints.push(source.complain(
                first,
                format!("fn {name} has {lines} lines, {FUNCTION_LINES_MAX} is the wall"),
            ));
        }
    }
    complaints
}

pub(crate) fn check_header(source: &Source) -> Vec<String> {
    if source.text.starts_with("//!") {
        Vec::new()
    } else {
        vec![source.complain(1, "a file begins with //! and what it is")]
    }
}

/// Every file under `src` is some file's `mod`.
pub(crate) fn check_dead_files(sources: &[Source]) -> Vec<String> {
    let by_path: BTreeMap<&str, &Source> = sources.iter().map(|s| (s.path.as_str(), s)).collect();
    let mut reached = BTreeSet::new();
    let mut waiting = vec!["src/lib.rs".to_string(), "src/main.rs".to_string()];
    while let Some(path) = waiting.pop() {
        let Some(source) = by_path.get(path.as_str()) else {
            continue;
        };
        if !reached.insert(path.clone()) {
            continue;
        }
        let is_root = path == "src/lib.rs" || path == "src/main.rs" || path.ends_with("/mod.rs");
        let folder = match (is_root, path.rsplit_once('/')) {
            (true, Some((folder, _))) => folder.to_string(),
            _ => path.trim_end_matches(".rs").to_string(),
        };
        for line in source.code.lines() {
            let declared = line
                .trim()
                .strip_suffix(';')
                .and_then(|line| line.rsplit_once("mod "));
            if let Some((_, name)) = declared {
                waiting.push(format!("{folder}/{name}.rs"));
                waiting.push(format!("{folder}/{name}/mod.rs"));
            }
        }
    }
    sources
        .iter()
        .filter(|source| source.path.starts_with("src/") && !reached.contains(&source.path))
        .map(|source| source.complain(1, "no mod line leads here"))
        .collect()
}

pub(crate) fn check_words(source: &Source) -> Vec<String> {
    // Spelled in two halves, or this file would accuse itself.
    let promises = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let macros = [
        concat!("db", "g!("),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
    ];
    let mut complaints = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric()).collect();
        for word in promises.iter().filter(|word| words.contains(word)) {
            complaints.push(source.complain(
                at + 1,
                format!("{word}: write the limit or the decision instead"),
            ));
        }
    }
    for (at, line) in source.code.lines().enumerate() {
        for word in macros.iter().filter(|word| line.contains(**word)) {
            complaints.push(source.complain(at + 1, format!("{word}...) is unfinished")));
        }
        if at < source.tests_from && line.contains("let _ =") {
            complaints.push(source.complain(at + 1, "a result is dropped without a word"));
        }
    }
    let stem = source
        .path
        .rsplit('/')
        .find(|part| *part != "mod.rs")
        .unwrap_or("");
    let stem = stem.trim_end_matches(".rs");
    if [
        "util", "utils", "common", "helper", "helpers", "manager", "misc",
    ]
    .contains(&stem)
    {
        complaints.push(source.complain(1, format!("{stem} is no noun: say what is in it")));
    }
    complaints
}

/// `allow` and `expect` attributes give their reason.
pub(crate) fn check_reasons(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for attribute in ["[allow(", "[expect("] {
        for (at, _) in source.code.match_indices(attribute) {
            let end = source.code[at..]
                .find(")]")
                .map_or(source.code.len(), |len| at + len);
            if !source.code[at..end].contains("reason =") {
                complaints.push(source.complain(
                    source.line_of(at),
                    "a lint is switched off without a reason",
                ));
            }
        }
    }
    complaints
}

pub(crate) fn check_unsafe(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut complaints = Vec::new();
    for (at, line) in source.code.lines().enumerate() {
        let opens = ["unsafe {", "unsafe impl"]
            .iter()
            .any(|word| line.contains(word));
        let explained = lines[at.saturating_sub(6)..=at]
            .iter()
            .any(|line| line.contains("SAFETY:"));
        if opens && !explained {
            complaints.push(source.complain(at + 1, "unsafe without a SAFETY comment"));
        }
    }
    complaints
}

/// Documents that are named exist.
pub(crate) fn check_documents(
    path: &str,
    text: &str,
    exists: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for (start, _) in line.match_indices("docs/") {
            let name: String = line[start..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "/-_.".contains(*c))
                .collect();
            if name.ends_with(".md") && !exists(&name) {
                complaints.push(format!("{path}:{}: {name} does not exist", at + 1));
            }
        }
    }
    complaints
}

/// Names of tests and files in backquotes.
pub(crate) fn evidence(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.starts_with("src/") || name.starts_with("tests/"))
}

/// What a page names as evidence is there: the file, and the function behind `::` in it. `read`: the text of a file,
/// nothing for a folder; `None`: there is no such path.
pub(crate) fn check_evidence(
    page: &str,
    text: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    evidence(text)
        .filter(|name| {
            let (path, test) = name.split_once("::").unwrap_or((name, ""));
            let is_there =
                |found: String| test.is_empty() || found.contains(&format!("fn {test}("));
            !read(path).is_some_and(is_there)
        })
        .map(|name| format!("{page}: {name} is not there"))
        .collect()
}

/// The rows that begin with a number: all from 1 to `last`, each with its evidence in the last cell.
pub(crate) fn check_numbered_rows(page: &str, text: &str, last: u32) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for row in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let Ok(number) = cells[0].parse::<u32>() else {
            continue;
        };
        seen.insert(number);
        let shown = cells
            .last()
            .is_some_and(|cell| evidence(cell).any(|name| name.contains("::")));
        if !shown || !(1..=last).contains(&number) {
            complaints.push(format!(
                "{page}: row {number} names no test, or is none of 1 to {last}"
            ));
        }
    }
    let missing = (1..=last).filter(|number| !seen.contains(number));
    complaints.extend(missing.map(|number| format!("{page}: number {number} is missing")));
    complaints
}
