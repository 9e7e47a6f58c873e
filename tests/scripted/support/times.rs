//! How long each test takes, for the table that `scripts/test` prints: libtest says it only with a nightly compiler.

use std::cell::OnceCell;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::thread;
use std::time::Instant;

/// Names a file to which each test adds a line: its seconds and its name.
const FILE: &str = "QUARKS_TEST_TIMES";

thread_local! {
    static TEST: OnceCell<Test> = const { OnceCell::new() };
}

/// Ends with its thread, and libtest has a thread for each test.
struct Test {
    name: String,
    start: Instant,
}

impl Drop for Test {
    fn drop(&mut self) {
        let Some(path) = std::env::var_os(FILE) else { return };
        // One write a line: tests end at the same time.
        let line = format!("{:.1} {}\n", self.start.elapsed().as_secs_f64(), self.name);
        let file = OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// To be called where a test makes its server or namespace; the first call of a test counts.
pub fn begin() {
    // What a test starts has no name, or is not worth a line.
    let current = thread::current();
    let Some(name) = current.name().filter(|name| name.contains("::")) else { return };
    TEST.with(|test| {
        test.get_or_init(|| Test { name: name.to_owned(), start: Instant::now() });
    });
}
