//! Addresses of names, looked up again while the node serves.
//!
//! ```text
//!  core ─ nth ──▶ book ◀── set ─ one thread, every 5 s: names without an address, and doubted ones ─▶ resolver
//!  core ─ doubt ─▶  └─ a flag per name
//! ```
//!
//! The resolver blocks, for half a minute when the network is bad, so no core asks it. A core reads what is known; the
//! lock is held for the length of a copy, as in `mesh`. What waits for the thread is a flag per name: it cannot grow.
//!
//! Invariants: an address is replaced by another one only; a resolver that fails takes none away. Each change, and
//! each new trouble, is told once.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "one of the places where cores share memory, and its thread"
)]

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::early;

/// Pause between two rounds of look-ups.
const PAUSE: Duration = Duration::from_secs(5);

/// The addresses of a fixed list of names. Clones are handles on one book.
#[derive(Clone, Debug)]
pub struct Book(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    addresses: Vec<SocketAddr>,
    doubted: bool,
}

impl FromIterator<Vec<SocketAddr>> for Book {
    /// By name, in order; empty: not known yet. Nobody looks anything up before [`start`].
    fn from_iter<T: IntoIterator<Item = Vec<SocketAddr>>>(lists: T) -> Book {
        let entry = |addresses| Entry {
            addresses,
            doubted: false,
        };
        Book(Arc::new(Mutex::new(lists.into_iter().map(entry).collect())))
    }
}

impl Book {
    /// The address to try after so many others of this name did not serve; `None`: none is known.
    #[must_use]
    pub fn nth(&self, name: usize, tried: usize) -> Option<SocketAddr> {
        let entries = self.locked();
        let addresses = &entries.get(name)?.addresses;
        addresses.get(tried % addresses.len().max(1)).copied()
    }

    /// The addresses of this name do not serve: it may have moved.
    pub fn doubt(&self, name: usize) {
        if let Some(entry) = self.locked().get_mut(name) {
            entry.doubted = true;
        }
    }

    /// What was found out; true when it is something new.
    pub fn set(&self, name: usize, mut addresses: Vec<SocketAddr>) -> bool {
        // Resolvers hand them out in another order each time.
        addresses.sort_unstable();
        let mut entries = self.locked();
        let Some(entry) = entries.get_mut(name) else {
            return false;
        };
        let mut before = entry.addresses.clone();
        before.sort_unstable();
        let differs = before != addresses;
        if differs {
            entry.addresses = addresses;
        }
        differs
    }

    /// Names to be looked up, their doubts taken away.
    pub fn take_wanted(&self) -> Vec<usize> {
        let mut entries = self.locked();
        let wanted = entries.iter_mut().enumerate().filter_map(|(name, entry)| {
            let doubted = std::mem::replace(&mut entry.doubted, false);
            (doubted || entry.addresses.is_empty()).then_some(name)
        });
        wanted.collect()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts to look names up, `host:port` each, in the order of the book; `None` is left alone. The thread ends with the
/// process: it may sit in the resolver, and holds nothing that must be finished.
pub fn start(
    book: &Book,
    names: Vec<Option<String>>,
    tell: impl Fn(&str) + Send + 'static,
) -> io::Result<()> {
    let book = book.clone();
    let thread = std::thread::Builder::new().name("resolve".to_string());
    let started = thread.spawn(move || {
        let mut troubles = vec![String::new(); names.len()];
        loop {
            look_up(&book, &names, &mut troubles, early::resolve, &tell);
            std::thread::sleep(PAUSE);
        }
    });
    started.map(drop)
}

/// One round. `troubles`: what was last told of each name.
fn look_up(
    book: &Book,
    names: &[Option<String>],
    troubles: &mut [String],
    resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>>,
    tell: &dyn Fn(&str),
) {
    for at in book.take_wanted() {
        let Some(name) = names.get(at).and_then(Option::as_ref) else {
            continue;
        };
        let trouble = match resolve(name) {
            Ok(found) if found.is_empty() => "it has no address".to_string(),
            Ok(found) => {
                let text: Vec<String> = found.iter().map(SocketAddr::to_string).collect();
                let knew = book.nth(at, 0).is_some();
                // The first answer, when all is well, is no news.
                if book.set(at, found) && (knew || !troubles[at].is_empty()) {
                    tell(&format!("peer {name}: it is at {} now", text.join(", ")));
                }
                String::new()
            }
            Err(error) => error.to_string(),
        };
        if !trouble.is_empty() && troubles[at] != trouble {
            tell(&format!(
                "peer {name}: {trouble}; it is looked up again every 5 s"
            ));
        }
        troubles[at] = trouble;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8081))
    }

