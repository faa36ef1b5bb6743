//! The files of a cluster: its directory, what stands beside it, and how it is made.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use uuid::Uuid;

use super::error::{At as _, Error};
use super::{NAME, os};

/// Makes the cluster and its database: beside its place first, so that one that was left half-made is never taken for one.
pub(super) fn initialise(bin: &Path, data: &Path, user: Option<(u32, u32)>, durable: bool) -> Result<(), Error> {
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
    let mut initdb = os::as_user(&bin.join("initdb"), user);
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
    let mut single = os::as_user(&bin.join("postgres"), user);
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

/// The URL of the cluster in `data` on `port`, with the password if there is one.
pub(super) fn url(data: &Path, port: u16) -> Result<String, Error> {
    let path = beside(data, "password");
    match fs::read_to_string(&path) {
        Ok(password) => Ok(format!("postgres://{NAME}:{}@127.0.0.1:{port}/{NAME}", password.trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(format!("postgres://{NAME}@127.0.0.1:{port}/{NAME}"))
        }
        Err(source) => Err(Error::Password { path, source }),
    }
}

/// Makes the data directory, for the server's user alone.
pub(super) fn make_dirs(data: &Path, user: Option<(u32, u32)>) -> Result<(), Error> {
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

/// `pg` -> `pg.password`: beside the directory, because the directory is the server's.
pub(super) fn beside(data: &Path, what: &str) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(what);
    data.with_file_name(name)
}
