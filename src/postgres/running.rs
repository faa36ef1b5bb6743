//! What can be seen from outside of a server that runs: its pid file, and whether it answers.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{NAME, POLL, START, os};

/// A server of another process on this directory: its port. Waits for one that is just starting or stopping. A pid file
/// that no server stands behind (a killed server whose number another program has now) is removed.
pub(super) fn wait_for_other(data: &Path) -> Option<u16> {
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
pub(super) fn port_of(data: &Path) -> Option<u16> {
    PidFile::read(data).filter(|f| f.ready && os::is_server(f.pid, data)).map(|f| f.port)
}

/// What a running server writes into `postmaster.pid`.
pub(super) struct PidFile {
    pub(super) pid: i32,
    port: u16,
    pub(super) ready: bool,
}

impl PidFile {
    /// Lines: pid, directory, start, port, socket directory, address, memory key, state.
    pub(super) fn read(data: &Path) -> Option<Self> {
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
pub(super) fn answers(port: u16) -> bool {
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

/// A port of the loopback interface that nobody listens on now.
pub(super) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
