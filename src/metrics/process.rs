//! What Linux reports about this process, under the names of Prometheus' own clients. What it does not report is left out.

use std::fs;

/// Clock ticks in a second, as `/proc` counts them: the same on all architectures that we build for.
const TICKS: u64 = 100;

/// The numbers of one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// User and system time in hundredths of a second.
    pub cpu: Option<u64>,
    /// Bytes.
    pub resident: Option<u64>,
    /// Bytes.
    pub virtual_size: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// As many may be open.
    pub max_fds: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let text = |name: &str| fs::read_to_string(name).unwrap_or_default();
        let mut process = Self::parse(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/self/limits"));
        // One of them is the folder itself, open only to be counted.
        process.open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1));
        process
    }

    fn parse(stat: &str, status: &str, limits: &str) -> Self {
        let resident = word_after(status, "VmRSS:").and_then(|kib| kib.parse::<u64>().ok()?.checked_mul(1_024));
        let cpu = number(stat, 14).and_then(|user| user.checked_add(number(stat, 15)?));
        let max_fds = word_after(limits, "Max open files").and_then(|soft| soft.parse().ok());
        Self { cpu, resident, virtual_size: number(stat, 23), open_fds: None, max_fds }
    }
}

/// When this process started, in hundredths of a second since 1970.
pub(super) fn start_time() -> Option<u64> {
    start_time_in(&fs::read_to_string("/proc/stat").ok()?, &fs::read_to_string("/proc/self/stat").ok()?)
}

fn start_time_in(machine: &str, stat: &str) -> Option<u64> {
    let boot: u64 = word_after(machine, "btime")?.parse().ok()?;
    boot.checked_mul(TICKS)?.checked_add(number(stat, 22)?)
}

/// The n-th field of `/proc/self/stat`, counted from 1 as proc(5) does. The second is the program's name in brackets and may
/// hold anything, brackets and spaces too.
fn number(stat: &str, field: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(field - 3)?.parse().ok()
}

/// The first word after `start` on the line that starts with it.
fn word_after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(start))?.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 150 25 0 0 20 0 9 0 4200 9000000 512 18446744073709551615 1 1";

    #[test]
    fn numbers_are_found() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        let found = Process::parse(STAT, "Name:\ta\nVmRSS:\t    2048 kB\n", limits);
        let expected =
            Process { cpu: Some(175), resident: Some(2_097_152), virtual_size: Some(9_000_000), open_fds: None, max_fds: Some(1_024) };
        assert_eq!(found, expected);
        assert_eq!(start_time_in("cpu 1 2\nbtime 1700000000\n", STAT), Some(170_000_004_200));
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        assert_eq!(Process::parse("", "", ""), Process::default());
        assert_eq!(Process::parse("7 (a) S 1", "VmRSS:\n", "Max open files   unlimited   unlimited"), Process::default());
        assert_eq!(start_time_in("", STAT), None);
        assert_eq!(start_time_in("btime 1", "7 (a) S"), None);
    }
}
