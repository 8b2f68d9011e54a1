//! Pure. The `.env` file: `KEY=VALUE` lines, as shells and docker write them.
//!
//! ```text
//! # a comment                         ignored, as are blank lines
//! MEMTABLE_SIZE=67108864   # 64MB     an inline comment starts at a '#' after white space
//! export NET_PORT=8081                the word export is allowed
//! KVSTORE_DIR="./data #1"             quotes keep '#' and spaces; "..." knows \n \t \" \\ , '...' knows nothing
//! ```
//!
//! A line that is none of these is an error, not a guess. Nothing is expanded and the process environment is
//! never written to.

/// One assignment and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Counted from 1.
    pub line: usize,
    pub key: String,
    pub value: String,
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Counted from 1.
    pub line: usize,
    pub why: &'static str,
}

/// All assignments in file order.
pub fn parse(text: &str) -> Result<Vec<Assignment>, Malformed> {
    let mut assignments = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let raw = raw.trim();
        if raw.is_empty() || raw.starts_with('#') {
            continue;
        }
        let raw = match raw.strip_prefix("export") {
            Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
            _ => raw,
        };
        let Some((key, value)) = raw.split_once('=') else {
            return Err(Malformed {
                line,
                why: "there is no '=' in it",
            });
        };
        let key = key.trim_end();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Malformed {
                line,
                why: "the name before '=' may hold letters, digits and '_' only",
            });
        }
        let value = parse_value(value.trim_start()).map_err(|why| Malformed { line, why })?;
        assignments.push(Assignment {
            line,
            key: key.to_string(),
            value,
        });
    }
    Ok(assignments)
}

/// Everything after the `=`, its leading white space gone.
fn parse_value(raw: &str) -> Result<String, &'static str> {
    let Some(quote) = raw.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return Ok(plain_value(raw).to_string());
    };
    let mut value = String::new();
    let mut chars = raw.chars();
    chars.next();
    loop {
        match chars.next().ok_or("the quote is not closed")? {
            c if c == quote => break,
            '\\' if quote == '"' => value.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('"' | '\\' | '$')) => c,
                _ => return Err("in double quotes a backslash is followed by n, t, \", $ or \\"),
            }),
            c => value.push(c),
        }
    }
    let rest = chars.as_str();
    if rest.trim_start().is_empty()
        || rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#')
    {
        Ok(value)
    } else {
        Err("something follows the closing quote")
    }
}

/// An unquoted value without its inline comment and outer white space. Used for the process environment too:
/// `docker --env-file` and systemd hand inline comments through.
#[must_use]
pub fn plain_value(raw: &str) -> &str {
    let comment = raw
        .char_indices()
        .find(|&(at, c)| c == '#' && (at == 0 || raw[..at].ends_with(char::is_whitespace)));
    match comment {
        Some((at, _)) => raw[..at].trim(),
        None => raw.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(usize, String, String)> {
        parse(text)
            .unwrap()
            .into_iter()
            .map(|a| (a.line, a.key, a.value))
            .collect()
    }

    #[test]
    fn the_originals_file_is_understood() {
        let text = "# Server\r\nNET_PORT=8081\r\n\r\nMEMTABLE_SIZE=67108864        # 64MB\r\n";
        assert_eq!(
            values(text),
            [
                (2, "NET_PORT".into(), "8081".into()),
                (4, "MEMTABLE_SIZE".into(), "67108864".into())
            ]
        );
    }

    #[test]
    fn quotes_export_and_comments() {
        for (line, value) in [
            ("A=x", "x"),
            ("export A=x", "x"),
            ("\u{feff}A = x y ", "x y"),
            ("A=", ""),
            ("A=   # nothing", ""),
            ("A=#nothing", ""),
            ("A=x#y", "x#y"),
            ("A=x #y", "x"),
            ("A='x # y'  # z", "x # y"),
            (r#"A="a\n\"b\" \\ \$c""#, "a\n\"b\" \\ $c"),
            (r"A='a\n'", r"a\n"),
            ("exported=x", "x"),
            ("A=b=c", "b=c"),
        ] {
            assert_eq!(values(line)[0].2, value, "{line}");
        }
    }

    #[test]
    fn a_doubtful_line_is_an_error_with_its_number() {
        for line in [
            "A",
            "=x",
            "A B=x",
            "A=\"x",
            "A='x' y",
            "A='x'#y",
            r#"A="\q""#,
        ] {
            let error = parse(&format!("OK=1\n{line}\n")).unwrap_err();
            assert_eq!(error.line, 2, "{line}");
        }
    }
}
