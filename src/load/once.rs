//! One request, one answer, then the connection is closed: who is there before a run, and how it is after it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::line::Line;
use super::plan::Target;
use crate::http::client::request;
use crate::http::request::Method;
use crate::rt::plain::Clock;
use crate::rt::plain::net::Sockets;

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
    let close = [("Connection", "close")];
    let mut bytes = Vec::new();
    request(&mut bytes, Method::Get, path, &target.host, &close, None);
    let mut line = Line::new(Clock::start())?;
    let answered = line.ask(target.address, Method::Get, &bytes, patience);
    let answered = answered.map_err(|trouble| trouble.error)?;
    Ok((answered.status, answered.body))
}