    #[test]
    fn what_is_unknown_or_doubted_is_looked_up_and_each_change_told_once() {
        let book: Book = [vec![], vec![], vec![address(9)]].into_iter().collect();
        let names = [Some("a:1".to_string()), Some("b:1".to_string()), None];
        let mut troubles = vec![String::new(); 3];
        let told = RefCell::new(Vec::new());
        let asked = RefCell::new(Vec::new());
        let mut round = |b: Result<Vec<u8>, &'static str>| {
            look_up(
                &book,
                &names,
                &mut troubles,
                |name| {
                    asked.borrow_mut().push(name.to_string());
                    match (name, &b) {
                        ("b:1", Err(why)) => Err(io::Error::other(*why)),
                        ("b:1", Ok(list)) => Ok(list.iter().copied().map(address).collect()),
                        _ => Ok(vec![address(1)]),
                    }
                },
                &|line| told.borrow_mut().push(line.to_string()),
            );
            (asked.take().join(" "), told.take().join("; "))
        };
        let trouble = "peer b:1: no such host; it is looked up again every 5 s";
        assert_eq!(
            round(Err("no such host")),
            ("a:1 b:1".into(), trouble.into())
        );
        assert_eq!(round(Err("no such host")), ("b:1".into(), String::new()));
        let news = "peer b:1: it is at 10.0.0.2:8081, 10.0.0.3:8081 now";
        assert_eq!(round(Ok(vec![2, 3])), ("b:1".into(), news.into()));
        assert_eq!(round(Ok(vec![4])), (String::new(), String::new()));
        assert_eq!(
            [0, 1, 2].map(|n| book.nth(1, n)),
            [2, 3, 2].map(|n| Some(address(n)))
        );
        // Doubted: the same addresses are no news, and a resolver that fails takes none away.
        book.doubt(1);
        assert_eq!(round(Ok(vec![3, 2])), ("b:1".into(), String::new()));
        book.doubt(1);
        let trouble = "peer b:1: down; it is looked up again every 5 s";
        assert_eq!(round(Err("down")), ("b:1".into(), trouble.into()));
        assert_eq!(book.nth(1, 0), Some(address(2)));
        book.doubt(1);
        let news = "peer b:1: it is at 10.0.0.4:8081 now";
        assert_eq!(round(Ok(vec![4])), ("b:1".into(), news.into()));
        assert_eq!(book.nth(1, 5), Some(address(4)));
        // Whoever is not named is left alone, and strangers change nothing.
        book.doubt(2);
        book.doubt(7);
        assert_eq!(round(Ok(vec![4])), (String::new(), String::new()));
        assert_eq!((book.nth(2, 0), book.nth(7, 0)), (Some(address(9)), None));
    }

    #[test]
    fn the_thread_finds_what_the_system_knows() {
        let book: Book = [vec![], vec![]].into_iter().collect();
        let names = vec![Some("127.0.0.1:81".to_string()), None];
        start(&book, names, |_| {}).unwrap();
        while book.nth(0, 0).is_none() {
            std::thread::yield_now();
        }
        assert_eq!(book.nth(0, 0), Some(SocketAddr::from(([127, 0, 0, 1], 81))));
        assert_eq!(book.nth(1, 0), None);
    }
}
