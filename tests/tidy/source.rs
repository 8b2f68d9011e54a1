//! A Rust file as the rules see it: code without comments and literals, and where its tests begin.

/// A Rust file.
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments, strings and characters blanked out; same lines, same columns.
    pub(crate) code: String,
    /// Lines before the test module (all of them when there is none).
    pub(crate) tests_from: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = blank(text);
        let lines: Vec<&str> = code.lines().collect();
        let is_test_file = path.starts_with("tests/") || path.ends_with("tests.rs");
        let tests_from = if is_test_file {
            0
        } else {
            (0..lines.len())
                .find(|&at| {
                    lines[at].trim() == "#[cfg(test)]"
                        && lines[at + 1..]
                            .iter()
                            .find(|line| {
                                !line.trim().is_empty() && !line.trim_start().starts_with('#')
                            })
                            .is_some_and(|line| line.contains("mod "))
                })
                .unwrap_or(lines.len())
        };
        Source {
            path: path.to_string(),
            text: text.to_string(),
            code,
            tests_from,
        }
    }

    /// `store` for `src/store/wal.rs`; empty for lib.rs and main.rs.
    pub(crate) fn layer(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or("");
        match inner.split_once('/') {
            Some((folder, _)) => folder,
            None => match inner.trim_end_matches(".rs") {
                "lib" | "main" => "",
                single => single,
            },
        }
    }

    /// Modules from the crate's root to this file.
    pub(crate) fn depth(&self) -> usize {
        let parts = self.path.split('/').count() - 1;
        if self.path.ends_with("/mod.rs") || self.layer().is_empty() {
            parts - 1
        } else {
            parts
        }
    }

    /// (line from 1, code) of every line outside tests.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .take(self.tests_from)
            .enumerate()
            .map(|(at, line)| (at + 1, line))
    }

    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    pub(crate) fn complain(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// Replaces comments, strings and character literals by spaces, so that rules see code alone.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("only whole literals were replaced, by ASCII")
}

/// End of the comment or literal that starts at `at`; `at` itself when none does.
pub(crate) fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |needle: &[u8], from: usize| {
        (from..bytes.len())
            .find(|&i| bytes[i..].starts_with(needle))
            .map_or(bytes.len(), |i| i + needle.len())
    };
    if rest.starts_with(b"//") {
        return find(b"\n", at).min(bytes.len());
    }
    if rest.starts_with(b"/*") {
        return find(b"*/", at + 2);
    }
    let before_is_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    let raw = rest.strip_prefix(b"r").or_else(|| rest.strip_prefix(b"br"));
    if let (Some(raw), false) = (raw, before_is_word) {
        let hashes = raw.iter().take_while(|&&b| b == b'#').count();
        if raw.get(hashes) == Some(&b'"') {
            let close: Vec<u8> = std::iter::once(b'"')
                .chain(std::iter::repeat_n(b'#', hashes))
                .collect();
            return find(&close, at + rest.len() - raw.len() + hashes + 1);
        }
    }
    let quoted_end = |quote: u8| {
        let mut i = at + 1;
        while i < bytes.len() && bytes[i] != quote {
            i += if bytes[i] == b'\\' { 2 } else { 1 };
        }
        (i + 1).min(bytes.len())
    };
    match rest[0] {
        b'"' => quoted_end(b'"'),
        // A quote is a character when it closes after one character or starts an escape; else a lifetime.
        b'\'' => {
            let inner = std::str::from_utf8(&rest[1..rest.len().min(9)])
                .or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]));
            let mut chars = inner.unwrap_or("").chars();
            match (chars.next(), chars.next()) {
                (Some('\\'), _) | (Some(_), Some('\'')) => quoted_end(b'\''),
                _ => at,
            }
        }
        _ => at,
    }
}

/// (name, first line, last line) of every function with a body.
pub(crate) fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let code = &source.code;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let mut nesting = 0;
        let open = code[at..].char_indices().find(|(_, c)| {
            match c {
                '(' | '[' => nesting += 1,
                ')' | ']' => nesting -= 1,
                _ => {}
            }
            nesting == 0 && matches!(c, '{' | ';')
        });
        let Some((open, '{')) = open else { continue };
        let mut braces = 0;
        let close = code[at + open..].char_indices().find(|(_, c)| {
            match c {
                '{' => braces += 1,
                '}' => braces -= 1,
                _ => {}
            }
            braces == 0
        });
        let Some((close, _)) = close else { continue };
        found.push((name, source.line_of(at), source.line_of(at + open + close)));
    }
    found
}

/// Names directly below `root::` in a piece of code: `root::a`, `root::{a::x, b}`.
pub(crate) fn names_below(code: &str, root: &str) -> Vec<(usize, String)> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let needle = format!("{root}::");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&needle) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + needle.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push((at, word(rest)));
            continue;
        };
        let mut depth = 0;
        let mut fresh = true;
        for (offset, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                c if fresh && depth == 0 && !c.is_whitespace() => {
                    found.push((at + needle.len() + 1 + offset, word(&group[offset..])));
                    fresh = false;
                }
                _ => {}
            }
        }
    }
    found
}
