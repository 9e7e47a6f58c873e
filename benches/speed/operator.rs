//! The operator as a child process, and what the kernel says of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::{LIMIT, wait};
use crate::support::operator::binary;

/// Nothing has changed for so long: it is at rest.
const AT_REST: Duration = Duration::from_secs(2);

/// Ended when dropped.
pub struct Operator {
    child: Child,
    log: PathBuf,
}

/// Of a process, in KiB.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    /// Resident, pages of the program file included.
    pub resident: usize,
    /// Of these, what the program has allocated.
    pub anonymous: usize,
    /// The most that was ever resident.
    pub peak: usize,
}

impl Operator {
    /// Started and with its first lists in.
    pub fn start(arguments: &[&str]) -> Operator {
        Self::start_at(None, arguments)
    }

    /// The same, perhaps with another cluster than that of all other measurements.
    pub fn start_at(kubeconfig: Option<&Path>, arguments: &[&str]) -> Operator {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("quarks-job-bench-{}-{number}.log", std::process::id()));
        let file = std::fs::File::create(&log).expect("a log file");
        let mut command = Command::new(binary());
        command.args(["--monitored-id", "bench", "--image", "bench:none"]).args(arguments);
        if let Some(kubeconfig) = kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let child = command.stderr(file).stdout(Stdio::null()).spawn().expect("the operator starts");
        let operator = Operator { child, log };
        wait("the operator's caches", || operator.log_line("caches synced").is_some());
        operator
    }

    /// Memory once CPU time and memory have stopped changing.
    pub fn settled(&self) -> Memory {
        let begun = Instant::now();
        let (mut last, mut since) = ((0, 0), Instant::now());
        while since.elapsed() < AT_REST {
            let now = (self.memory().resident, self.ticks());
            let late = "waited too long for the operator to come to rest";
            assert!(begun.elapsed() < LIMIT, "{late}: KiB and ticks were {last:?}, {:?} later {now:?}", since.elapsed());
            // Its clocks cost a tick now and then.
            if now.0 != last.0 || now.1 > last.1 + 1 {
                (last, since) = (now, Instant::now());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        self.memory()
    }

    /// As it is now.
    pub fn memory(&self) -> Memory {
        let status = self.proc("status");
        let of = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        Memory { resident: of("VmRSS:"), anonymous: of("RssAnon:"), peak: of("VmHWM:") }
    }

    /// CPU time so far, user and system, in ticks of a hundredth of a second.
    pub fn ticks(&self) -> u64 {
        let stat = self.proc("stat");
        // The name in parentheses may hold blanks.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().skip(11).take(2).filter_map(|number| number.parse::<u64>().ok()).sum()
    }

    /// The text of a page of `--http-listen`.
    pub fn page(&self, path: &str) -> String {
        let line = self.log_line("HTTP server listening").expect("the operator was started with --http-listen");
        let address = line.split_once("address=").map_or("", |(_, address)| address);
        let mut stream = TcpStream::connect(address).expect("the operator listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
    }

    fn log_line(&self, text: &str) -> Option<String> {
        let log = std::fs::read_to_string(&self.log).ok()?;
        log.lines().find(|line| line.contains(text)).map(str::to_owned)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::env::var_os("BENCH_KEEP_LOGS").is_none() {
            let _ = std::fs::remove_file(&self.log);
        }
    }
}
