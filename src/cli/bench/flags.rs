//! Pure. The flags of `kvstore bench`: those of `hey` under their names, and ours. The table makes the help text; each
//! accessor turns one value into what it means, or says what the flag needs.

use std::time::Duration;

use clap::{Arg, ArgAction, Command};

use crate::cli::StartError;
use crate::cli::args::{command_of, valued};
use crate::cli::units::parse_duration;

/// One flag; without a word for its value it is a switch.
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) value: &'static str,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
}

const fn flag(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        value,
        default,
        help,
    }
}

/// All of them, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag("n", "number", "200", "requests to send, exactly"),
    flag("c", "number", "50", "connections"),
    flag(
        "z",
        "duration",
        "",
        "send for so long instead of -n requests, 10s for example",
    ),
    flag("q", "rate", "", "requests per second of each connection"),
    flag("m", "method", "GET", "method of the request"),
    flag(
        "d",
        "body",
        "",
        "body of the request; {{.RequestNumber}}, {{seq}}, {{rand 1000}}, {{uuid}}, {{key}}",
    ),
    flag("D", "file", "", "body of the request, from a file"),
    flag(
        "H",
        "field",
        "",
        "header field as \"Name: value\"; may be given often",
    ),
    flag("T", "type", "", "Content-Type"),
    flag("A", "types", "", "Accept"),
    flag("a", "user:password", "", "basic authentication"),
    flag("host", "name", "", "Host field, instead of that of the URL"),
    flag(
        "t",
        "duration",
        "20s",
        "time limit of a request, 0 for none; a bare number is seconds",
    ),
    flag(
        "o",
        "format",
        "text",
        "text, csv (a line per second) or json, on standard output",
    ),
    flag("cpus", "number", "all", "threads"),
    flag(
        "disable-keepalive",
        "",
        "",
        "a new connection for each request",
    ),
    flag(
        "disable-compression",
        "",
        "",
        "nothing to disable: compression is never asked for",
    ),
    flag(
        "disable-redirects",
        "",
        "",
        "nothing to disable: redirects are not followed",
    ),
    flag(
        "workload",
        "name",
        "",
        "get, put, delete, scan, batch, mixed or ycsb-a to ycsb-f, instead of the request of the URL",
    ),
    flag("read-ratio", "percent", "70", "gets in the workload mixed"),
    flag("keys", "number", "100000", "keys of the workload"),
    flag(
        "key-format",
        "text",
        "bench:{seq:08}",
        "how key number {seq} is spelt",
    ),
    flag(
        "dist",
        "name",
        "",
        "uniform, zipfian[:0.99], latest, sequential or hotset:20/80 [uniform; as YCSB says]",
    ),
    flag(
        "value-size",
        "bytes",
        "100",
        "100, 64-4096 or lognormal:100/1.0 (median/sigma)",
    ),
    flag("batch-size", "number", "100", "items of a batch"),
    flag(
        "scan-len",
        "number",
        "100",
        "rows of a scan; of ycsb-e at most so many",
    ),
    flag(
        "consistency",
        "level",
        "",
        "one, quorum or all; the server's settings unless given",
    ),
    flag("load", "", "", "first write every key once"),
    flag(
        "pipeline",
        "number",
        "1",
        "requests under way on one connection",
    ),
    flag(
        "rate",
        "number",
        "",
        "requests per second over all connections, sent when due (open loop)",
    ),
    flag(
        "warmup",
        "duration",
        "0s",
        "requests before this are not counted",
    ),
    flag("seed", "number", "1", "of all that is drawn"),
    flag("verify", "", "", "check the values that are read"),
    flag(
        "max-errors",
        "percent",
        "0",
        "more failed requests than this: exit code 3",
    ),
    flag(
        "json",
        "file",
        "",
        "everything measured, for kvstore bench compare",
    ),
    flag("csv", "file", "", "a line per second"),
    flag("hdr", "file", "", "HdrHistogram interval log (V2)"),
    flag("html", "file", "", "a report with plots"),
    flag("quiet", "", "", "no progress on standard error"),
];

pub(super) const ALL_FLAGS: &str = "kvstore bench -help lists all flags";

/// Most of what is counted in memory: connections, requests of one connection, items of a batch.
const NUMBER_MAX: usize = 1_000_000;

