//! Users, signals, the death of a parent, and what the machine has: what the standard library has hardly a word for. All of the program's unsafe
//! code.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Of a system without a user `postgres`: nobody.
const NOBODY: (u32, u32) = (65_534, 65_534);

/// Whether we are root.
pub(super) fn is_root() -> bool {
    // SAFETY: takes nothing, cannot fail, touches no memory.
    #[expect(unsafe_code, reason = "the standard library does not tell the user id")]
    let uid = unsafe { libc::geteuid() };
    uid == 0
}

/// Whom the server has to run as; `None`: as ourselves.
pub(super) fn server_user() -> Option<(u32, u32)> {
    if !is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(found.unwrap_or(NOBODY))
}

/// A command that runs as the server's user. In `/`, because that user may not be able to enter our directory.
pub(super) fn as_user(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env_remove("PGDATA").env_remove("PGPORT").env("LC_ALL", "C");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Sends a signal to a process; one that has gone is no error.
pub(super) fn signal(pid: i32, signal: i32) -> bool {
    // SAFETY: takes two numbers and touches no memory of ours. Callers hand in the pid of a child that they have not
    // waited for yet, or signal 0, which only asks.
    #[expect(unsafe_code, reason = "the standard library sends SIGKILL only")]
    let answer = unsafe { libc::kill(pid, signal) };
    answer == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Whether this process is a Postgres server on this directory.
pub(super) fn is_server(pid: i32, data: &Path) -> bool {
    if pid <= 0 || !signal(pid, 0) {
        return false;
    }
    // The postmaster's working directory is its data directory. Where it cannot be read (macOS), the pid has to do.
    let process = Path::new("/proc").join(pid.to_string());
    if let Ok(name) = std::fs::read_to_string(process.join("comm"))
        && !matches!(name.trim(), "postgres" | "postmaster")
    {
        return false;
    }
    match (std::fs::read_link(process.join("cwd")), std::fs::canonicalize(data)) {
        (Ok(cwd), Ok(data)) => cwd == data,
        _ => true,
    }
}

/// Bytes that an ordinary user can still write where `path` is. `None`: the system does not tell.
pub(super) fn free_disk(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: both pointers are good for the call; the second one's target is written as a whole when the answer is 0,
    // and not read otherwise.
    #[expect(unsafe_code, reason = "the standard library does not tell free space")]
    let answer = unsafe {
        if libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) != 0 {
            return None;
        }
        answer.assume_init()
    };
    // Their types differ from system to system.
    #[expect(clippy::useless_conversion, reason = "not everywhere")]
    u64::try_from(answer.f_bavail).ok()?.checked_mul(u64::try_from(answer.f_frsize).ok()?)
}

/// Bytes of memory that this machine has. `None`: the system does not tell.
pub(super) fn memory() -> Option<u64> {
    // SAFETY: both calls take a number and answer one.
    #[expect(unsafe_code, reason = "the standard library does not tell the size of the memory")]
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).ok()?.checked_mul(u64::try_from(size).ok()?)
}

/// The command's process gets SIGINT (Postgres's fast shutdown) when the thread that spawned it ends.
#[cfg(target_os = "linux")]
pub(super) fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let ask = move || {
        // SAFETY: both calls take numbers only, allocate nothing and are async-signal-safe, as is asked of what runs
        // between fork and exec. Runs after the change of user, which would clear the signal.
        #[expect(unsafe_code, reason = "the standard library has no parent-death signal")]
        let orphaned = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT);
            libc::getppid().cast_unsigned() != parent
        };
        // We died before the signal was asked for: nobody wants this server.
        if orphaned { Err(std::io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
    };
    // SAFETY: `ask` does nothing but the two calls above.
    #[expect(unsafe_code, reason = "the standard library cannot know what is safe after fork")]
    unsafe {
        command.pre_exec(ask);
    }
}

/// Other systems have no such signal: a server that was left behind is found again by its pid file at the next start.
#[cfg(not(target_os = "linux"))]
pub(super) fn die_with_parent(_: &mut Command) {}
