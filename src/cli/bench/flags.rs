//! Pure. The flags of `kvstore bench`: those of `hey` under their names, and ours.

use std::time::Duration;

use base64::Engine;
use clap::{Arg, ArgAction};

use crate::cli::StartError;
use crate::cli::args::{Mistake, command_of, mistake, rewrite, valued};
use crate::cli::units::parse_duration;
use crate::load::keys::{Distribution, KeyFormat};
use crate::load::plan::{WORKLOADS, acts};
use crate::load::template::Template;
use crate::load::values::Sizes;

/// One flag; without a word for its value it is a switch.
pub struct Flag {
    pub name: &'static str,
    pub value: &'static str,
    pub default: &'static str,
    pub help: &'static str,
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
pub const FLAGS: &[Flag] = &[
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
        "time limit of a request; a bare number is seconds",
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

/// What the command line asks for, before names are looked up.
#[derive(Debug)]
pub struct Wanted {
    pub urls: Vec<Url>,
    pub requests: Option<u64>,
    pub duration: Option<Duration>,
    pub connections: usize,
    pub threads: Option<usize>,
    pub pipeline: usize,
    pub rate: Option<f64>,
    pub warmup: Duration,
    pub timeout: Duration,
    pub keep_alive: bool,
    pub seed: u64,
    pub verify: bool,
    pub fields: String,
    pub host: Option<String>,
    pub query: String,
    pub what: What,
    pub keys: u64,
    pub key_format: KeyFormat,
    pub distribution: Distribution,
    pub sizes: Sizes,
    pub batch_items: usize,
    pub scan_rows: usize,
    pub load: bool,
    pub max_errors: f64,
    pub print: Print,
    pub json: Option<String>,
    pub csv: Option<String>,
    pub hdr: Option<String>,
    pub html: Option<String>,
    pub quiet: bool,
}

#[derive(Debug)]
pub enum What {
    /// Of this name in the table of workloads.
    Workload(&'static str, Vec<(crate::load::plan::Act, u32)>),
    Request {
        method: String,
        body: Body,
    },
}

#[derive(Debug)]
pub enum Body {
    None,
    Text(Template),
    File(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Print {
    Text,
    Csv,
    Json,
}

/// `http://host:port/path?query`.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    /// For the resolver, and for the Host field.
    pub authority: String,
    pub path: Template,
}

/// What `kvstore bench` is followed by.
#[derive(Debug)]
pub enum Bench {
    Help,
    Run(Box<Wanted>),
}

const ALL_FLAGS: &str = "kvstore bench -help lists all flags";

/// Most of what is counted in memory: connections, requests of one connection, items of a batch.
const NUMBER_MAX: usize = 1_000_000;

fn wrong(name: &str, value: &str, needs: &str) -> StartError {
    StartError::usage(format!("-{name} {value:?}: {needs}"), ALL_FLAGS)
}

/// Understands what follows the word `bench`.
pub fn parse(argv: &[String]) -> Result<Bench, StartError> {
    let command = command_of(FLAGS.iter().map(|flag| match flag.value {
        "" => switch(flag.name),
        _ if flag.name == "H" => valued(flag.name).action(ArgAction::Append),
        _ => valued(flag.name),
    }))
    .arg(switch("help"))
    .arg(Arg::new("url").num_args(0..));
    let argv = rewrite(&command, argv);
    let matches = command.try_get_matches_from(argv).map_err(|error| {
        let Mistake {
            message, suggested, ..
        } = mistake(&error);
        let hint = suggested.map_or(ALL_FLAGS.to_string(), |flag| {
            format!("did you mean {flag}? {ALL_FLAGS}")
        });
        StartError::usage(message, hint)
    })?;
    if matches.get_one::<String>("help").is_some() {
        return Ok(Bench::Help);
    }
    let given = Given(&matches);
    let urls = matches.get_many::<String>("url").unwrap_or_default();
    let urls = urls.map(|text| url(text)).collect::<Result<Vec<_>, _>>()?;
    wanted(&given, urls).map(|wanted| Bench::Run(Box::new(wanted)))
}

fn switch(name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
}

/// The flags as they were typed, or their defaults.
struct Given<'a>(&'a clap::ArgMatches);

impl Given<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get_one::<String>(name).map(String::as_str)
    }

    fn value(&self, name: &str) -> &str {
        let default = FLAGS.iter().find(|flag| flag.name == name);
        let default = default.map_or("", |flag| flag.default);
        self.text(name).unwrap_or(default)
    }

    fn is_on(&self, name: &str) -> Result<bool, StartError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(wrong(name, other, "a switch: true or false")),
        }
    }

    fn parsed<T: std::str::FromStr<Err = &'static str>>(
        &self,
        name: &str,
    ) -> Result<T, StartError> {
        let value = self.value(name);
        value.parse().map_err(|needs| wrong(name, value, needs))
    }

    fn number(&self, name: &str, least: u64, most: u64) -> Result<u64, StartError> {
        let value = self.value(name);
        let number = value
            .parse()
            .ok()
            .filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| wrong(name, value, &format!("a number from {least} to {most}")))
    }

    fn count(&self, name: &str) -> Result<usize, StartError> {
        let number = self.number(name, 1, NUMBER_MAX as u64)?;
        Ok(number as usize)
    }

    fn duration(&self, name: &str) -> Result<Option<Duration>, StartError> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        let seconds = value.parse().ok().map(Duration::from_secs);
        let duration = parse_duration(value).or(seconds);
        let needs = "a duration such as 500ms, 10s or 1m30s";
        duration.map(Some).ok_or_else(|| wrong(name, value, needs))
    }

    fn rate(&self, name: &str) -> Result<Option<f64>, StartError> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        let rate = value
            .parse()
            .ok()
            .filter(|rate: &f64| *rate > 0.0 && *rate <= 1e9);
        let needs = "requests per second, more than 0";
        rate.map(Some).ok_or_else(|| wrong(name, value, needs))
    }
}

