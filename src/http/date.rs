//! The lines every answer carries, formatted once a second: `Date`, `Server`, `X-Content-Type-Options`.

use std::time::{Duration, UNIX_EPOCH};

/// Last second of the year 9999: the format has four digits for a year.
const SECOND_MAX: u64 = 253_402_300_799;

/// One per core. Refresh it once per turn of the event loop.
#[derive(Debug)]
pub struct Date {
    second: u64,
    lines: Vec<u8>,
}

impl Date {
    /// `wall_ms`: milliseconds since 1970.
    #[must_use]
    pub fn new(wall_ms: u64) -> Date {
        let mut date = Date {
            second: u64::MAX,
            lines: Vec::new(),
        };
        date.refresh(wall_ms);
        date
    }

    /// Cheap unless the second has changed.
    pub fn refresh(&mut self, wall_ms: u64) {
        let second = (wall_ms / 1000).min(SECOND_MAX);
        if second != self.second {
            self.second = second;
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            self.lines.clear();
            self.lines
                .extend_from_slice(b"Server: kvstore\r\nX-Content-Type-Options: nosniff\r\nDate: ");
            self.lines.extend_from_slice(date.as_bytes());
            self.lines.extend_from_slice(b"\r\n");
        }
    }

    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(date: &Date) -> String {
        String::from_utf8(date.lines().to_vec()).expect("ascii")
    }

    #[test]
    fn the_second_decides_and_the_far_future_is_harmless() {
        let mut date = Date::new(784_111_777_000);
        assert_eq!(
            text(&date),
            "Server: kvstore\r\nX-Content-Type-Options: nosniff\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        );
        date.refresh(784_111_777_999);
        assert!(text(&date).contains("08:49:37"));
        date.refresh(784_111_778_000);
        assert!(text(&date).contains("08:49:38"));
        date.refresh(u64::MAX);
        assert!(text(&date).contains("31 Dec 9999"));
    }
}