pub(super) fn wrong(name: &str, value: &str, needs: &str) -> StartError {
    StartError::usage(format!("-{name} {value:?}: {needs}"), ALL_FLAGS)
}

/// Requests per second; of all connections together, too.
const RATE_MIN: f64 = 0.001;
pub(super) const RATE_MAX: f64 = 1e9;
/// More threads than any machine has use for.
pub(super) const THREADS_MAX: u64 = 1024;

/// For clap.
pub(super) fn command() -> Command {
    command_of(FLAGS.iter().map(|flag| match flag.value {
        "" => switch(flag.name),
        _ if flag.name == "H" => valued(flag.name).action(ArgAction::Append),
        _ => valued(flag.name),
    }))
    .arg(switch("help"))
    .arg(Arg::new("url").num_args(0..))
}

fn switch(name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
}

/// The flags as they were typed, or their defaults.
pub(super) struct Given<'a>(pub(super) &'a clap::ArgMatches);

impl Given<'_> {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get_one::<String>(name).map(String::as_str)
    }

    pub(super) fn value(&self, name: &str) -> &str {
        let default = FLAGS.iter().find(|flag| flag.name == name);
        let default = default.map_or("", |flag| flag.default);
        self.text(name).unwrap_or(default)
    }

    pub(super) fn is_on(&self, name: &str) -> Result<bool, StartError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(wrong(name, other, "a switch: true or false")),
        }
    }

    pub(super) fn parsed<T: std::str::FromStr<Err = &'static str>>(
        &self,
        name: &str,
    ) -> Result<T, StartError> {
        let value = self.value(name);
        value.parse().map_err(|needs| wrong(name, value, needs))
    }

    pub(super) fn number(&self, name: &str, least: u64, most: u64) -> Result<u64, StartError> {
        let value = self.value(name);
        let number = value
            .parse()
            .ok()
            .filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| wrong(name, value, &format!("a number from {least} to {most}")))
    }

    pub(super) fn count(&self, name: &str) -> Result<usize, StartError> {
        let number = self.number(name, 1, NUMBER_MAX as u64)?;
        Ok(number as usize)
    }

    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, StartError> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        let seconds = value.parse().ok().map(Duration::from_secs);
        let duration = parse_duration(value).or(seconds);
        let needs = "a duration such as 500ms, 10s or 1m30s";
        duration.map(Some).ok_or_else(|| wrong(name, value, needs))
    }

    /// All values of a flag that may be given often.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &String> {
        self.0.get_many::<String>(name).unwrap_or_default()
    }

    pub(super) fn rate(&self, name: &str) -> Result<Option<f64>, StartError> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        let rate = value
            .parse()
            .ok()
            .filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate));
        let needs = "requests per second, from 0.001 to 1000000000";
        rate.map(Some).ok_or_else(|| wrong(name, value, needs))
    }
}

/// The text of `kvstore bench -help`.
#[must_use]
pub(super) fn help() -> String {
    let mut text = String::from(
        "kvstore bench: a load generator for this server and others\n\n\
         Usage: kvstore bench [flags] URL...            (the request of the URL, as hey does)\n       \
         kvstore bench -workload <name> [flags] URL...   (requests of this system, to one node or several)\n       \
         kvstore bench compare a.json b.json [-fail-if 'p99>+10%']\n\n\
         Flags (one dash or two; -name value or -name=value):\n",
    );
    for flag in FLAGS {
        let value = match flag.value {
            "" => String::new(),
            value => format!(" <{value}>"),
        };
        let default = match flag.default {
            "" => String::new(),
            default => format!(" [{default}]"),
        };
        text.push_str(&format!(
            "  {:<26}{}{default}\n",
            format!("-{}{value}", flag.name),
            flag.help
        ));
    }
    text.push_str(
        "\nExit codes: 0 done, 1 nobody answers or a file cannot be written, 2 usage, 3 more requests failed than \
         -max-errors allows, 4 compare: a -fail-if holds, 130 interrupted (what was measured is shown).\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_flag() {
        let help = help();
        for flag in FLAGS {
            assert!(
                help.contains(&format!("\n  -{} ", flag.name)),
                "{}",
                flag.name
            );
        }
    }
}
