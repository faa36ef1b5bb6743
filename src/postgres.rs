//! Finds the Postgres that is installed and runs a private cluster of it, for development, the demo and tests.
//!
//! Owns the data directory, the password beside it and the server process. The server dies with us, also when we are
//! killed; as root it runs as user `postgres`, because it refuses root. Called by the command line when no `DATABASE_URL`
//! is set, and by the tests. Speaks no SQL: to see that the server answers, the start of the wire protocol is enough.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// The superuser, and the database, of a private cluster.
const NAME: &str = "campaignd";
/// How long a start may take: recovery after a crash included.
const START: Duration = Duration::from_secs(30);
/// How long a fast shutdown may take before the server is told to stop at once.
const STOP: Duration = Duration::from_secs(20);
/// Between two looks at a starting or stopping server.
const POLL: Duration = Duration::from_millis(20);
/// Longest path of a Unix socket that every system takes.
const SOCKET_PATH_MAX: usize = 100;
/// A log longer than this is set aside at the next start.
const LOG_MAX: u64 = 8 << 20;

/// Which cluster to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory; made when it is missing.
    pub data_dir: PathBuf,
    /// `true`: keeps what is committed, and asks for a password. `false`: for tests. Faster, and a crash of the machine loses
    /// everything; anybody on this machine can connect.
    pub durable: bool,
}

impl Options {
    /// The durable cluster in [`default_data_dir`].
    pub fn durable() -> Self {
        Self { data_dir: default_data_dir(), durable: true }
    }

    /// A cluster for tests in `data_dir`.
    pub fn throwaway(data_dir: PathBuf) -> Self {
        Self { data_dir, durable: false }
    }
}

