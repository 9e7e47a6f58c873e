//! The real binary as a child process: start, restart, signals, captured output; and waiting for conditions.
//! Ends only the process it started, by its id.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::faults::Callback;

/// Long, because it is reached only when a test fails; machines are slow and shared.
pub const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// The program under test: the one that cargo built for the tests, or that of `QUARKS_JOB_BINARY`. `scripts/bench` measures the static
/// program with it, and `scripts/test` runs the one for arm64.
pub fn binary() -> String {
    std::env::var("QUARKS_JOB_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_quarks-job").to_owned())
}

pub struct Operator {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    user: Option<u32>,
    child: Arc<Mutex<Option<Child>>>,
    log: Arc<Mutex<String>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

impl Operator {
    /// Not yet started. The environment is empty but for what `env` adds.
    pub fn new(program: impl Into<PathBuf>) -> Operator {
        Operator {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            user: None,
            child: Arc::default(),
            log: Arc::default(),
            readers: Mutex::default(),
        }
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Operator {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Operator {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// As this user, from a copy in `folder`: the build folder may be closed to other users. The test has to be root.
    pub fn user(mut self, user: u32, folder: &Path) -> Operator {
        let copy = folder.join("program");
        make_program(&copy, &std::fs::read(&self.program).expect("the program read"));
        self.program = copy;
        self.user = Some(user);
        self
    }

    /// Started by a shell that first does this.
    pub fn after(mut self, command: &str) -> Operator {
        let program = std::mem::replace(&mut self.program, "/bin/sh".into());
        let first = ["-c".to_owned(), format!("{command}; exec \"$0\" \"$@\""), program.to_string_lossy().into_owned()];
        self.args.splice(..0, first);
        self
    }

    pub fn kubeconfig(self, path: &Path) -> Operator {
        self.arg("--kubeconfig").arg(path.to_string_lossy())
    }

    /// Starts the process, also again after it has ended.
    pub fn start(&self) {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user);
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        self.capture(child.stdout.take().expect("piped"));
        self.capture(child.stderr.take().expect("piped"));
        let before = self.slot().replace(child);
        assert!(before.is_none(), "already running");
    }

    pub fn pid(&self) -> Option<u32> {
        self.slot().as_ref().map(Child::id)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill9(&self) {
        kill(&self.child);
    }

    /// For `Fault::KillBefore` and `KillAfter`; may be made before the process is started.
    pub fn killer(&self) -> Callback {
        let child = Arc::clone(&self.child);
        Arc::new(move || kill(&child))
    }

    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    /// By name, as kill(1) takes it: TERM, STOP, CONT, ...
    pub fn signal(&self, name: &str) {
        let pid = self.pid().expect("running").to_string();
        let sent = Command::new("/bin/kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("/bin/kill runs").success(), "SIG{name} to {pid}");
    }

    /// SIGSTOP; returns when every thread stands still. The signal alone takes effect thread by thread.
    pub fn freeze(&self) {
        self.signal("STOP");
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid().expect("running")));
        let is_stopped = |task: &Path| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            // The name in brackets may hold anything; the state follows it.
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        self.wait_for("all threads to stop", || {
            let all = std::fs::read_dir(&tasks).ok()?.flatten().all(|task| is_stopped(&task.path()));
            all.then_some(())
        });
    }

    /// The end of the process, if it comes within `limit`; all that it wrote is in the log then.
    pub fn wait_exit(&self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let mut slot = self.slot();
            let status = slot.as_mut()?.try_wait().expect("our child");
            if status.is_some() {
                *slot = None;
                for reader in self.readers.lock().expect("readers").drain(..) {
                    reader.join().expect("the log read to its end");
                }
                return status;
            }
            drop(slot);
            if start.elapsed() > limit {
                return None;
            }
            thread::park_timeout(POLL);
        }
    }

    /// Whether it still runs; a process that a fault has killed does not.
    pub fn is_running(&self) -> bool {
        let mut slot = self.slot();
        slot.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Standard output and standard error of all starts, by line.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    /// Like `wait_for_within` with the usual limit; a failure shows the last log lines.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, check: impl FnMut() -> Option<T>) -> T {
        poll(LIMIT, check).unwrap_or_else(|| {
            let log = self.log();
            let mut tail: Vec<&str> = log.lines().rev().take(30).collect();
            tail.reverse();
            let state = if self.is_running() { "running" } else { "not running" };
            panic!("waited {LIMIT:?} for {what}; process {state}; log ends:\n{}", tail.join("\n"))
        })
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().expect("child")
    }

    fn capture(&self, pipe: impl Read + Send + 'static) {
        let log = Arc::clone(&self.log);
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut log = log.lock().expect("log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.readers.lock().expect("readers").push(reader);
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        kill(&self.child);
    }
}

fn kill(child: &Mutex<Option<Child>>) {
    // A panicking test may have poisoned the lock; the process must end all the same.
    let slot = child.lock();
    let slot = slot.unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(mut child) = slot {
        child.kill().ok();
        child.wait().ok();
    }
}

/// Makes a file that can be executed. A process of its own writes it: what another test starts meanwhile would inherit ours while it is
/// open for writing, and Linux executes no such file (ETXTBSY).
pub fn make_program(path: &Path, content: &[u8]) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().expect("a shell");
    shell.stdin.take().expect("piped").write_all(content).expect("it reads all");
    assert!(shell.wait().expect("our child").success(), "{} could not be written", path.display());
}

/// Waits for a condition with the usual limit.
#[track_caller]
pub fn wait_for<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    wait_for_within(LIMIT, what, check)
}

#[track_caller]
pub fn wait_for_within<T>(limit: Duration, what: &str, check: impl FnMut() -> Option<T>) -> T {
    poll(limit, check).unwrap_or_else(|| panic!("waited {limit:?} for {what}"))
}

fn poll<T>(limit: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = check();
        if found.is_some() || start.elapsed() > limit {
            return found;
        }
        thread::park_timeout(POLL);
    }
}
