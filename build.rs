//! Tells the program what it was built from, for the reports of `campaignd bench` and the metrics: the commit is `unknown`
//! outside of a repository, unless `CAMPAIGND_COMMIT` says it.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-env-changed=CAMPAIGND_COMMIT");
    let told = std::env::var("CAMPAIGND_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(commit);
    println!("cargo:rustc-env=CAMPAIGND_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    let rustc = std::env::var("RUSTC").ok().and_then(|rustc| ask(&rustc, &["--version"]));
    println!("cargo:rustc-env=CAMPAIGND_RUSTC={}", rustc.as_deref().unwrap_or("unknown"));
    let profile = std::env::var("PROFILE").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo:rustc-env=CAMPAIGND_PROFILE={profile}");
}

/// The commit of the repository that this is. A source archive may lie somewhere in another one, whose commit says nothing.
fn commit() -> Option<String> {
    let root = ask("git", &["rev-parse", "--show-toplevel"])?;
    let here = std::env::current_dir().ok()?;
    if Path::new(&root).canonicalize().ok()? != here.canonicalize().ok()? {
        return None;
    }
    // What moves when a commit is made or another branch is checked out.
    let directory = ask("git", &["rev-parse", "--git-dir"])?;
    for file in ["HEAD", "logs/HEAD"] {
        let path = Path::new(&directory).join(file);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    ask("git", &["rev-parse", "--short=12", "HEAD"])
}

/// The first line a program answers, if it answers.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
