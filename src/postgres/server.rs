//! The server process: how it is started, watched while it comes up, and ended.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::error::{At as _, Error};
use super::running::{PidFile, answers};
use super::{POLL, START, os};

/// How long a fast shutdown may take before the server is told to stop at once.
const STOP: Duration = Duration::from_secs(20);
/// Longest path of a Unix socket that every system takes.
const SOCKET_PATH_MAX: usize = 100;
/// Taken for a machine's memory when the system does not tell.
const MEMORY_LEAST: u64 = 2 << 30;
/// A log longer than this is set aside at the next start.
const LOG_MAX: u64 = 8 << 20;

/// The thread that spawned the server and lives as long as it is wanted: the parent-death signal comes when the spawning
/// *thread* ends, so that no thread of a pool may do it.
pub(super) struct Keeper {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was printed, and there is nothing to be done about it here.
            let _ = thread.join();
        }
    }
}

/// Starts the server and waits until it answers.
pub(super) fn launch(
    bin: &Path,
    data: &Path,
    user: Option<(u32, u32)>,
    durable: bool,
    port: u16,
) -> Result<Keeper, Error> {
    let log = open_log(data, user)?;
    let mut command = server_command(bin, data, user, durable, port);
    command.stdout(log.try_clone().at("share the log of", data)?).stderr(log);
    let (stop, stopped) = mpsc::channel::<()>();
    let (started, start) = mpsc::channel();
    let directory = data.to_owned();
    let thread = thread::Builder::new()
        .name("postgres-keeper".to_owned())
        .spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let _ = started.send(Err(failed(&directory, format!("cannot run it: {error}"))));
                    return;
                }
            };
            let up = wait_until_up(&mut child, &directory, port);
            let failed = up.is_err();
            // Nobody hears it when the one who started us has gone: then the channel below is closed as well.
            let _ = started.send(up);
            if !failed {
                // Until the sender is dropped.
                let _ = stopped.recv();
            }
            end(&mut child);
        })
        .at("start a thread for", data)?;
    let keeper = Keeper { stop: Some(stop), thread: Some(thread) };
    match start.recv() {
        Ok(Ok(())) => Ok(keeper),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(failed(data, "its keeper panicked".to_owned())),
    }
}

/// Waits until the child takes connections; the postmaster says so in its pid file.
fn wait_until_up(child: &mut Child, data: &Path, port: u16) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        if let Some(status) = exited(child) {
            return Err(failed(data, format!("it ended with {status}")));
        }
        let ours = PidFile::read(data).is_some_and(|f| f.pid == child.id().cast_signed() && f.ready);
        if ours && answers(port) {
            return Ok(());
        }
        if begun.elapsed() > START {
            return Err(failed(data, format!("no answer on port {port} after {} s", START.as_secs())));
        }
        thread::sleep(POLL);
    }
}

/// Ends the child: a fast shutdown, and if that takes too long, an immediate one.
fn end(child: &mut Child) {
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        os::signal(child.id().cast_signed(), signal);
        let begun = Instant::now();
        while begun.elapsed() < STOP {
            if exited(child).is_some() {
                return;
            }
            thread::sleep(POLL);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The child's end, if it came. A child that cannot be waited for counts as running.
fn exited(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().ok().flatten()
}

/// The command that runs the server.
fn server_command(bin: &Path, data: &Path, user: Option<(u32, u32)>, durable: bool, port: u16) -> Command {
    // A socket path that is too long keeps the server from starting; TCP is enough then.
    let sockets = if data.as_os_str().len() + ".s.PGSQL.65535.lock".len() < SOCKET_PATH_MAX {
        data.to_string_lossy().into_owned()
    } else {
        String::new()
    };
    let mut settings = vec![
        format!("port={port}"),
        format!("unix_socket_directories={sockets}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_permissions=0700".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        "jit=off".to_owned(),
    ];
    if durable {
        settings.extend(sized(os::memory().unwrap_or(MEMORY_LEAST), os::free_disk(data).unwrap_or(u64::MAX)));
    }
    let more: &[&str] = if durable {
        // A checkpoint makes the next change of every page write the whole page: rare checkpoints are worth a longer
        // recovery. Commits stay durable.
        &["max_connections=100", "checkpoint_timeout=20min", "wal_compression=on", "synchronous_commit=on"]
    } else {
        &[
            "max_connections=300",
            "shared_buffers=128MB",
            "max_wal_size=1GB",
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "autovacuum_naptime=10s",
        ]
    };
    settings.extend(more.iter().map(|&s| s.to_owned()));
    let mut command = os::as_user(&bin.join("postgres"), user);
    command.arg("-D").arg(data);
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    // Its own process group: Ctrl-C reaches us first, and we stop it when we are done with it.
    command.stdin(Stdio::null()).process_group(0);
    os::die_with_parent(&mut command);
    command
}

/// What depends on the machine: buffers of an eighth of the memory, and a log between two checkpoints of several gigabytes,
/// but not more than a tenth of the disk that is free.
fn sized(memory: u64, free: u64) -> [String; 3] {
    let megabytes = |bytes: u64, least: u64, most: u64| (bytes >> 20).clamp(least, most);
    [
        format!("shared_buffers={}MB", megabytes(memory / 8, 128, 4096)),
        format!("effective_cache_size={}MB", megabytes(memory / 2, 256, 65_536)),
        format!("max_wal_size={}MB", megabytes(free / 10, 1024, 8192)),
    ]
}

/// The server's log, for appending.
fn open_log(data: &Path, user: Option<(u32, u32)>) -> Result<File, Error> {
    let path = data.join("postgres.log");
    if fs::metadata(&path).is_ok_and(|m| m.len() > LOG_MAX) {
        let _ = fs::rename(&path, data.join("postgres.log.1"));
    }
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).at("open", &path)?;
    if let Some((uid, gid)) = user {
        chown(&path, Some(uid), Some(gid)).at("hand over", &path)?;
    }
    Ok(log)
}

/// A failed start, with the end of the log.
fn failed(data: &Path, reason: String) -> Error {
    let tail = || -> io::Result<String> {
        let mut file = File::open(data.join("postgres.log"))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(2048)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(10)..].join("\n"))
    };
    Error::Start { data_dir: data.to_owned(), reason, log: tail().unwrap_or_else(|_| "(no log)".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_fit_the_machine() {
        assert_eq!(
            sized(24 << 30, 60 << 30),
            ["shared_buffers=3072MB", "effective_cache_size=12288MB", "max_wal_size=6144MB"]
        );
        assert_eq!(
            sized(512 << 20, 1 << 30),
            ["shared_buffers=128MB", "effective_cache_size=256MB", "max_wal_size=1024MB"]
        );
        assert_eq!(sized(1 << 40, u64::MAX)[0], "shared_buffers=4096MB");
    }
}
