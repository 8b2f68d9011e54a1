//! The real program as a child process, and a client that sees its answers one by one.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kvstore::http::client::{Answers, Got};
use kvstore::http::request::Method;

/// Guard against hangs; no assertion depends on it while the program works.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::start_with("exec \"$0\" \"$@\"")
    }

    /// `shell`: what runs the program, so that limits can be set first.
    pub(crate) fn start_with(shell: &str) -> Server {
        // Somebody else may take the free port before the node does.
        (0..5)
            .find_map(|_| Server::try_start(shell))
            .expect("the node ended instead of starting")
    }

    fn try_start(shell: &str) -> Option<Server> {
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = Command::new("sh")
            .args(["-c", shell, env!("CARGO_BIN_EXE_kvstore"), "-dir", "data"])
            .args(["-port", &port.to_string(), "-listen", "127.0.0.1"])
            .args(["-host-names", "h,other,a-b_c.example.org"])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut server = Server {
            child,
            port,
            _dir: dir,
        };
        let mut lines = BufReader::new(server.child.stdout.take().unwrap()).lines();
        lines
            .any(|line| line.unwrap().contains("Node running on port"))
            .then_some(server)
    }

    pub(crate) fn connect(&self) -> Talk {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Talk {
            socket,
            answers: Answers::new(32 << 20),
            input: Vec::new(),
        }
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &str) -> Reply {
        let mut talk = self.connect();
        talk.send(request.as_bytes());
        match talk.hear(Method::Get) {
            Heard::Answer(reply) => reply,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    pub(crate) fn assert_serves(&self, after: &str) {
        assert_eq!(
            self.ask("GET /health HTTP/1.1\r\nHost: h\r\n\r\n").status,
            200,
            "after {after}"
        );
    }
}

/// One connection seen by a client.
pub(crate) struct Talk {
    pub(crate) socket: TcpStream,
    answers: Answers,
    input: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum Heard {
    Answer(Reply),
    Interim,
    /// The server sent FIN (or, with `true`, a reset).
    Closed {
        reset: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) keep_alive: bool,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.head).unwrap();
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

impl Talk {
    /// Sends as much as the server takes: it may have answered and closed in the middle of it.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.socket.write_all(bytes) {
            let gone = matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            );
            assert!(gone, "{error}");
        }
    }

    pub(crate) fn finish_sending(&mut self) {
        // The server may be gone already.
        drop(self.socket.shutdown(Shutdown::Write));
    }

    pub(crate) fn hear(&mut self, to: Method) -> Heard {
        loop {
            match self.answers.next(&self.input, to) {
                Got::Answer { answer, consumed } => {
                    let reply = Reply {
                        status: answer.status,
                        keep_alive: answer.keep_alive,
                        head: answer.fields().to_vec(),
                        body: answer.body.to_vec(),
                    };
                    self.input.drain(..consumed);
                    return Heard::Answer(reply);
                }
                Got::Interim { consumed } => {
                    self.input.drain(..consumed);
                    return Heard::Interim;
                }
                Got::NeedMore { consumed } => {
                    self.input.drain(..consumed);
                }
                Got::Bad { text } => panic!("{text}: {}", self.input.escape_ascii()),
            }
            let mut piece = [0; 4096];
            match self.socket.read(&mut piece) {
                Ok(0) => return Heard::Closed { reset: false },
                Ok(read) => self.input.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Heard::Closed { reset: true };
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Whether the connection still serves: asked with one more request.
    pub(crate) fn is_kept(&mut self) -> bool {
        self.send(b"OPTIONS /health HTTP/1.1\r\nHost: h\r\n\r\n");
        match self.hear(Method::Options) {
            Heard::Answer(reply) => {
                assert_eq!(reply.status, 204, "an answer too many: {reply:?}");
                true
            }
            Heard::Interim => panic!("an interim answer to nothing"),
            Heard::Closed { .. } => false,
        }
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Kept,
    Closed,
    /// The client says it is done; the server then closes too.
    HalfClosed,
}

impl Server {
    /// Sends the bytes and expects exactly these answers, then this end.
    pub(crate) fn exchange(
        &self,
        name: &str,
        bytes: &[u8],
        want: &[(Method, u16)],
        end: End,
    ) -> Vec<Reply> {
        let mut talk = self.connect();
        talk.send(bytes);
        if end == End::HalfClosed {
            talk.finish_sending();
        }
        let mut replies = Vec::new();
        for (n, &(method, status)) in want.iter().enumerate() {
            match talk.hear(method) {
                Heard::Answer(reply) => {
                    assert_eq!(reply.status, status, "{name}: answer {n}: {reply:?}");
                    replies.push(reply);
                }
                other => panic!("{name}: answer {n} of {}: {other:?}", want.len()),
            }
        }
        let says_keep = replies.last().is_none_or(|reply| reply.keep_alive);
        match end {
            End::Kept => assert!(says_keep && talk.is_kept(), "{name}: closed"),
            End::Closed => assert!(!says_keep && !talk.is_kept(), "{name}: kept"),
            End::HalfClosed => assert!(!talk.is_kept(), "{name}: kept"),
        }
        self.assert_serves(name);
        replies
    }
}

pub(crate) const GET: Method = Method::Get;

/// Of JSON text: both are put between quotes as they are.
pub(crate) fn put_request(key: &str, value: &str) -> String {
    let body = format!(r#"{{"key":"{key}","value":"{value}"}}"#);
    let length = body.len();
    format!("POST /put HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}")
}

pub(crate) fn get_request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")
}
