//! Pure. The command line: clap, with Go's single dash.
//!
//! The original is a Go program, so `-port 8081`, `-port=8081`, `--port 8081` and `--port=8081` are the same.
//! clap knows two dashes only; `rewrite` turns one into two for clap's eyes. The process keeps its own argv,
//! so that `pkill -f "kvstore.*8083"` and `ps` still see what was typed.

use std::ops::Range;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use super::StartError;
use super::settings::{SETTINGS, Setting, nearest, truth};

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    pub help: bool,
    pub version: bool,
    /// Read instead of `.env`.
    pub env_file: Option<String>,
    /// (flag, value) as typed, in the order of the settings table.
    pub values: Vec<(&'static str, String)>,
}

/// Understands `argv` (without the program name).
pub fn parse(argv: &[String]) -> Result<Args, StartError> {
    let command = command();
    let matches = command
        .clone()
        .try_get_matches_from(rewrite(&command, argv))
        .map_err(|error| usage_error(&error))?;
    let asked = |name: &str| match matches.get_one::<String>(name) {
        Some(value) => truth(value).map_err(|_| no_switch_value(&format!("-{name}"))),
        None => Ok(false),
    };
    let mut args = Args {
        help: asked("help")?,
        version: asked("version")?,
        env_file: matches.get_one::<String>("env-file").cloned(),
        values: Vec::new(),
    };
    for flag in SETTINGS.iter().filter_map(|row| row.flag) {
        if let Some(value) = matches.get_one::<String>(flag) {
            args.values.push((flag, value.clone()));
        }
    }
    Ok(args)
}

/// What is asked of the simulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sim {
    /// One seed, told at length.
    Seed(u64),
    /// Many, on so many threads; `None`: as many as the machine runs at once.
    Seeds {
        seeds: Range<u64>,
        jobs: Option<usize>,
    },
}

/// What may follow the word `sim`.
pub const SIM_USAGE: &str = "kvstore sim -seed 72, or kvstore sim -seeds 0..3000 [-jobs 2]";

/// Understands what follows the word `sim`.
pub fn parse_sim(argv: &[String]) -> Result<Sim, StartError> {
    let command = command_of([valued("seed"), valued("seeds"), valued("jobs")]);
    let refused = |error: String| StartError::usage(error, SIM_USAGE);
    let matches = command
        .clone()
        .try_get_matches_from(rewrite(&command, argv))
        .map_err(|error| refused(mistake(&error).message))?;
    let value = |name: &str| matches.get_one::<String>(name);
    let number = |name: &str, text: &str| {
        let number = text.parse::<u64>();
        number.map_err(|_| refused(format!("-{name} {text:?} is not a number")))
    };
    let jobs = value("jobs").map(|text| number("jobs", text)).transpose()?;
    match (value("seed"), value("seeds")) {
        (Some(seed), None) => Ok(Sim::Seed(number("seed", seed)?)),
        (None, Some(text)) => {
            let range = text.split_once("..").and_then(|(first, end)| {
                let range = first.parse().ok()?..end.parse().ok()?;
                (!range.is_empty()).then_some(range)
            });
            let seeds = range.ok_or_else(|| refused(format!("-seeds {text:?} is not a range")))?;
            let jobs = jobs.map(|jobs| jobs.clamp(1, JOBS_MAX) as usize);
            Ok(Sim::Seeds { seeds, jobs })
        }
        _ => Err(refused("sim needs a -seed or -seeds".to_string())),
    }
}

/// Threads of the simulator: more than any machine gains from.
const JOBS_MAX: u64 = 1024;

/// The text of `-help`, made from the settings table.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "kvstore: a key-value store, one shard per core\n\n\
         Usage: kvstore [flags]\n       \
         kvstore bench [flags] URL... (loads a server: kvstore bench -help)\n       \
         kvstore verify URL...        (watches a cluster keep its promises)\n       \
         kvstore sim -seed <number>   (replays a simulated cluster)\n       \
         kvstore sim -seeds <first>..<end> [-jobs <threads>]   (many of them)\n\n\
         Flags (one dash or two; -name value or -name=value):\n",
    );
    let mut entry = |left: String, help: &str, default: &str| {
        let default = match default {
            "" => String::new(),
            value => format!(" [{value}]"),
        };
        text.push_str(&format!("  {left:<28}{help}{default}\n"));
    };
    for row in SETTINGS {
        if let Some(flag) = row.flag {
            let value = if is_switch(flag) { "" } else { " <value>" };
            entry(format!("-{flag}{value}"), row.help, row.default);
        }
    }
    entry(
        "-env-file <path>".to_string(),
        "file of NAME=value lines",
        ".env",
    );
    entry("-version".to_string(), "print the version and exit", "");
    entry("-help, -h".to_string(), "print this and exit", "");
    text.push_str("\nEnvironment (flag > environment > .env > default in brackets):\n");
    for Setting {
        env, help, default, ..
    } in SETTINGS
    {
        let default = match *default {
            "" => String::new(),
            value => format!(" [{value}]"),
        };
        text.push_str(&format!("  {env:<28}{help}{default}\n"));
    }
    text
}

