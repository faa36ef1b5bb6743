//! What a process uses: resident memory and CPU time, from `/proc`; what Postgres wrote is read in
//! [`crate::store::bench`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Clock ticks a second in `/proc/*/stat`; Linux has had no other value on any platform since 2.6.
const TICKS: u64 = 100;

/// Bytes of memory that this machine has. `None`: the system has no `/proc`.
pub fn total() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemTotal:")
}

/// Bytes of memory that can be had without swapping.
pub fn available() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

fn kilobytes(file: impl AsRef<Path>, field: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A process to look at.
#[derive(Clone, Debug)]
pub struct Process {
    proc: PathBuf,
}

impl Process {
    /// This one.
    pub fn own() -> Self {
        Self { proc: "/proc/self".into() }
    }

    /// Another one.
    pub fn of(pid: u32) -> Self {
        Self { proc: format!("/proc/{pid}").into() }
    }

    /// Resident memory in bytes. `None`: it has gone, or the system has no `/proc`.
    pub fn rss(&self) -> Option<u64> {
        self.status("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    pub fn rss_peak(&self) -> Option<u64> {
        self.status("VmHWM:")
    }

    /// CPU time of all its threads, in user and kernel, to 10 ms.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(self.proc.join("stat")).ok()?;
        // After the name, which may hold anything, in brackets.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |n: usize| fields.get(n)?.parse::<u64>().ok();
        Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS))
    }

    fn status(&self, field: &str) -> Option<u64> {
        kilobytes(self.proc.join("status"), field)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_to_take_memory_and_time() {
        let own = Process::own();
        let before = own.rss().unwrap();
        let block = vec![1_u8; 64 << 20];
        let mut sum = 0_u64;
        let started = own.cpu().unwrap();
        while own.cpu().unwrap() - started < Duration::from_millis(30) {
            sum += block.iter().map(|b| u64::from(*b)).sum::<u64>();
        }
        assert!(sum > 0 && own.rss().unwrap() > before + (48 << 20));
        assert!(own.rss_peak().unwrap() >= own.rss().unwrap());
        assert!(Process::of(u32::MAX).rss().is_none());
    }
}
