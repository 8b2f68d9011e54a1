//! Nodes as child processes.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Connection;

/// A start, or a stop, that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for one test, below `target/tmp`, removed at its end.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp is writable")
}

/// The program, in `cwd` (where it looks for `.env`), without this process' settings in its environment.
/// `KVSTORE_BIN` names another build of it, such as the release build.
pub(crate) fn command(cwd: &Path) -> Command {
    let built = || env!("CARGO_BIN_EXE_kvstore").into();
    let mut command = Command::new(std::env::var_os("KVSTORE_BIN").unwrap_or_else(built));
    command.current_dir(cwd).env_clear().stdin(Stdio::null());
    command
}

/// Runs the program to its end: for starts that fail and for `-help`.
pub(crate) fn output(command: &mut Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    wait(&mut child);
    child.wait_with_output().expect("its output is readable")
}

/// A port that was free a moment ago, on both loopback addresses.
pub(crate) fn free_port() -> u16 {
    loop {
        let v4 = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = v4.local_addr().expect("it has an address").port();
        if TcpListener::bind(("::1", port)).is_ok() || TcpListener::bind("[::1]:0").is_err() {
            return port;
        }
    }
}

/// A running node. Killed when dropped.
pub(crate) struct Node {
    child: Child,
    pub(crate) port: u16,
    pub(crate) cwd: PathBuf,
}

impl Node {
    /// Starts a node on `<cwd>/data` and waits until it serves. `settings` are environment variables,
    /// `flags` go last on the command line.
    pub(crate) fn start(cwd: &Path, settings: &[(&str, &str)], flags: &[&str]) -> Node {
        // Another process may take the port between the look and the start: then look again.
        for _ in 0..10 {
            let port = free_port();
            match Node::try_start(cwd, port, settings, flags) {
                Ok(node) => return node,
                Err(text) if text.contains("is in use") => {}
                Err(text) => panic!("the node does not start:\n{text}"),
            }
        }
        panic!("no free port stays free");
    }

    /// [`Node::start`] after what a shell does first (`ulimit`).
    pub(crate) fn start_under(before: &str, cwd: &Path, flags: &[&str]) -> Node {
        let port = free_port();
        let mut shell = Command::new("bash");
        let script = format!("{before} && exec \"$0\" \"$@\"");
        shell
            .current_dir(cwd)
            .env_clear()
            .stdin(Stdio::null())
            .args(["-c", &script])
            .arg(env!("CARGO_BIN_EXE_kvstore"));
        match Node::try_run(shell, cwd, port, flags) {
            Ok(node) => node,
            Err(text) => panic!("the node does not start:\n{text}"),
        }
    }

    /// The same on a given port; the error is everything the node printed.
    pub(crate) fn try_start(
        cwd: &Path,
        port: u16,
        settings: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<Node, String> {
        let mut program = command(cwd);
        program.envs(settings.iter().copied());
        Node::try_run(program, cwd, port, flags)
    }

    /// The same by a command that ends in the program (`ip netns exec`).
    pub(crate) fn try_run(
        program: Command,
        cwd: &Path,
        port: u16,
        flags: &[&str],
    ) -> Result<Node, String> {
        let running = format!("kv-store Node running on port {port}\n");
        let mut node = Node::spawn(program, cwd, port, flags);
        match node.has_printed(&running) {
            true => Ok(node),
            false => Err(node.printed()),
        }
    }

    /// Starts a node and kills it as soon as it has printed its settings: while it recovers.
    pub(crate) fn start_and_kill(cwd: &Path, settings: &[(&str, &str)]) {
        let mut program = command(cwd);
        program.envs(settings.iter().copied());
        let mut node = Node::spawn(program, cwd, free_port(), &[]);
        assert!(node.has_printed("Starting..."), "{}", node.printed());
        node.kill();
    }

    fn spawn(mut program: Command, cwd: &Path, port: u16, flags: &[&str]) -> Node {
        let printed = cwd.join("printed");
        File::create(&printed).expect("the scratch directory is writable");
        let to = || {
            let file = File::options().append(true).open(&printed);
            Stdio::from(file.expect("just created"))
        };
        let child = program
            .args(["-port", &port.to_string(), "-dir", "./data"])
            .args(flags)
            .stdout(to())
            .stderr(to())
            .spawn()
            .expect("the program starts");
        Node {
            child,
            port,
            cwd: cwd.to_path_buf(),
        }
    }

    /// Waits until `text` is among what the node printed; false when it ends or dawdles without.
    fn has_printed(&mut self, text: &str) -> bool {
        let since = Instant::now();
        loop {
            let ended = self.child.try_wait().expect("it is our child").is_some();
            if self.printed().contains(text) {
                return true;
            }
            if ended || since.elapsed() > PATIENCE {
                return false;
            }
            pause();
        }
    }

    /// Everything on stdout and stderr so far.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(self.cwd.join("printed")).expect("it was created before the start")
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.port).expect("a running node accepts")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, as the power cut of a process.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()
            .expect("there is a shell");
        assert!(sent.success(), "kill -{name}");
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        wait(&mut self.child)
    }

    /// The exit status of a node that ends by itself.
    pub(crate) fn ended(mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // An error means that it has ended already, which is what is wanted.
        self.child.kill().unwrap_or_default();
        self.child.wait().expect("it is our child");
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        if since.elapsed() > PATIENCE {
            child.kill().expect("it is our child");
            panic!("the program does not end");
        }
        pause();
    }
}

/// Between two looks at something that offers no way to wait for it.
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
