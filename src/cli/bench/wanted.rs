//! Pure. What a command line of `kvstore bench` asks for, before any name is looked up.

use std::time::Duration;

use base64::Engine;

use super::flags::{self, ALL_FLAGS, Given, RATE_MAX, THREADS_MAX, wrong};
use super::url::{Url, url};
use crate::cli::StartError;
use crate::cli::args::{Mistake, mistake, rewrite};
use crate::load::keys::{Distribution, KeyFormat, ZIPF_EXPONENT};
use crate::load::plan::{Act, WORKLOADS, acts};
use crate::load::template::Template;
use crate::load::values::Sizes;

/// All of it.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) urls: Vec<Url>,
    pub(super) requests: Option<u64>,
    pub(super) duration: Option<Duration>,
    pub(super) connections: usize,
    pub(super) threads: Option<usize>,
    pub(super) pipeline: usize,
    pub(super) rate: Option<f64>,
    pub(super) warmup: Duration,
    pub(super) timeout: Duration,
    pub(super) keep_alive: bool,
    pub(super) seed: u64,
    pub(super) verify: bool,
    pub(super) fields: String,
    pub(super) host: Option<String>,
    pub(super) query: String,
    pub(super) what: What,
    pub(super) keys: u64,
    pub(super) key_format: KeyFormat,
    pub(super) distribution: Distribution,
    pub(super) sizes: Sizes,
    pub(super) batch_items: usize,
    pub(super) scan_rows: usize,
    pub(super) load: bool,
    pub(super) max_errors: f64,
    pub(super) print: Print,
    pub(super) json: Option<String>,
    pub(super) csv: Option<String>,
    pub(super) hdr: Option<String>,
    pub(super) html: Option<String>,
    pub(super) quiet: bool,
}

#[derive(Debug)]
pub(super) enum What {
    /// Of this name in the table of workloads.
    Workload(&'static str, Vec<(Act, u32)>),
    Request {
        method: String,
        body: Body,
    },
}

#[derive(Debug)]
pub(super) enum Body {
    None,
    Text(Template),
    File(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Print {
    Text,
    Csv,
    Json,
}

/// What `kvstore bench` is followed by.
#[derive(Debug)]
pub(super) enum Bench {
    Help,
    Run(Box<Wanted>),
}

/// Understands what follows the word `bench`.
pub(super) fn parse(argv: &[String]) -> Result<Bench, StartError> {
    let command = flags::command();
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
    let urls = given
        .all("url")
        .map(|text| url(text))
        .collect::<Result<Vec<_>, _>>()?;
    wanted(&given, urls).map(|wanted| Bench::Run(Box::new(wanted)))
}

fn wanted(given: &Given<'_>, urls: Vec<Url>) -> Result<Wanted, StartError> {
    let what = what(given)?;
    check_urls(&urls, &what)?;
    let duration = given.duration("z")?;
    if duration == Some(Duration::ZERO) {
        return Err(wrong("z", "0", "a duration such as 10s"));
    }
    let requests = match duration {
        Some(_) => None,
        None => Some(given.number("n", 1, u64::MAX >> 1)?),
    };
    // More connections than requests would only be opened.
    let most = usize::try_from(requests.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let connections = given.count("c")?.min(most);
    given.is_on("disable-compression")?;
    given.is_on("disable-redirects")?;
    let threads = match given.text("cpus") {
        None => None,
        Some(_) => Some(given.number("cpus", 1, THREADS_MAX)? as usize),
    };
    Ok(Wanted {
        urls,
        requests,
        duration,
        connections,
        threads,
        pipeline: pipeline(given, &what)?,
        rate: rate(given, connections)?,
        warmup: given.duration("warmup")?.unwrap_or_default(),
        timeout: match given.duration("t")? {
            None => Duration::from_secs(20),
            Some(Duration::ZERO) => Duration::MAX,
            Some(limit) => limit,
        },
        keep_alive: !given.is_on("disable-keepalive")?,
        seed: given.number("seed", 0, u64::MAX)?,
        verify: given.is_on("verify")?,
        fields: fields(given)?,
        host: host(given)?,
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

fn check_urls(urls: &[Url], what: &What) -> Result<(), StartError> {
    if urls.is_empty() {
        let example = "kvstore bench -n 10000 -c 50 \"http://localhost:8081/get?key=a\"";
        return Err(StartError::usage("bench needs a URL", example));
    }
    let What::Workload(name, _) = what else {
        return Ok(());
    };
    let no_path = Template::parse("/").expect("a constant");
    match urls.iter().find(|url| url.path != no_path) {
        None => Ok(()),
        Some(url) => Err(StartError::usage(
            format!("the workload {name} makes its own requests: the URL must not have a path"),
            format!("http://{}, or leave -workload out", url.authority),
        )),
    }
}

/// For the Host field.
fn host(given: &Given<'_>) -> Result<Option<String>, StartError> {
    match given.text("host") {
        Some(host) if host.bytes().any(|byte| byte <= b' ' || byte == 0x7f) => {
            Err(wrong("host", host, "a name without spaces and line ends"))
        }
        host => Ok(host.map(str::to_string)),
    }
}

/// Over all connections.
fn rate(given: &Given<'_>, connections: usize) -> Result<Option<f64>, StartError> {
    let of_each = given.rate("q")?.map(|each| each * connections as f64);
    match (of_each, given.rate("rate")?) {
        (Some(_), Some(_)) => Err(StartError::usage(
            "-q and -rate are two ways to say one thing",
            "-q is per connection, -rate over all of them",
        )),
        (Some(all), None) if all > RATE_MAX => Err(StartError::usage(
            format!("-q for {connections} connections comes to {all} requests per second"),
            format!("at most {RATE_MAX}"),
        )),
        (of_each, of_all) => Ok(of_all.or(of_each)),
    }
}

fn pipeline(given: &Given<'_>, what: &What) -> Result<usize, StartError> {
    let pipeline = given.count("pipeline")?;
    if pipeline > 1 && (is_ycsb_f(what) || given.is_on("disable-keepalive")?) {
        return Err(StartError::usage(
            format!("-pipeline {pipeline} does not go with -disable-keepalive or ycsb-f"),
            "their next request needs the answer to the last",
        ));
    }
    Ok(pipeline)
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

pub(super) fn template(of: &str, text: &str) -> Result<Template, StartError> {
    Template::parse(text)
        .map_err(|(at, why)| StartError::usage(format!("{of}, byte {at}: {why}"), ALL_FLAGS))
}

/// Header fields with their line ends.
fn fields(given: &Given<'_>) -> Result<String, StartError> {
    let mut fields = String::new();
    let mut lines: Vec<String> = given.all("H").cloned().collect();
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
            Ok(Distribution::Zipfian(ZIPF_EXPONENT))
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
            (&["-z", "0s", "h:1"], "-z \"0\": a duration"),
            (&["-rate", "0", "h:1"], "from 0.001"),
            (&["-rate", "1e-20", "h:1"], "from 0.001"),
            (&["-q", "1e9", "-c", "9", "h:1"], "comes to"),
            (&["-host", "a\r\nX: y", "h:1"], "-host"),
            (&["http://h:1/a b"], "percent-encoded"),
            (&["http://h:1/{{seq}} b"], "percent-encoded"),
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
    fn help_is_asked_for_in_words() {
        assert!(matches!(parsed(&["-help"]), Ok(Bench::Help)));
    }
}