/// Why there is no private Postgres. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server is installed.
    #[error("no postgres is installed: type `{hint}`, or set CAMPAIGND_PG_BINDIR, or set DATABASE_URL to a server")]
    NotInstalled {
        /// The line to type on this system.
        hint: &'static str,
    },
    /// The cluster could not be made.
    #[error("cannot make a postgres cluster in {data_dir}: {output}")]
    Initdb {
        /// Where.
        data_dir: PathBuf,
        /// What initdb said.
        output: String,
    },
    /// The server did not come up.
    #[error("postgres in {data_dir} did not start: {reason}. end of its log:\n{log}")]
    Start {
        /// Where.
        data_dir: PathBuf,
        /// What was seen from outside.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
    /// The cluster belongs to another major version.
    #[error(
        "the cluster in {data_dir} was made by postgres {found}, but {installed} is installed: install {found}, or move \
         the directory away to start afresh"
    )]
    OtherVersion {
        /// Where.
        data_dir: PathBuf,
        /// Its version.
        found: String,
        /// Ours.
        installed: String,
    },
    /// The password of a running cluster cannot be read.
    #[error("cannot read the password in {path}: run as the user who made the cluster")]
    Password {
        /// The password's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or a process could not be handled.
    #[error("cannot {what}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

/// Where the private cluster lives: `CAMPAIGND_DATA_DIR`/pg; as root `/var/lib/campaignd/pg` (the server's own user cannot
/// enter /root); else `$XDG_DATA_HOME/campaignd/pg` or `~/.local/share/campaignd/pg`.
pub fn default_data_dir() -> PathBuf {
    let from = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = from("CAMPAIGND_DATA_DIR") {
        return std::path::absolute(&dir).unwrap_or(dir).join("pg");
    }
    if os::is_root() {
        return "/var/lib/campaignd/pg".into();
    }
    from("XDG_DATA_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(std::env::temp_dir)
        .join("campaignd/pg")
}

/// A running private cluster. Dropping it stops the server, if it is ours.
pub struct Private {
    url: String,
    data_dir: PathBuf,
    keeper: Option<Keeper>,
}

impl Private {
    /// Where to connect. Holds the password: not for logs.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The cluster's directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Whether this process runs the server; `false` when another campaignd does, and we only found it.
    pub fn is_owned(&self) -> bool {
        self.keeper.is_some()
    }

    /// Stops the server, after its open transactions were rolled back, and waits for it. Does nothing to another's server.
    pub fn stop(self) {
        drop(self);
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Private").field("data_dir", &self.data_dir).field("owned", &self.is_owned()).finish()
    }
}

/// The URL of the private cluster in `data_dir`, if it is running and its password is ours to read. Holds the password.
pub fn running_url(data_dir: &Path) -> Option<String> {
    let port = running_port(data_dir)?;
    answers(port).then(|| url(data_dir, port).ok()).flatten()
}

/// Runs the private cluster, and makes it first where there is none: half a second. One that is already running is used as
/// it is. Blocks until it takes connections, half a minute at the longest.
pub fn start(options: Options) -> Result<Private, Error> {
    let Options { data_dir, durable } = options;
    let binaries = find_binaries()?;
    let user = os::server_user();
    make_dirs(&data_dir, user)?;
    // Two processes that start together take turns; the second one finds the first one's server.
    let lock_path = beside(&data_dir, "lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).at("open", &lock_path)?;
    lock.lock().at("lock", &lock_path)?;

    if let Some(port) = wait_for_other(&data_dir) {
        let url = url(&data_dir, port)?;
        return Ok(Private { url, data_dir, keeper: None });
    }
    if data_dir.join("PG_VERSION").exists() {
        check_version(&binaries, &data_dir)?;
    } else {
        initialise(&binaries, &data_dir, user, durable)?;
    }
    let mut attempt = 1;
    let (keeper, port) = loop {
        // The port is free now, and may be gone when the server takes it: then it ends, and we take another.
        let port = free_port().at("find a free port for", &data_dir)?;
        match launch(&binaries, &data_dir, user, durable, port) {
            Ok(keeper) => break (keeper, port),
            Err(Error::Start { log, .. }) if attempt < 3 && log.contains("in use") => attempt += 1,
            Err(error) => return Err(error),
        }
    };
    let url = url(&data_dir, port)?;
    Ok(Private { url, data_dir, keeper: Some(keeper) })
}

/// The thread that spawned the server and lives as long as it is wanted: the parent-death signal comes when the spawning
/// *thread* ends, so that no thread of a pool may do it.
struct Keeper {
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
fn launch(bin: &Path, data: &Path, user: Option<(u32, u32)>, durable: bool, port: u16) -> Result<Keeper, Error> {
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
    let more: &[&str] = if durable {
        &["max_connections=100", "shared_buffers=512MB", "max_wal_size=4GB", "wal_compression=on"]
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
    let mut command = as_user(&bin.join("postgres"), user);
    command.arg("-D").arg(data);
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    // Its own process group: Ctrl-C reaches us first, and we stop it when we are done with it.
    command.stdin(Stdio::null()).process_group(0);
    os::die_with_parent(&mut command);
    command
}

/// Makes the cluster and its database: beside its place first, so that one that was left half-made is never taken for one.
fn initialise(bin: &Path, data: &Path, user: Option<(u32, u32)>, durable: bool) -> Result<(), Error> {
    if fs::read_dir(data).at("read", data)?.next().is_some() {
        return Err(Error::Initdb {
            data_dir: data.to_owned(),
            output: "the directory is neither empty nor a cluster: empty it, or set CAMPAIGND_DATA_DIR".to_owned(),
        });
    }
    let fresh = beside(data, "new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).at("remove", &fresh)?;
    }
    make_dirs(&fresh, user)?;
    let mut initdb = as_user(&bin.join("initdb"), user);
    // Names of people are lower-cased in here; only Linux has this locale everywhere.
    let locale = if cfg!(target_os = "linux") { "C.UTF-8" } else { "C" };
    initdb.arg("-D").arg(&fresh).args(["-U", NAME, "-E", "UTF8", "--locale", locale, "--no-instructions"]);
    if durable {
        let path = beside(data, "password");
        let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        write_private(&path, &password, user)?;
        initdb.args(["-A", "scram-sha-256"]).arg("--pwfile").arg(&path);
    } else {
        initdb.args(["-A", "trust", "--no-sync"]);
    }
    let out = initdb.stdin(Stdio::null()).output().at("run initdb for", data)?;
    if !out.status.success() {
        return Err(initdb_failed(data, &out.stderr));
    }
    // Our own database, made before there is a server to connect to.
    let mut single = as_user(&bin.join("postgres"), user);
    single.args(["--single", "-D"]).arg(&fresh).arg("postgres");
    single.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = single.spawn().at("run postgres for", data)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(format!("CREATE DATABASE {NAME}\n").as_bytes()).at("talk to postgres for", data)?;
    }
    let out = child.wait_with_output().at("run postgres for", data)?;
    if !out.status.success() {
        return Err(initdb_failed(data, &out.stderr));
    }
    fs::rename(&fresh, data).at("move the new cluster to", data)
}

fn initdb_failed(data: &Path, stderr: &[u8]) -> Error {
    let mut output = String::from_utf8_lossy(stderr).trim().to_owned();
    if output.contains("ermission denied") && os::is_root() {
        output.push_str(" (as root, the server runs as user postgres, who must be able to enter the directory)");
    }
    Error::Initdb { data_dir: data.to_owned(), output }
}

/// A server of another process on this directory: its port. Waits for one that is just starting or stopping. A pid file
/// that no server stands behind (a killed server whose number another program has now) is removed.
fn wait_for_other(data: &Path) -> Option<u16> {
    let begun = Instant::now();
    while let Some(file) = PidFile::read(data) {
        if !os::is_server(file.pid, data) {
            let _ = fs::remove_file(data.join("postmaster.pid"));
            return None;
        }
        if file.ready && answers(file.port) {
            return Some(file.port);
        }
        if begun.elapsed() > START {
            return None;
        }
        thread::sleep(POLL);
    }
    None
}

/// The port of the server that runs on this directory and is ready.
fn running_port(data: &Path) -> Option<u16> {
    PidFile::read(data).filter(|f| f.ready && os::is_server(f.pid, data)).map(|f| f.port)
}

/// What a running server writes into `postmaster.pid`.
struct PidFile {
    pid: i32,
    port: u16,
    ready: bool,
}

impl PidFile {
    /// Lines: pid, directory, start, port, socket directory, address, memory key, state.
    fn read(data: &Path) -> Option<Self> {
        let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok()?,
            port: lines.get(3).and_then(|l| l.parse().ok()).unwrap_or(0),
            ready: lines.get(7).is_some_and(|l| *l == "ready"),
        })
    }
}

/// Whether a server on this port takes connections: sends the protocol's start-up message and looks at the first byte of the
/// answer. `R` asks for authentication; a server that is starting or stopping says `E`.
fn answers(port: u16) -> bool {
    let ask = || -> io::Result<bool> {
        let wait = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), wait)?;
        stream.set_read_timeout(Some(wait))?;
        let parameters = format!("user\0{NAME}\0database\0{NAME}\0\0");
        let mut message = Vec::new();
        message.extend(u32::try_from(8 + parameters.len()).unwrap_or(u32::MAX).to_be_bytes());
        message.extend(196_608_u32.to_be_bytes()); // protocol 3.0
        message.extend(parameters.as_bytes());
        stream.write_all(&message)?;
        let mut kind = [0_u8; 1];
        stream.read_exact(&mut kind)?;
        // Terminate, so that the server does not log a lost connection.
        let _ = stream.write_all(b"X\0\0\0\x04");
        Ok(kind == *b"R")
    };
    ask().unwrap_or(false)
}