fn wanted(given: &Given<'_>, urls: Vec<Url>) -> Result<Wanted, StartError> {
    let what = what(given)?;
    if urls.is_empty() {
        let example = "kvstore bench -n 10000 -c 50 \"http://localhost:8081/get?key=a\"";
        return Err(StartError::usage("bench needs a URL", example));
    }
    let no_path = Template::parse("/").expect("a constant");
    if let What::Workload(name, _) = &what
        && let Some(url) = urls.iter().find(|url| url.path != no_path)
    {
        let only = format!("http://{}", url.authority);
        return Err(StartError::usage(
            format!("the workload {name} makes its own requests: the URL must not have a path"),
            format!("{only}, or leave -workload out"),
        ));
    }
    let duration = given.duration("z")?;
    let connections = given.count("c")?;
    let requests = match duration {
        Some(_) => None,
        None => Some(given.number("n", 1, u64::MAX >> 1)?),
    };
    // More connections than requests would only be opened.
    let connections = requests.map_or(connections, |all| {
        connections.min(all.min(1 << 32) as usize)
    });
    let of_each = given.rate("q")?.map(|each| each * connections as f64);
    let rate = match (of_each, given.rate("rate")?) {
        (Some(_), Some(_)) => {
            let error = "-q and -rate are two ways to say one thing";
            return Err(StartError::usage(
                error,
                "-q is per connection, -rate over all of them",
            ));
        }
        (of_each, of_all) => of_all.or(of_each),
    };
    let pipeline = given.count("pipeline")?;
    let keep_alive = !given.is_on("disable-keepalive")?;
    for (name, flag) in [("pipeline", !keep_alive), ("pipeline", is_ycsb_f(&what))] {
        if flag && pipeline > 1 {
            let error = format!("-{name} {pipeline} does not go with -disable-keepalive or ycsb-f");
            return Err(StartError::usage(
                error,
                "their next request needs the answer to the last",
            ));
        }
    }
    given.is_on("disable-compression")?;
    given.is_on("disable-redirects")?;
    let threads = match given.text("cpus") {
        None => None,
        Some(_) => Some(given.count("cpus")?),
    };
    Ok(Wanted {
        urls,
        requests,
        duration,
        connections,
        threads,
        pipeline,
        rate,
        warmup: given.duration("warmup")?.unwrap_or_default(),
        timeout: given.duration("t")?.unwrap_or(Duration::from_secs(20)),
        keep_alive,
        seed: given.number("seed", 0, u64::MAX)?,
        verify: given.is_on("verify")?,
        fields: fields(given)?,
        host: given.text("host").map(str::to_string),
        query: consistency(given)?,
        distribution: distribution(given, &what)?,
        what,
        keys: given.number("keys", 1, 1 << 40)?,
        key_format: given.parsed("key-format")?,
        sizes: given.parsed("value-size")?,
        batch_items: given.count("batch-size")?,
        scan_rows: given.count("scan-len")?,
        load: given.is_on("load")?,
        max_errors: percent(given)?,
        print: print(given)?,
        json: given.text("json").map(str::to_string),
        csv: given.text("csv").map(str::to_string),
        hdr: given.text("hdr").map(str::to_string),
        html: given.text("html").map(str::to_string),
        quiet: given.is_on("quiet")?,
    })
}

