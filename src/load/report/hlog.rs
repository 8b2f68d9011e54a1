//! Pure. HdrHistogram's interval log, version 2: every second of a run with its whole distribution.
//!
//! ```text
//! #[Histogram log format version 1.3]
//! #[StartTime: 1764000000.000 (seconds since epoch)]
//! #[BaseTime: 1764000000.000 (seconds since epoch)]
//! Tag=get,0.000,1.000,310271.000,HISTFAAAA..         start after BaseTime and length in seconds; greatest value
//! Tag=get-service,0.000,1.000,210303.000,HISTFAA..   and histogram (deflated, in base64) in nanoseconds
//! ```
//!
//! It is what HistogramLogAnalyzer, HdrHistogram's own plotter and its `HistogramLogProcessor` read. The tag is the
//! kind of request; at a given rate the response times have it, and the service times one with `-service` behind.

use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::super::outcome::Described;
use super::super::tally::Tally;

/// Appends to bytes; whoever calls it writes them to a file.
pub struct Hlog {
    serializer: V2DeflateSerializer,
}

impl Hlog {
    /// Appends the head of a log.
    pub fn begin(run: &Described, out: &mut Vec<u8>) -> Hlog {
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(run.began_unix_ms);
        let mut serializer = V2DeflateSerializer::new();
        let begun = IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(&format!("[kvstore bench: {}]", run.command.join(" ")))
            .add_comment("[all values in nanoseconds]")
            .with_start_time(began)
            .with_base_time(began)
            .begin_log_with(out, &mut serializer)
            .map(|_| ());
        begun.expect("a vector takes all");
        out.extend_from_slice(
            b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        );
        Hlog { serializer }
    }

    /// Appends one second.
    pub fn second(&mut self, second: u32, tally: &Tally, out: &mut Vec<u8>) {
        for (op, of) in tally.ops() {
            match &of.response {
                Some(response) => {
                    self.interval(second, op.name(), response, out);
                    let tag = format!("{}-service", op.name());
                    self.interval(second, &tag, &of.service, out);
                }
                None => self.interval(second, op.name(), &of.service, out),
            }
        }
    }

    fn interval(&mut self, second: u32, tag: &str, of: &Histogram<u64>, out: &mut Vec<u8>) {
        if of.is_empty() {
            return;
        }
        let tag = Tag::new(tag).expect("names of requests have neither commas nor blanks");
        let start = Duration::from_secs(u64::from(second));
        IntervalLogWriterBuilder::new()
            .begin_log_with(out, &mut self.serializer)
            .expect("a vector takes all")
            .write_histogram(of, start, Duration::from_secs(1), Some(tag))
            .expect("a vector takes all, and counts fit in the format");
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::super::super::outcome::quantile;
    use super::super::example;
    use super::*;

    #[test]
    fn the_log_reads_back_as_what_was_counted() {
        let outcome = example::paced();
        let mut log = Vec::new();
        let mut hlog = Hlog::begin(&outcome.run, &mut log);
        hlog.second(0, &Tally::default(), &mut log);
        hlog.second(7, &outcome.total, &mut log);
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            match entry.expect("every line is understood") {
                LogEntry::StartTime(time) | LogEntry::BaseTime(time) => {
                    assert_eq!(time, Duration::from_secs(1_764_000_000));
                }
                LogEntry::Interval(interval) => {
                    assert_eq!(interval.start_timestamp(), Duration::from_secs(7));
                    assert_eq!(interval.duration(), Duration::from_secs(1));
                    let bytes = STANDARD.decode(interval.encoded_histogram());
                    let histogram: Histogram<u64> = Deserializer::new()
                        .deserialize(&mut &bytes.expect("base64")[..])
                        .expect("a histogram");
                    let tag = interval.tag().expect("a tag").as_str().to_owned();
                    read.push((tag, histogram));
                }
            }
        }
        let tags: Vec<&str> = read.iter().map(|(tag, _)| &**tag).collect();
        let kinds = ["get", "put", "scan", "batch"];
        let both = kinds.map(|kind| [kind.to_owned(), format!("{kind}-service")]);
        assert_eq!(tags, both.as_flattened());
        for ((_, of), pair) in outcome.total.ops().zip(read.chunks(2)) {
            let response = of.response.as_ref().expect("a rate was given");
            assert_eq!(&pair[0].1, response);
            assert_eq!(pair[1].1, of.service);
            assert_eq!(quantile(&pair[0].1, 0.99), quantile(response, 0.99));
        }
    }

    #[test]
    fn without_a_rate_there_is_one_interval_per_kind() {
        let outcome = example::closed();
        let mut log = Vec::new();
        Hlog::begin(&outcome.run, &mut log).second(0, &outcome.total, &mut log);
        let text = String::from_utf8(log).expect("text");
        let intervals: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("Tag"))
            .collect();
        assert_eq!(intervals.len(), 1);
        assert!(
            intervals[0].starts_with("Tag=request,0.000,1.000,"),
            "{text}"
        );
        assert!(intervals[0].contains(",HISTFAAAA"), "{text}");
    }
}
