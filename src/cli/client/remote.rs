//! [`Remote`]: which server a command talks to, and with which key.

use std::convert::Infallible;
use std::io;

use reqwest::Url;

use super::Client;
use crate::cli::database::key_file;
use crate::cli::output::Failure;
use crate::provider::Secret;

/// Which server a command talks to.
#[derive(Clone, Debug, clap::Args)]
pub struct Remote {
    /// The server's address
    #[arg(
        long,
        env = "CAMPAIGND_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL",
        value_parser = server,
        help_heading = "Server"
    )]
    pub server: Url,
    /// The API key; else the one in the file `api-key` of the data directory (CAMPAIGND_DATA_DIR), which `campaignd
    /// serve` and `key create` write
    #[arg(
        long,
        env = "CAMPAIGND_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        value_parser = secret,
        help_heading = "Server"
    )]
    pub api_key: Option<Secret>,
}

/// Reads `--server`. A bare `host:port` means plain HTTP.
pub(super) fn server(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&full).map_err(|e| format!("no address: {e}; write it as http://127.0.0.1:8080"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("no address: write it as http://127.0.0.1:8080 or https://campaignd.example.com".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must hold neither credentials nor `?` or `#`; the key goes into --api-key".to_owned());
    }
    Ok(url)
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text.trim()))
}

impl Remote {
    /// A client for this server. Does not connect yet.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub(in crate::cli) fn client(&self) -> Result<Client, Failure> {
        let given = self.api_key.clone().filter(|k| !k.expose().is_empty());
        let (key, key_problem) = match given {
            Some(key) => (Some(key), None),
            None => match std::fs::read_to_string(key_file()) {
                Ok(text) => (Some(Secret::new(text.trim())).filter(|k| !k.expose().is_empty()), None),
                Err(e) if e.kind() == io::ErrorKind::NotFound => (None, None),
                Err(e) => (None, Some(format!("cannot read {}: {e}", key_file().display()))),
            },
        };
        Client::new(&self.server, key, key_problem)
    }
}