fn is_ycsb_f(what: &What) -> bool {
    matches!(what, What::Workload("ycsb-f", _))
}

fn what(given: &Given<'_>) -> Result<What, StartError> {
    let Some(name) = given.text("workload") else {
        let body = match (given.text("d"), given.text("D")) {
            (None, None) => Body::None,
            (Some(text), None) => Body::Text(template("-d", text)?),
            (None, Some(file)) => Body::File(file.to_string()),
            (Some(_), Some(_)) => {
                let error = "-d and -D are two bodies";
                return Err(StartError::usage(error, ALL_FLAGS));
            }
        };
        let method = given.value("m");
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(wrong("m", method, "a method such as GET or POST"));
        }
        return Ok(What::Request {
            method: method.to_string(),
            body,
        });
    };
    for flag in ["m", "d", "D"] {
        if given.text(flag).is_some() {
            let error = format!("-{flag} does not go with -workload, which makes its own requests");
            return Err(StartError::usage(error, ALL_FLAGS));
        }
    }
    let reads = given.number("read-ratio", 0, 100)?;
    let known = WORKLOADS.iter().find(|known| **known == name);
    let acts = acts(name, reads as u32);
    match (known, acts) {
        (Some(known), Some(acts)) => Ok(What::Workload(known, acts)),
        _ => Err(wrong(
            "workload",
            name,
            &format!("one of {}", WORKLOADS.join(", ")),
        )),
    }
}

pub fn template(of: &str, text: &str) -> Result<Template, StartError> {
    Template::parse(text)
        .map_err(|(at, why)| StartError::usage(format!("{of}, byte {at}: {why}"), ALL_FLAGS))
}

/// Header fields with their line ends.
fn fields(given: &Given<'_>) -> Result<String, StartError> {
    let mut fields = String::new();
    let own = given.0.get_many::<String>("H").unwrap_or_default();
    let mut lines: Vec<String> = own.cloned().collect();
    for (flag, name) in [("T", "Content-Type"), ("A", "Accept")] {
        if let Some(value) = given.text(flag) {
            lines.push(format!("{name}: {value}"));
        }
    }
    if let Some(who) = given.text("a") {
        let encoded = base64::engine::general_purpose::STANDARD.encode(who);
        lines.push(format!("Authorization: Basic {encoded}"));
    }
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or_default();
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) || value.bytes().any(|byte| byte < b' ') {
            return Err(wrong("H", &line, "a field is \"Name: value\""));
        }
        for ours in ["host", "connection", "content-length", "transfer-encoding"] {
            if name.eq_ignore_ascii_case(ours) {
                return Err(wrong(
                    "H",
                    &line,
                    "this field is made by bench itself (see -host, -disable-keepalive)",
                ));
            }
        }
        fields.push_str(&format!("{name}: {}\r\n", value.trim()));
    }
    Ok(fields)
}

