//! `kvstore bench compare a.json b.json`: two runs of the load generator side by side.
//!
//! ```text
//! a.json, b.json ─▶ a table of changes ─┬─ no condition holds ─▶ exit 0
//! -fail-if 'p99>+10%' ──────────────────┴─ one does ───────────▶ which, exit 4
//! ```

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgAction};

use super::args::{command_of, mistake, rewrite, valued};
use super::{StartError, help, say};
use crate::load::report::compare;
use crate::load::report::fail_if::{self, FailIf};
use crate::load::report::json::{self, Report};
use crate::rt::early;

/// A second of a run is some 250 bytes of its report: three days.
const REPORT_BYTES_MAX: u64 = 64 << 20;

/// A condition holds.
const FAILED: u8 = 4;

const USAGE: &str = "kvstore bench compare a.json b.json [-fail-if 'p99>+10%,rate<-5%,failed>0']";

#[derive(Debug, PartialEq)]
struct Compare {
    files: [String; 2],
    conditions: Vec<FailIf>,
}

/// All that follows the words `bench compare`.
pub fn compare(argv: &[String], out: &mut dyn Write) -> Result<ExitCode, StartError> {
    if let Some(code) = help(argv, USAGE, out) {
        return Ok(code);
    }
    let asked = parse(argv)?;
    let [a, b] = asked.files.each_ref().map(|file| read(file));
    let (a, b) = (a?, b?);
    say(out, &compare::compare(&a, &b));
    let held: Vec<String> = asked
        .conditions
        .iter()
        .filter_map(|condition| condition.holds(&a, &b))
        .collect();
    for why in &held {
        say(out, &format!("failed: {why}\n"));
    }
    Ok(match held.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    })
}

fn parse(argv: &[String]) -> Result<Compare, StartError> {
    let refused = |error: String| StartError::usage(error, USAGE);
    let files = Arg::new("files").num_args(0..).action(ArgAction::Append);
    let command = command_of([valued("fail-if").action(ArgAction::Append), files]);
    let matches = command
        .clone()
        .try_get_matches_from(rewrite(&command, argv))
        .map_err(|error| refused(mistake(&error).message))?;
    let all = |name: &str| -> Vec<String> {
        let given = matches.get_many::<String>(name).unwrap_or_default();
        given.cloned().collect()
    };
    let mut conditions = Vec::new();
    for text in all("fail-if") {
        let more = fail_if::parse(&text).map_err(|bad| {
            refused(format!(
                "-fail-if {text:?}, byte {}: {}",
                bad.offset, bad.why
            ))
        })?;
        conditions.extend(more);
    }
    let files: [String; 2] = all("files").try_into().map_err(|files: Vec<String>| {
        refused(format!("compare needs two files, not {}", files.len()))
    })?;
    Ok(Compare { files, conditions })
}

fn read(file: &str) -> Result<Report, StartError> {
    let refused = |why: String| {
        StartError::new(
            format!("{file:?}: {why}"),
            "compare reads what kvstore bench -json file has written",
        )
    };
    let bytes = early::read_within(Path::new(file), REPORT_BYTES_MAX);
    let bytes = bytes.map_err(|error| refused(error.to_string()))?;
    let bytes = bytes.ok_or_else(|| refused("there is no such file".to_owned()))?;
    json::read(&bytes).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(line: &str) -> Result<(ExitCode, String), StartError> {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/bench");
        let argv: Vec<String> = line
            .split_whitespace()
            .map(|word| word.replace('@', &format!("{golden}/")))
            .collect();
        let mut out = Vec::new();
        let code = compare(&argv, &mut out)?;
        Ok((code, String::from_utf8(out).expect("text")))
    }

    #[test]
    fn two_reports_are_compared() {
        let (code, text) = compared("@closed.json @paced.json").expect("two reports");
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
        assert!(text.contains("\nrate "), "{text}");
        for line in [
            "-fail-if p99>+10%,max<-1% @closed.json @paced.json",
            "@closed.json -fail-if failed>100 @paced.json -fail-if=p99>+10%",
        ] {
            let (code, text) = compared(line).expect("two reports");
            assert_eq!(code, ExitCode::from(4), "{text}");
            let failed: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with("failed:"))
                .collect();
            assert_eq!(failed.len(), 1, "{text}");
            assert!(
                failed[0].starts_with("failed: p99>+10%: p99 changed by +"),
                "{text}"
            );
        }
    }

    #[test]
    fn mistakes_get_one_line_and_a_hint() {
        for (line, exit, error) in [
            ("", 2, "compare needs two files, not 0"),
            ("a", 2, "compare needs two files, not 1"),
            ("a b c", 2, "compare needs two files, not 3"),
            (
                "-fail-if p99>+x% a b",
                2,
                "-fail-if \"p99>+x%\", byte 4: \"+x\" is not a number",
            ),
            ("-fail-if", 2, "-fail-if needs a value"),
            ("-zzz a b", 2, "unknown flag -zzz"),
            ("@nobody @paced.json", 1, "there is no such file"),
            ("@paced.json @paced.csv", 1, "not a report"),
        ] {
            let found = compared(line).expect_err(line);
            assert_eq!(found.exit, exit, "{line}: {found:?}");
            assert!(found.error.contains(error), "{line}: {found:?}");
        }
    }
}
