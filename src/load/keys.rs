//! Pure. Which key comes next: numbers by a distribution, and how a number is spelt.
//!
//! Zipf's law by Gray et al., "Quickly generating billion-record synthetic databases" (SIGMOD 1994), as YCSB uses it:
//! the k-th most popular of n keys is asked for with a probability in proportion to 1/k^theta. Ranks are scattered
//! over the keys, or the popular ones would be neighbours.

use std::fmt;

/// Share of the requests that goes to each key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    Uniform,
    /// Exponent, above 0 and below 1; YCSB's is 0.99.
    Zipfian(f64),
    /// Zipf by age: the youngest key is the most popular.
    Latest,
    /// One after the other, and again from the first.
    Sequential,
    /// Percent of the keys, and the percent of the requests they get.
    HotSet {
        keys: u8,
        requests: u8,
    },
}

pub const ZIPF_EXPONENT: f64 = 0.99;

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distribution::Uniform => f.write_str("uniform"),
            Distribution::Zipfian(theta) => write!(f, "zipfian:{theta}"),
            Distribution::Latest => f.write_str("latest"),
            Distribution::Sequential => f.write_str("sequential"),
            Distribution::HotSet { keys, requests } => write!(f, "hotset:{keys}/{requests}"),
        }
    }
}

/// `uniform`, `zipfian[:0.99]`, `latest`, `sequential`, `hotset:20/80`.
impl std::str::FromStr for Distribution {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Distribution, &'static str> {
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let percent = |text: &str| text.parse().ok().filter(|share| (1..=99).contains(share));
        match (name, rest) {
            ("uniform", None) => Ok(Distribution::Uniform),
            ("latest", None) => Ok(Distribution::Latest),
            ("sequential", None) => Ok(Distribution::Sequential),
            ("zipfian", None) => Ok(Distribution::Zipfian(ZIPF_EXPONENT)),
            ("zipfian", Some(theta)) => theta
                .parse()
                .ok()
                .filter(|theta| *theta > 0.0 && *theta < 1.0)
                .map(Distribution::Zipfian)
                .ok_or("zipfian:E needs an exponent between 0 and 1, as in zipfian:0.99"),
            ("hotset", Some(shares)) => shares
                .split_once('/')
                .and_then(|(keys, requests)| {
                    Some(Distribution::HotSet {
                        keys: percent(keys)?,
                        requests: percent(requests)?,
                    })
                })
                .ok_or("hotset:K/R needs percent of keys and of requests, as in hotset:20/80"),
            _ => Err("uniform, zipfian[:0.99], latest, sequential or hotset:20/80"),
        }
    }
}

/// Draws key numbers for one thread.
#[derive(Clone, Debug)]
pub struct Keys {
    distribution: Distribution,
    /// Keys there were before the run.
    count: u64,
    zipf: Option<Zipf>,
    /// The next one in sequence.
    next: u64,
    /// Keys this thread has added, which lie between those of the other threads.
    added: u64,
    thread: u64,
    threads: u64,
}

impl Keys {
    /// `count` keys, at least one. With Zipf's law takes time in proportion to their number: clone it for each thread.
    #[must_use]
    pub fn new(distribution: Distribution, count: u64) -> Keys {
        let exponent = match distribution {
            Distribution::Zipfian(exponent) => Some(exponent),
            Distribution::Latest => Some(ZIPF_EXPONENT),
            _ => None,
        };
        Keys {
            distribution,
            count,
            zipf: exponent.map(|exponent| Zipf::new(count, exponent)),
            next: 0,
            added: 0,
            thread: 0,
            threads: 1,
        }
    }

    /// Keys there were before the run.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// For one thread of several; its sequence begins at key `first`.
    #[must_use]
    pub fn for_thread(&self, thread: usize, threads: usize, first: u64) -> Keys {
        Keys {
            next: first % self.count,
            thread: thread as u64,
            threads: threads as u64,
            ..self.clone()
        }
    }

    /// The sequence goes on from there.
    pub fn seek(&mut self, key: u64) {
        self.next = key % self.count;
    }

