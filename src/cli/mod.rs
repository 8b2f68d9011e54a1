//! Words typed by people: flags, settings, banner, log.
//!
//! ```text
//!  argv ─▶ args ─┐
//!  environment ──┼─▶ settings ─▶ cluster ─▶ serve ─▶ banner, log, the cores
//!  .env ─▶ env_file                │
//!                                  └──▶ one `error:` line, one `hint:` line, an exit code
//!
//!  argv that begins with `sim` ─▶ sim: a simulated cluster instead of a node
//!                        `bench` ─▶ bench: the load generator
//!                       `verify` ─▶ verify: what clients see of a live cluster
//! ```
//!
//! Exit codes of `sim`: 0 all promises were kept, 1 not, 2 usage. Those of `bench` are in its help, those of `verify` in
//! its module. Of a node: 0 stopped as asked, 2 usage, 1 cannot start, 78 no io_uring, 74 the disk or the network failed
//! while serving, 130 a second signal, 134 (SIGABRT) a bug or a core that does not answer.

pub mod args;
pub mod banner;
pub mod bench;
pub mod cluster;
pub mod compare;
pub mod env_file;
pub mod identity;
pub mod log;
mod places;
pub mod serve;
pub mod settings;
pub mod sim;
pub mod units;
pub mod verify;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use self::settings::{BadValue, SETTINGS, Settings, Source};
use crate::rt::early;

/// A start that failed: what, and what to do about it. One line each.
#[derive(Debug, PartialEq, Eq)]
pub struct StartError {
    pub error: String,
    pub hint: String,
    /// Exit code of the process.
    pub exit: u8,
}

impl StartError {
    /// Exit 1: the machine, the directory or the settings do not allow a start.
    pub fn new(error: impl Into<String>, hint: impl Into<String>) -> StartError {
        StartError {
            error: error.into(),
            hint: hint.into(),
            exit: 1,
        }
    }

    /// Exit 2: the command line is wrong.
    pub fn usage(error: impl Into<String>, hint: impl Into<String>) -> StartError {
        StartError {
            exit: 2,
            ..StartError::new(error, hint)
        }
    }
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    tell_bugs_in_plain_words();
    match start() {
        Ok(code) => code,
        Err(failure) => {
            let text = format!(
                "error: {}\nhint: {}\n",
                log::escape(&failure.error),
                log::escape(&failure.hint)
            );
            say(&mut std::io::stderr(), &text);
            ExitCode::from(failure.exit)
        }
    }
}

/// A bug ends the process (a wounded core must not serve), but in our two lines. With RUST_BACKTRACE set, Rust
/// tells it at length.
fn tell_bugs_in_plain_words() {
    if std::env::var_os("RUST_BACKTRACE").is_some() {
        return;
    }
    std::panic::set_hook(Box::new(|bug| {
        let payload = bug.payload();
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = bug.location().map(ToString::to_string).unwrap_or_default();
        let text = format!(
            "error: the node has a bug and stops: {} ({place})\n\
             hint: start it again, everything answered OK is on disk; please report this line\n",
            log::escape(what)
        );
        say(&mut std::io::stderr(), &text);
    }));
}

fn start() -> Result<ExitCode, StartError> {
    let argv = std::env::args_os()
        .skip(1)
        .map(std::ffi::OsString::into_string)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|bad| {
            StartError::usage(
                format!("argument {bad:?} is not valid UTF-8"),
                "kvstore -help lists all flags",
            )
        })?;
    if let Some((word, rest)) = argv.split_first()
        && word == "sim"
    {
        let out = &mut std::io::stdout();
        if let Some(code) = help(rest, args::SIM_USAGE, out) {
            return Ok(code);
        }
        return Ok(sim::run(args::parse_sim(rest)?, out));
    }
    if let Some((word, rest)) = argv.split_first()
        && word == "bench"
    {
        return bench::bench(rest);
    }
    if let Some((word, rest)) = argv.split_first()
        && word == "verify"
    {
        return verify::verify(rest, &mut std::io::stdout());
    }
    let args = args::parse(&argv)?;
    if args.help {
        say(&mut std::io::stdout(), &args::help());
        return Ok(ExitCode::SUCCESS);
    }
    if args.version {
        say(&mut std::io::stdout(), &format!("kvstore {VERSION}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let (settings, warnings) = gather(&args)?;
    serve::serve(&settings, &warnings)
}

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All sources in rising precedence, and what was odd about them.
fn gather(args: &args::Args) -> Result<(Settings, Vec<String>), StartError> {
    let mut settings = Settings::defaults();
    let path = args.env_file.as_deref().unwrap_or(".env");
    let mut warnings = match early::read_small(Path::new(path)) {
        Ok(Some(bytes)) => {
            let text = String::from_utf8(bytes).map_err(|_| {
                StartError::new(
                    format!("{path} is not valid UTF-8"),
                    "save it as UTF-8, or name another file with -env-file",
                )
            })?;
            let assignments = env_file::parse(&text).map_err(|bad| {
                StartError::new(
                    format!("{path}:{}: {}", bad.line, bad.why),
                    "lines are NAME=value; name another file with -env-file (/dev/null for none)",
                )
            })?;
            settings.apply_file(path, &assignments).map_err(refused)?
        }
        Ok(None) if args.env_file.is_none() => Vec::new(),
        Ok(None) => {
            return Err(StartError::usage(
                format!("-env-file {path:?} does not exist"),
                "-env-file names a file of NAME=value lines (/dev/null for none)",
            ));
        }
        Err(error) => {
            return Err(StartError::new(
                format!("{path} cannot be read: {error}"),
                "name another file with -env-file (/dev/null for none)",
            ));
        }
    };
    let of_environment = settings
        .apply_environment(std::env::vars_os())
        .map_err(refused)?;
    warnings.extend(of_environment);
    for (flag, value) in &args.values {
        let row = SETTINGS
            .iter()
            .find(|row| row.flag == Some(flag))
            .expect("args are read from the same table");
        settings
            .apply(row, value, Source::Flag(flag))
            .map_err(refused)?;
    }
    Ok((settings, warnings))
}

fn refused(bad: BadValue) -> StartError {
    let hint = format!("allowed: {}", bad.allowed);
    match bad.source {
        Source::Flag(_) => StartError::usage(bad.to_string(), hint),
        _ => StartError::new(bad.to_string(), hint),
    }
}

/// Prints the usage of a command whose few flags need no list, if that is what was asked for.
fn help(argv: &[String], usage: &str, out: &mut dyn Write) -> Option<ExitCode> {
    let asks = |arg: &String| ["-h", "-help", "--help"].contains(&&**arg);
    argv.iter().any(asks).then(|| {
        say(out, &format!("Usage: {usage}\n"));
        ExitCode::SUCCESS
    })
}

/// Writes to a terminal or pipe. A reader that went away is no reason to fail.
fn say(to: &mut dyn Write, text: &str) {
    if to
        .write_all(text.as_bytes())
        .and_then(|()| to.flush())
        .is_err()
    {
        // Nobody is left to tell.
    }
}