/// Flags that need no value; one given after `=` counts, as in Go.
fn is_switch(flag: &str) -> bool {
    flag == "insecure-no-auth"
}

fn command() -> Command {
    let switch = |name: &'static str| {
        Arg::new(name)
            .long(name)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .action(ArgAction::Set)
    };
    command_of([switch("help"), switch("version"), valued("env-file")]).args(
        SETTINGS.iter().filter_map(|row| row.flag).map(|flag| {
            if is_switch(flag) {
                switch(flag)
            } else {
                valued(flag)
            }
        }),
    )
}

pub(super) fn command_of(args: impl IntoIterator<Item = Arg>) -> Command {
    Command::new("kvstore")
        .disable_help_flag(true)
        .disable_version_flag(true)
        // As in Go, the last of several wins.
        .args_override_self(true)
        .args(args)
}

pub(super) fn valued(name: &'static str) -> Arg {
    Arg::new(name).long(name).num_args(1)
}

/// `-name[=value]` to `--name[=value]`; a known flag is joined to its value, so that `-dir -odd` works as in
/// Go. Everything after a bare `--` stays.
pub(super) fn rewrite(command: &Command, argv: &[String]) -> Vec<String> {
    let takes_value = |name: &str| {
        command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(name))
            .is_some_and(|arg| !arg.is_require_equals_set())
    };
    let mut out = vec!["kvstore".to_string()];
    let mut argv = argv.iter();
    while let Some(token) = argv.next() {
        if token == "--" {
            out.push(token.clone());
            break;
        }
        let name = match token.strip_prefix("--").or_else(|| token.strip_prefix('-')) {
            Some("h") => "help",
            Some(name) if !name.is_empty() => name,
            // A lone dash is a word like any other, and none is expected.
            _ => {
                out.push(token.clone());
                continue;
            }
        };
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let value = match value {
            None if takes_value(name) => argv.next().map(String::as_str),
            value => value,
        };
        out.push(match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        });
    }
    out.extend(argv.cloned());
    out
}

/// clap's finding in our two lines, with the dash people typed.
fn usage_error(error: &clap::Error) -> StartError {
    let Mistake {
        message,
        what,
        suggested,
    } = mistake(error);
    let env = nearest(&what.trim_start_matches('-').replace('-', "_"));
    let hint = match (suggested, env) {
        (Some(flag), _) => format!("did you mean {flag}? {ALL_FLAGS}"),
        (
            None,
            Some(Setting {
                flag: Some(flag), ..
            }),
        ) => {
            format!("did you mean -{flag}? {ALL_FLAGS}")
        }
        (None, Some(Setting { env, .. })) => {
            format!("{env} has no flag: set {env} in the environment or in .env")
        }
        (None, None) => ALL_FLAGS.to_string(),
    };
    StartError::usage(message, hint)
}

/// What clap has found, in our words.
pub(super) struct Mistake {
    pub(super) message: String,
    /// What was typed.
    what: String,
    pub(super) suggested: Option<String>,
}

pub(super) fn mistake(error: &clap::Error) -> Mistake {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.replacen("--", "-", 1)),
        Some(ContextValue::Strings(texts)) => texts.first().map(|text| text.replacen("--", "-", 1)),
        _ => None,
    };
    let what = context(ContextKind::InvalidArg).unwrap_or_default();
    let what = what.split(' ').next().unwrap_or_default();
    let message = match error.kind() {
        ErrorKind::UnknownArgument if what.starts_with('-') => format!("unknown flag {what}"),
        ErrorKind::UnknownArgument => format!("{what:?} is not a flag"),
        ErrorKind::InvalidValue => format!("{what} needs a value"),
        kind => format!("{what} cannot be understood ({kind})"),
    };
    Mistake {
        message,
        what: what.to_string(),
        suggested: context(ContextKind::SuggestedArg),
    }
}

const ALL_FLAGS: &str = "kvstore -help lists all flags";