    /// The next key to ask for. With `latest` the last `unsure` keys of this thread are left out: they may not be
    /// written yet.
    pub fn draw(&mut self, rng: &mut fastrand::Rng, unsure: u64) -> u64 {
        match self.distribution {
            Distribution::Uniform => rng.u64(..self.count),
            Distribution::Sequential => {
                let drawn = self.next;
                self.next = (drawn + 1) % self.count;
                drawn
            }
            Distribution::HotSet { keys, requests } => {
                let hot = (self.count * u64::from(keys) / 100).clamp(1, self.count);
                if hot == self.count || rng.u8(..100) < requests {
                    scattered(rng.u64(..hot), self.count)
                } else {
                    scattered(rng.u64(hot..self.count), self.count)
                }
            }
            Distribution::Zipfian(_) => scattered(self.rank(rng), self.count),
            Distribution::Latest => {
                let known = self.count + self.added.saturating_sub(unsure);
                self.named(known - 1 - self.rank(rng).min(known - 1))
            }
        }
    }

    fn rank(&self, rng: &mut fastrand::Rng) -> u64 {
        let zipf = self.zipf.as_ref().expect("made with the distribution");
        zipf.rank(rng.f64())
    }

    /// A key that no other thread adds.
    pub fn add(&mut self) -> u64 {
        self.added += 1;
        self.named(self.count + self.added - 1)
    }

    /// The key at a place in the order of this thread: first those that all know, then its own.
    fn named(&self, place: u64) -> u64 {
        match place.checked_sub(self.count) {
            None => place,
            Some(own) => self.count + own * self.threads + self.thread,
        }
    }
}

/// Spreads ranks over the keys: a bijection, since `STEP` is prime and no count of keys is a multiple of it.
fn scattered(rank: u64, count: u64) -> u64 {
    const STEP: u128 = 2_305_843_009_213_693_951; // 2^61 - 1
    (u128::from(rank) * STEP % u128::from(count)) as u64
}

#[derive(Clone, Copy, Debug)]
struct Zipf {
    count: f64,
    exponent: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Zipf {
        let zeta: f64 = (1..=count).map(|k| (k as f64).powf(-exponent)).sum();
        let zeta_two = 1.0 + 0.5_f64.powf(exponent);
        let n = count as f64;
        Zipf {
            count: n,
            exponent,
            alpha: 1.0 / (1.0 - exponent),
            zeta,
            eta: (1.0 - (2.0 / n).powf(1.0 - exponent)) / (1.0 - zeta_two / zeta),
        }
    }

    /// From a number in 0..1 to a rank from 0, below the count.
    fn rank(&self, u: f64) -> u64 {
        let uz = u * self.zeta;
        if uz < 1.0 || self.count < 2.0 {
            0
        } else if uz < 1.0 + 0.5_f64.powf(self.exponent) || self.count < 3.0 {
            1
        } else {
            let rank = self.count * (self.eta * u - self.eta + 1.0).powf(self.alpha);
            (rank as u64).min(self.count as u64 - 1)
        }
    }
}

/// How a key is spelt: `bench:{seq:08}` is `bench:` and the number in eight digits. Only bytes that mean themselves in a
/// query and in JSON, so that a key is copied as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFormat {
    before: String,
    digits: usize,
    after: String,
}

/// Digits of the largest number.
const DIGITS_MAX: usize = 20;

impl std::str::FromStr for KeyFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<KeyFormat, &'static str> {
        const NEEDS: &str =
            "a key is letters, digits and any of -._~:/ with {seq} or {seq:08} in it, once";
        let (before, rest) = text.split_once("{seq").ok_or(NEEDS)?;
        let (width, after) = rest.split_once('}').ok_or(NEEDS)?;
        let digits = match width.strip_prefix(':') {
            Some(digits) => digits.parse().map_err(|_| NEEDS)?,
            None if width.is_empty() => 0,
            None => return Err(NEEDS),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
        if digits > DIGITS_MAX || !before.bytes().chain(after.bytes()).all(plain) {
            return Err(NEEDS);
        }
        Ok(KeyFormat {
            before: before.to_string(),
            digits,
            after: after.to_string(),
        })
    }
}