/// The URL of the cluster in `data` on `port`, with the password if there is one.
fn url(data: &Path, port: u16) -> Result<String, Error> {
    let path = beside(data, "password");
    match fs::read_to_string(&path) {
        Ok(password) => Ok(format!("postgres://{NAME}:{}@127.0.0.1:{port}/{NAME}", password.trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(format!("postgres://{NAME}@127.0.0.1:{port}/{NAME}"))
        }
        Err(source) => Err(Error::Password { path, source }),
    }
}

/// A port of the loopback interface that nobody listens on now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The directory of the newest server that is installed: `CAMPAIGND_PG_BINDIR`, `PATH` (links followed), `pg_config`, Debian's
/// and Homebrew's places, Postgres.app.
pub fn find_binaries() -> Result<PathBuf, Error> {
    let mut places: Vec<PathBuf> = Vec::new();
    places.extend(std::env::var_os("CAMPAIGND_PG_BINDIR").map(PathBuf::from));
    let path = std::env::var_os("PATH").unwrap_or_default();
    for dir in std::env::split_paths(&path) {
        // Debian links single commands; the others are where the link points.
        places.extend(fs::canonicalize(dir.join("initdb")).ok().and_then(|p| p.parent().map(Path::to_owned)));
    }
    if let Ok(out) = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output()
        && out.status.success()
    {
        places.push(String::from_utf8_lossy(&out.stdout).trim().into());
    }
    for parent in
        ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/Applications/Postgres.app/Contents/Versions"]
    {
        let mut found: Vec<PathBuf> =
            fs::read_dir(parent).into_iter().flatten().flatten().map(|e| e.path().join("bin")).collect();
        // By number, so that 9 comes after 18.
        found.sort_by_key(|p| std::cmp::Reverse(version_in(p)));
        places.extend(found);
    }
    places.into_iter().find(|dir| ["initdb", "postgres"].iter().all(|name| dir.join(name).is_file())).ok_or(
        Error::NotInstalled {
            hint: if cfg!(target_os = "macos") {
                "brew install postgresql@17"
            } else {
                "apt-get install -y postgresql"
            },
        },
    )
}

/// The number in the directory's name above `bin`: `15`, `postgresql@17`.
fn version_in(bin: &Path) -> u32 {
    let name = bin.parent().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

/// Refuses a cluster that this server cannot open.
fn check_version(bin: &Path, data: &Path) -> Result<(), Error> {
    let path = data.join("PG_VERSION");
    let found = fs::read_to_string(&path).at("read", &path)?.trim().to_owned();
    let out = Command::new(bin.join("postgres")).arg("--version").output().at("run postgres in", bin)?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // "postgres (PostgreSQL) 15.14 (Debian ..)"
    let installed = text.split_whitespace().nth(2).unwrap_or_default();
    let major: String = installed.chars().take_while(char::is_ascii_digit).collect();
    if major == found || major.is_empty() {
        return Ok(());
    }
    Err(Error::OtherVersion { data_dir: data.to_owned(), found, installed: installed.to_owned() })
}

/// A command that runs as the server's user. In `/`, because that user may not be able to enter our directory.
fn as_user(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env_remove("PGDATA").env_remove("PGPORT").env("LC_ALL", "C");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Makes the data directory, for the server's user alone.
fn make_dirs(data: &Path, user: Option<(u32, u32)>) -> Result<(), Error> {
    fs::create_dir_all(data).at("make", data)?;
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).at("set the mode of", data)?;
    if let Some((uid, gid)) = user {
        chown(data, Some(uid), Some(gid)).at("hand over", data)?;
    }
    Ok(())
}

/// Writes a file that only the server's user (and we) can read.
fn write_private(path: &Path, text: &str, user: Option<(u32, u32)>) -> Result<(), Error> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).at("write", path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).at("set the mode of", path)?;
    if let Some((uid, gid)) = user {
        chown(path, Some(uid), Some(gid)).at("hand over", path)?;
    }
    file.write_all(text.as_bytes()).at("write", path)
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

/// `pg` -> `pg.password`: beside the directory, because the directory is the server's.
fn beside(data: &Path, what: &str) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(what);
    data.with_file_name(name)
}

/// Says what was tried with which path.
trait At<T> {
    fn at(self, what: &str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { what: format!("{what} {}", path.display()), source })
    }
}

/// What the standard library has no word for. All of the program's unsafe code.
mod os {
    use std::os::unix::process::CommandExt;
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
}