fn consistency(given: &Given<'_>) -> Result<String, StartError> {
    match given.text("consistency") {
        None => Ok(String::new()),
        Some(level @ ("one" | "quorum" | "all")) => Ok(format!("consistency={level}")),
        Some(other) => Err(wrong("consistency", other, "one, quorum or all")),
    }
}

fn distribution(given: &Given<'_>, what: &What) -> Result<Distribution, StartError> {
    match (given.text("dist"), what) {
        (Some(_), _) => given.parsed("dist"),
        (None, What::Workload("ycsb-d", _)) => Ok(Distribution::Latest),
        (None, What::Workload(name, _)) if name.starts_with("ycsb") => {
            Ok(Distribution::Zipfian(crate::load::keys::ZIPF_EXPONENT))
        }
        (None, _) => Ok(Distribution::Uniform),
    }
}

fn percent(given: &Given<'_>) -> Result<f64, StartError> {
    let value = given.value("max-errors");
    let share = value.trim_end_matches('%').parse().ok();
    let share = share.filter(|share| (0.0..=100.0).contains(share));
    share.ok_or_else(|| wrong("max-errors", value, "a percentage from 0 to 100"))
}

fn print(given: &Given<'_>) -> Result<Print, StartError> {
    match given.value("o") {
        "text" => Ok(Print::Text),
        "csv" => Ok(Print::Csv),
        "json" => Ok(Print::Json),
        other => Err(wrong("o", other, "text, csv or json")),
    }
}

fn url(text: &str) -> Result<Url, StartError> {
    let refused = |why: &str| {
        let example = "http://localhost:8081/get?key=a";
        StartError::usage(
            format!("{text:?}: {why}"),
            format!("a URL is like {example}"),
        )
    };
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err(refused("bench speaks plain HTTP only")),
        Some(_) => return Err(refused("not an http:// URL")),
        None => text,
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_at);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) && !path.contains("{{") {
        return Err(refused(
            "a space or control character, which must be percent-encoded",
        ));
    }
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let port = port.filter(|port| !port.ends_with(']'));
    let host = port.map_or(authority, |port| {
        &authority[..authority.len() - port.len() - 1]
    });
    if host.is_empty() || host.contains(['@', ' ']) {
        return Err(refused("no host"));
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(refused("the port is no number up to 65535"));
    }
    let authority = match port {
        Some(_) => authority.to_string(),
        None => format!("{authority}:80"),
    };
    Ok(Url {
        authority,
        path: template("URL", &path)?,
    })
}

