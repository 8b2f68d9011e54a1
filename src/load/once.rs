//! One request, one answer, then the connection is closed: who is there before a run, and how it is after it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::plan::Target;
use crate::http::client::{Answers, Got, request};
use crate::http::request::Method;
use crate::rt::plain::Clock;
use crate::rt::plain::net::Sockets;

/// Longest body taken.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Whether somebody accepts connections there.
pub fn connect(address: SocketAddr, patience: Duration) -> io::Result<()> {
    let mut sockets = Sockets::new()?;
    sockets.open(0, address)?;
    let mut ready = Vec::new();
    sockets.wait(patience, &mut ready)?;
    match sockets.error(0) {
        Some(error) => Err(error),
        None if ready.is_empty() => Err(io::ErrorKind::TimedOut.into()),
        None => Ok(()),
    }
}

/// Status and body of the answer to a GET. Err: nobody answers, not in `patience`, or not in HTTP.
pub fn get(target: &Target, path: &str, patience: Duration) -> io::Result<(u16, Vec<u8>)> {
    let clock = Clock::start();
    let mut sockets = Sockets::new()?;
    sockets.open(0, target.address)?;
    let mut output = Vec::new();
    let close = [("Connection", "close")];
    request(&mut output, Method::Get, path, &target.host, &close, None);
    let mut written = 0;
    let mut input = Vec::new();
    let mut answers = Answers::new(BODY_BYTES_MAX);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let passed = clock.now().0;
        let left = patience.saturating_sub(Duration::from_nanos(passed));
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sockets.wait(left, &mut Vec::new())?;
        if let Some(error) = sockets.error(0) {
            return Err(error);
        }
        while written < output.len() {
            match sockets.write(0, &output[written..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                wrote => written += wrote?,
            }
        }
        loop {
            let read = match sockets.read(0, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                read => read?,
            };
            input.extend_from_slice(&buffer[..read]);
            match answers.next(&input, Method::Get) {
                Got::Answer { answer, .. } => return Ok((answer.status, answer.body.to_vec())),
                Got::Interim { consumed } | Got::NeedMore { consumed } => {
                    drop(input.drain(..consumed))
                }
                Got::Bad { text } => return Err(io::Error::new(io::ErrorKind::InvalidData, text)),
            }
            if read == 0 {
                let last = answers
                    .closed()
                    .map(|answer| (answer.status, answer.body.to_vec()));
                return last.ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