fn no_switch_value(what: &str) -> StartError {
    StartError::usage(
        format!("{what} is a switch: {what}, {what}=true or {what}=false"),
        ALL_FLAGS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, StartError> {
        let argv: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        parse(&argv)
    }

    #[test]
    fn one_dash_or_two_joined_or_not() {
        for line in [
            "-port 9001 -dir d",
            "--port 9001 --dir d",
            "-port=9001 -dir=d",
            "--port=9001 -dir d",
            "-port 1 -port 9001 -dir d",
        ] {
            assert_eq!(
                parsed(line).unwrap().values,
                [("port", "9001".to_string()), ("dir", "d".to_string())],
                "{line}"
            );
        }
    }

    #[test]
    fn values_may_start_with_a_dash_and_lists_stay_whole() {
        let args = parsed("-dir -odd -peers localhost:1,localhost:2").unwrap();
        assert_eq!(
            args.values,
            [
                ("peers", "localhost:1,localhost:2".to_string()),
                ("dir", "-odd".to_string())
            ]
        );
    }

    #[test]
    fn switches() {
        assert!(parsed("-version").unwrap().version);
        assert!(parsed("--help").unwrap().help);
        assert_eq!(
            parsed("-insecure-no-auth").unwrap().values,
            [("insecure-no-auth", "true".to_string())]
        );
        // Kept: it must win over the environment.
        for value in ["false", "1", "T", "maybe"] {
            assert_eq!(
                parsed(&format!("-insecure-no-auth={value}"))
                    .unwrap()
                    .values,
                [("insecure-no-auth", value.to_string())]
            );
        }
        assert!(parsed("-h").unwrap().help && parsed("-help=1").unwrap().help);
        assert!(!parsed("-version=false").unwrap().version);
        assert_eq!(
            parsed("-env-file x").unwrap().env_file.as_deref(),
            Some("x")
        );
    }

    #[test]
    fn mistakes_get_one_line_and_a_hint() {
        for (line, error, hint) in [
            ("-prot 1", "unknown flag -prot", "did you mean -port?"),
            ("--pears x", "unknown flag -pears", "did you mean -peers?"),
            ("-zzz", "unknown flag -zzz", "-help"),
            ("serve", "\"serve\" is not a flag", "-help"),
            ("-port", "-port needs a value", "-help"),
            ("-version=maybe", "-version is a switch", "-help"),
            ("-", "unknown flag -", "-help"),
            (
                "-insecure-no-auth false",
                "\"false\" is not a flag",
                "-help",
            ),
            (
                "-memtable-size 3",
                "unknown flag -memtable-size",
                "set MEMTABLE_SIZE in the environment or in .env",
            ),
            (
                "-net-port 1",
                "unknown flag -net-port",
                "did you mean -port?",
            ),
        ] {
            let found = parsed(line).unwrap_err();
            assert!(found.error.contains(error), "{line}: {found:?}");
            assert!(found.hint.contains(hint), "{line}: {found:?}");
            assert!(!found.error.contains('\n') && !found.hint.contains('\n'));
            assert_eq!(found.exit, 2, "{line}");
        }
    }

    #[test]
    fn seeds_are_a_number_or_a_range_and_nothing_else_is_asked_for() {
        let seed = |line: &str| {
            let argv: Vec<String> = line.split_whitespace().map(str::to_string).collect();
            parse_sim(&argv)
        };
        for line in ["-seed 72", "--seed 72", "-seed=72", "-seed 1 --seed=72"] {
            assert_eq!(seed(line), Ok(Sim::Seed(72)), "{line}");
        }
        let many = |jobs| Sim::Seeds {
            seeds: 5..3000,
            jobs,
        };
        assert_eq!(seed("-seeds 5..3000"), Ok(many(None)));
        assert_eq!(seed("--jobs=2 -seeds=5..3000"), Ok(many(Some(2))));
        assert_eq!(seed("-jobs 0 -seeds 5..3000"), Ok(many(Some(1))));
        for (line, error) in [
            ("", "sim needs a -seed or -seeds"),
            ("-jobs 2", "sim needs a -seed or -seeds"),
            ("-seed 1 -seeds 1..2", "sim needs a -seed or -seeds"),
            ("-seeds 3", "-seeds \"3\" is not a range"),
            ("-seeds 3..3", "-seeds \"3..3\" is not a range"),
            ("-seeds 3..1 -jobs x", "-jobs \"x\" is not a number"),
            ("-seed", "-seed needs a value"),
            ("-seed x", "-seed \"x\" is not a number"),
            ("-seed -1", "-seed \"-1\" is not a number"),
            ("72", "\"72\" is not a flag"),
            ("-port 1", "unknown flag -port"),
        ] {
            let found = seed(line).unwrap_err();
            assert_eq!((&*found.error, found.exit), (error, 2), "{line}");
            assert_eq!(found.hint, SIM_USAGE);
        }
    }

    #[test]
    fn help_names_every_setting() {
        let help = help();
        for row in SETTINGS {
            assert!(help.contains(row.env), "{}", row.env);
            if let Some(flag) = row.flag {
                assert!(help.contains(&format!("  -{flag}")), "{flag}");
            }
        }
    }
}
