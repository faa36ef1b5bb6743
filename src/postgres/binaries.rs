//! Which Postgres is installed, and whether it can open a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::{At as _, Error};

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
pub(super) fn check_version(bin: &Path, data: &Path) -> Result<(), Error> {
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