impl KeyFormat {
    pub fn put(&self, out: &mut Vec<u8>, number: u64) {
        let mut digits = [b'0'; DIGITS_MAX];
        let mut left = number;
        let mut used = 0;
        while left > 0 || used == 0 {
            used += 1;
            digits[DIGITS_MAX - used] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        out.extend_from_slice(self.before.as_bytes());
        out.extend_from_slice(&digits[DIGITS_MAX - used.max(self.digits)..]);
        out.extend_from_slice(self.after.as_bytes());
    }

    /// The number of a key of ours.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        let digits = key.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        digits.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(distribution: Distribution, count: u64, times: usize) -> Vec<u64> {
        let mut keys = Keys::new(distribution, count);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut hits = vec![0; count as usize];
        for _ in 0..times {
            hits[keys.draw(&mut rng, 0) as usize] += 1;
        }
        hits
    }

    #[test]
    fn shares_are_those_of_the_distribution() {
        let mut zipf = draws(Distribution::Zipfian(0.99), 1000, 100_000);
        assert_ne!(zipf[0].max(zipf[1]), 0);
        zipf.sort_unstable_by(|a, b| b.cmp(a));
        // 1/zeta(1000, 0.99) = 0.1294; the second gets 2^-0.99 = 0.503 of it.
        assert!((12_400..13_500).contains(&zipf[0]), "{}", zipf[0]);
        assert!((6_100..6_900).contains(&zipf[1]), "{}", zipf[1]);
        let uniform = draws(Distribution::Uniform, 10, 100_000);
        assert!(
            uniform.iter().all(|hits| (9_500..10_500).contains(hits)),
            "{uniform:?}"
        );
        assert_eq!(draws(Distribution::Sequential, 3, 7), [3, 2, 2]);
        let hot = Distribution::HotSet {
            keys: 20,
            requests: 80,
        };
        let mut hot = draws(hot, 10, 100_000);
        hot.sort_unstable_by(|a, b| b.cmp(a));
        assert!((79_000..81_000).contains(&(hot[0] + hot[1])), "{hot:?}");
        assert!(hot[9] > 2_000, "the cold ones get their share: {hot:?}");
    }

    #[test]
    fn few_keys_are_no_trouble() {
        for count in 1..5 {
            for distribution in ["uniform", "zipfian", "latest", "sequential", "hotset:20/80"] {
                let hits = draws(distribution.parse().unwrap(), count, 1000);
                assert_eq!(hits.iter().sum::<u64>(), 1000, "{distribution} of {count}");
            }
        }
    }

    #[test]
    fn the_latest_keys_are_popular_and_those_in_flight_left_alone() {
        let mut keys = Keys::new(Distribution::Latest, 100).for_thread(1, 4, 0);
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!([keys.add(), keys.add(), keys.add()], [101, 105, 109]);
        let mut hits = [0; 120];
        for _ in 0..10_000 {
            hits[keys.draw(&mut rng, 1) as usize] += 1;
        }
        assert_eq!(hits[109], 0);
        assert!(hits[105] > hits[101] && hits[101] > hits[99], "{hits:?}");
    }

    #[test]
    fn keys_are_spelt_and_read_back() {
        let spelt = |format: &str, number| {
            let mut out = Vec::new();
            let format: KeyFormat = format.parse().unwrap();
            format.put(&mut out, number);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(format.number(&text), Some(number));
            text
        };
        assert_eq!(spelt("bench:{seq:08}", 42), "bench:00000042");
        assert_eq!(spelt("{seq}", 0), "0");
        assert_eq!(spelt("a{seq:2}-z", 12345), "a12345-z");
        assert_eq!(spelt("{seq}", u64::MAX), "18446744073709551615");
        for wrong in [
            "k",
            "{seq",
            "{seq:x}",
            "{seq:21}",
            "a b{seq}",
            "{seq}{seq}",
            "é{seq}",
            "\"{seq}",
        ] {
            assert!(wrong.parse::<KeyFormat>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn distributions_by_name() {
        for name in [
            "uniform",
            "zipfian:0.5",
            "latest",
            "sequential",
            "hotset:20/80",
        ] {
            assert_eq!(name.parse::<Distribution>().unwrap().to_string(), name);
        }
        for wrong in [
            "",
            "zipf",
            "zipfian:1",
            "zipfian:x",
            "hotset",
            "hotset:0/80",
            "latest:1",
        ] {
            assert!(wrong.parse::<Distribution>().is_err(), "{wrong}");
        }
    }
}