/// The text of `kvstore bench -help`.
#[must_use]
pub fn help() -> String {
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

    fn parsed(words: &[&str]) -> Result<Bench, StartError> {
        let argv: Vec<String> = words.iter().map(|word| (*word).to_string()).collect();
        parse(&argv)
    }

    fn run(words: &[&str]) -> Wanted {
        match parsed(words) {
            Ok(Bench::Run(wanted)) => *wanted,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn the_command_lines_of_hey_are_understood() {
        let body = r#"{"key":"bench:{{.RequestNumber}}","value":"data"}"#;
        let field = "Content-Type: application/json";
        let url = "http://localhost:8081/put";
        let words = [
            "-n", "10000", "-c", "50", "-m", "POST", "-H", field, "-d", body, url,
        ];
        let wanted = run(&words);
        assert_eq!((wanted.requests, wanted.connections), (Some(10_000), 50));
        assert_eq!(wanted.fields, "Content-Type: application/json\r\n");
        assert_eq!(wanted.urls[0].authority, "localhost:8081");
        assert!(
            matches!(&wanted.what, What::Request { method, body: Body::Text(_) } if method == "POST")
        );
        let wanted = run(&[
            "-z",
            "10s",
            "-q",
            "5",
            "-c",
            "4",
            "-disable-keepalive",
            "-t",
            "3",
            "h:1",
        ]);
        assert_eq!(wanted.duration, Some(Duration::from_secs(10)));
        assert_eq!((wanted.requests, wanted.rate), (None, Some(20.0)));
        assert_eq!(
            (wanted.keep_alive, wanted.timeout),
            (false, Duration::from_secs(3))
        );
        let wanted = run(&[
            "-a",
            "u:p",
            "-H",
            "X-A: 1",
            "-H=X-B:2",
            "-T",
            "text/html",
            "h",
        ]);
        assert_eq!(
            wanted.fields,
            "X-A: 1\r\nX-B: 2\r\nContent-Type: text/html\r\nAuthorization: Basic dTpw\r\n"
        );
        assert_eq!(wanted.urls[0].authority, "h:80");
        assert_eq!(
            run(&["-n", "3", "h:1"]).connections,
            3,
            "more would be idle"
        );
    }

    #[test]
    fn workloads_and_their_distributions() {
        let of = |words: &[&str]| run(words).distribution.to_string();
        assert_eq!(of(&["-workload", "mixed", "h:1"]), "uniform");
        assert_eq!(of(&["-workload", "ycsb-a", "h:1"]), "zipfian:0.99");
        assert_eq!(of(&["-workload", "ycsb-d", "h:1"]), "latest");
        assert_eq!(
            of(&["-workload", "ycsb-a", "-dist", "hotset:10/90", "h:1"]),
            "hotset:10/90"
        );
        let wanted = run(&[
            "-workload",
            "put",
            "-consistency",
            "quorum",
            "h:1",
            "http://h:2/",
        ]);
        assert_eq!(
            (wanted.query.as_str(), wanted.urls.len()),
            ("consistency=quorum", 2)
        );
    }

    #[test]
    fn mistakes_are_told_by_name() {
        for (words, says) in [
            (&[][..], "bench needs a URL"),
            (&["-workload", "get", "h:1/get"], "must not have a path"),
            (
                &["-workload", "gets", "h:1"],
                "-workload \"gets\": one of get, put",
            ),
            (
                &["-workload", "get", "-m", "PUT", "h:1"],
                "-m does not go with -workload",
            ),
            (&["-n", "0", "h:1"], "-n \"0\": a number from 1"),
            (&["-z", "soon", "h:1"], "-z \"soon\": a duration"),
            (
                &["-q", "1", "-rate", "1", "h:1"],
                "two ways to say one thing",
            ),
            (
                &["-pipeline", "2", "-disable-keepalive", "h:1"],
                "does not go with",
            ),
            (
                &["-d", "{{sequence}}", "h:1"],
                "-d, byte 0: {{sequence}} is none of",
            ),
            (&["-d", "a", "-D", "b", "h:1"], "two bodies"),
            (&["-H", "Host: x", "h:1"], "made by bench itself"),
            (&["-H", "no colon", "h:1"], "a field is"),
            (&["-dist", "zipf", "h:1"], "-dist \"zipf\": uniform"),
            (&["-consistency", "two", "h:1"], "one, quorum or all"),
            (&["-consistancy", "one", "h:1"], "unknown flag -consistancy"),
            (&["https://h:1/"], "plain HTTP only"),
            (&["http://h:99999/"], "the port"),
            (&["http:///x"], "no host"),
            (&["-n"], "-n needs a value"),
        ] {
            let refused = parsed(words).expect_err(&format!("{words:?}"));
            assert!(refused.error.contains(says), "{words:?}: {}", refused.error);
            assert_eq!(refused.exit, 2, "{words:?}");
        }
        let near = parsed(&["-consistancy", "one", "h:1"]).expect_err("misspelt");
        assert!(
            near.hint.contains("did you mean -consistency?"),
            "{}",
            near.hint
        );
    }

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
        assert!(matches!(parsed(&["-help"]), Ok(Bench::Help)));
    }
}
