//! One client's connection to one node at a time: requests out in one piece, answers back in order.
//!
//! A request that was handed to the socket and is not answered, because the connection broke or patience ended, may
//! have been done: [`Reply::Lost`]. One that never touched the socket was not asked at all.

use std::io::ErrorKind;
use std::time::Duration;

use super::town;
use crate::base::time::Instant;
use crate::base::version::Version;
use crate::http::client::{Answer, Answers, Got};
use crate::http::request::Method;
use crate::load::answer::Reply;
use crate::rt::Rt;
use crate::rt::net::{Net, Token};

const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A client's end of the network.
pub(super) struct Line {
    rt: Rt,
    net: Net,
    call: Option<Call>,
}

/// The connection.
struct Call {
    node: u16,
    token: Token,
    answers: Answers,
    input: Vec<u8>,
}

/// The replies so far, each with the time it was there.
type Replies = Vec<(Reply, Instant)>;

impl Line {
    pub(super) fn new(rt: &Rt) -> Line {
        Line {
            rt: rt.clone(),
            net: rt.net(&[]).expect("a simulated client gets its sockets"),
            call: None,
        }
    }

    /// Sends the requests to `node` and waits for their answers, not longer than `patience`. One reply for each.
    pub(super) async fn ask(
        &mut self,
        node: u16,
        requests: &[Vec<u8>],
        patience: Duration,
    ) -> Replies {
        if self.call.as_ref().is_some_and(|call| call.node != node) {
            self.hang_up();
        }
        let mut replies = Vec::new();
        let mut sent = 0;
        let deadline = self.rt.now() + patience;
        let bytes = requests.concat();
        let well = loop {
            match self.turn(node, &bytes, &mut sent, requests.len(), &mut replies) {
                Turn::Over => break true,
                Turn::Broken => break false,
                Turn::Wait(_) if self.rt.now() >= deadline => break false,
                Turn::Wait(token) => {
                    let wants = self.net.set_interest(token, true, sent < bytes.len());
                    let parked = self.net.park(Some(deadline), &mut |_| false).await;
                    if wants.is_err() || parked.is_err() {
                        break false;
                    }
                }
            }
        };
        if !well {
            self.hang_up();
        }
        let mut starts = requests.iter().scan(0, |at, request| {
            *at += request.len();
            Some(*at - request.len())
        });
        let unanswered = starts.by_ref().skip(replies.len());
        let rest: Vec<Reply> = unanswered
            .map(|start| match start < sent {
                true => Reply::Lost,
                false => Reply::Unasked,
            })
            .collect();
        replies.extend(rest.into_iter().map(|reply| (reply, self.rt.now())));
        replies
    }

    /// Writes what the socket takes, reads what it has.
    fn turn(
        &mut self,
        node: u16,
        bytes: &[u8],
        sent: &mut usize,
        wanted: usize,
        replies: &mut Replies,
    ) -> Turn {
        if self.call.is_none() {
            let Ok(token) = self.net.connect(town::address(node)) else {
                return Turn::Broken;
            };
            self.call = Some(Call {
                node,
                token,
                answers: Answers::new(ANSWER_BYTES_MAX),
                input: Vec::new(),
            });
        }
        let Some(call) = &mut self.call else {
            return Turn::Broken;
        };
        let mut broken = false;
        while *sent < bytes.len() {
            match self.net.write(call.token, &bytes[*sent..]) {
                Ok(taken) => *sent += taken,
                Err(error) => {
                    broken = error.kind() != ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        let mut buf = [0; 16 << 10];
        loop {
            match self.net.read(call.token, &mut buf) {
                Ok(0) => broken = true,
                Ok(read) => {
                    call.input.extend_from_slice(&buf[..read]);
                    continue;
                }
                Err(error) => broken |= error.kind() != ErrorKind::WouldBlock,
            }
            break;
        }
        while replies.len() < wanted {
            let Some((reply, keep_alive)) = call.next() else {
                break;
            };
            broken |= !keep_alive;
            replies.push((reply, self.rt.now()));
        }
        match broken {
            true => Turn::Broken,
            false if replies.len() == wanted => Turn::Over,
            false => Turn::Wait(call.token),
        }
    }

    pub(super) fn hang_up(&mut self) {
        if let Some(call) = self.call.take() {
            self.net.close(call.token);
        }
    }
}

/// What to do next.
enum Turn {
    Wait(Token),
    /// Everything is answered.
    Over,
    /// No more answers will come this way.
    Broken,
}

impl Call {
    /// The next reply, and whether another may follow.
    fn next(&mut self) -> Option<(Reply, bool)> {
        let (next, consumed) = match self.answers.next(&self.input, Method::Get) {
            Got::NeedMore { consumed } => (None, consumed),
            Got::Interim { consumed } => {
                let reply = Reply::Nonsense("100 without being asked".to_owned());
                (Some((reply, false)), consumed)
            }
            Got::Answer { answer, consumed } => {
                (Some((reply(&answer), answer.keep_alive)), consumed)
            }
            Got::Bad { text } => (Some((Reply::Nonsense(text.to_owned()), false)), 0),
        };
        self.input.drain(..consumed);
        next
    }
}

fn reply(answer: &Answer<'_>) -> Reply {
    let field = answer.field("X-KV-Version");
    let version = field.map(|text| std::str::from_utf8(text).ok().and_then(parse_version));
    match version {
        Some(None) => Reply::Nonsense("X-KV-Version is none".to_owned()),
        other => Reply::Answer {
            status: answer.status,
            version: other.flatten(),
            body: answer.body.to_vec(),
        },
    }
}

/// As `Display` of [`Version`] spells it.
fn parse_version(text: &str) -> Option<Version> {
    let (hlc, origin) = text.split_once('.')?;
    Some(Version {
        hlc: u64::from_str_radix(hlc, 16).ok()?,
        origin: u32::from_str_radix(origin, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_back() {
        let version = Version {
            hlc: 0xfe_dcba,
            origin: 0x21,
        };
        assert_eq!(parse_version(&version.to_string()), Some(version));
        assert_eq!(parse_version("12"), None);
    }
}
