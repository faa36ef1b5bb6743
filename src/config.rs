//! Configuration: a TOML file, then the environment. Every key has a default; an unknown one is an error that lists those
//! that exist.
//!
//! `--config FILE` reads `[section] key = value`; `CAMPAIGND_<SECTION>__<KEY>` overrides it; `DATABASE_URL` overrides
//! `database.url`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::clock::Clock;
use crate::provider::Secret;
use crate::telemetry::trace::Share;

/// Prefix of the environment variables.
const PREFIX: &str = "CAMPAIGND_";

/// What the program can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `database.url`: `None` runs a private Postgres.
    pub database_url: Option<Secret>,
    /// `database.connections`: connections of the engine; requests have sixteen more.
    pub connections: u32,
    /// `http.listen`: the API.
    pub listen: SocketAddr,
    /// `http.metrics_listen`: metrics and health.
    pub metrics_listen: SocketAddr,
    /// `http.public_url`: where a provider reaches the API; with it, webhooks are registered at the start.
    pub public_url: Option<String>,
    /// `unipile.base_url`: without it nothing is sent.
    pub unipile_url: Option<String>,
    /// `unipile.api_key`.
    pub unipile_key: Option<Secret>,
    /// `unipile.webhook_secret`: what deliveries carry in `Unipile-Auth`.
    pub webhook_secret: Option<Secret>,
    /// `unipile.timeout_seconds`: of one call.
    pub unipile_timeout: Duration,
    /// `clock.speed`: seconds of the clock in a real second; for demos and tests.
    pub speed: f64,
    /// `clock.origin`: when a faster clock showed the same as the wall clock. Give every process the same.
    pub origin: Option<DateTime<Utc>>,
    /// `log.json`.
    pub log_json: bool,
    /// `trace.sample`: the share of triggers that are traced, besides those whose caller traces them; 0 to 1.
    pub trace_share: Share,
    /// `trace.otlp`: the collector that is told; only in a program built with the feature `otel`.
    pub trace_otlp: Option<String>,
    /// `runtime.in_flight_max`: triggers from outside at once.
    pub in_flight_max: usize,
    /// `runtime.resident_max`: live actors at most, about 9 KB each. Beyond it the executions that sleep longest are parked.
    pub resident_max: usize,
    /// `runtime.lease_seconds`: how long the shards stay ours without a renewal.
    pub lease: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database_url: None,
            connections: 20,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            public_url: None,
            unipile_url: None,
            unipile_key: None,
            webhook_secret: None,
            unipile_timeout: Duration::from_secs(30),
            speed: 1.0,
            origin: None,
            log_json: false,
            trace_share: Share::default(),
            trace_otlp: None,
            in_flight_max: 16_384,
            resident_max: default_resident_max(),
            lease: Duration::from_secs(15),
        }
    }
}

/// What half of the memory that this process may use has room for: the other half is for Postgres and the page cache.
fn default_resident_max() -> usize {
    const RESIDENT: u64 = 9 * 1024;
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |text: &str| text.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    let total = read("/proc/meminfo").and_then(|text| number(&text)).map(|kib| kib * 1024);
    // `max` without a limit, which is no number.
    let limit = read("/sys/fs/cgroup/memory.max").and_then(|text| number(&text));
    let memory = total.into_iter().chain(limit).min();
    memory.map_or(1_000_000, |bytes| usize::try_from(bytes / 2 / RESIDENT).unwrap_or(usize::MAX)).max(10_000)
}

/// Every key, as it stands in a file.
const KEYS: &[&str] = &[
    "database.url",
    "database.connections",
    "http.listen",
    "http.metrics_listen",
    "http.public_url",
    "unipile.base_url",
    "unipile.api_key",
    "unipile.webhook_secret",
    "unipile.timeout_seconds",
    "clock.speed",
    "clock.origin",
    "log.json",
    "trace.sample",
    "trace.otlp",
    "runtime.in_flight_max",
    "runtime.resident_max",
    "runtime.lease_seconds",
];

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML of `[section]` tables.
    #[error("{path}: {reason}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// No such key.
    #[error("{origin}: there is no key `{key}`; the keys are {}", KEYS.join(", "))]
    UnknownKey {
        /// File or variable.
        origin: String,
        /// What was given.
        key: String,
    },
    /// A value does not fit.
    #[error("{origin}: `{key}` {reason}")]
    Value {
        /// File or variable.
        origin: String,
        /// Which.
        key: String,
        /// Why; never the value, which may be a secret.
        reason: String,
    },
}

impl Config {
    /// Reads the file, if there is one, and the environment.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let environment = std::env::vars().filter(|(name, _)| name.starts_with(PREFIX) || name == "DATABASE_URL");
        Self::from_sources(file, environment.collect())
    }

    fn from_sources(file: Option<&Path>, environment: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = file {
            for (key, value) in read(path)? {
                config.set(&path.display().to_string(), &key, &value)?;
            }
        }
        for (name, value) in environment {
            // One underscore in a name is a setting of the environment itself (CAMPAIGND_DATA_DIR), two separate a key.
            let key = match name.strip_prefix(PREFIX) {
                Some(rest) if rest.contains("__") => rest.to_lowercase().replacen("__", ".", 1),
                Some(_) => continue,
                None => "database.url".to_owned(),
            };
            config.set(&name, &key, &value)?;
        }
        Ok(config)
    }

    fn set(&mut self, origin: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        let field = Field { origin, key, value };
        match key {
            "database.url" => self.database_url = field.secret(),
            "database.connections" => self.connections = field.at_least(5)?,
            "http.listen" => self.listen = field.parse("is not an address such as 127.0.0.1:8080")?,
            "http.metrics_listen" => self.metrics_listen = field.parse("is not an address such as 127.0.0.1:9464")?,
            "http.public_url" => self.public_url = field.url()?,
            "unipile.base_url" => self.unipile_url = field.url()?,
            "unipile.api_key" => self.unipile_key = field.secret(),
            "unipile.webhook_secret" => self.webhook_secret = field.secret(),
            "unipile.timeout_seconds" => self.unipile_timeout = Duration::from_secs(field.at_least(1)?),
            "clock.speed" => {
                self.speed = field.parse("is not a number")?;
                if !(0.001..=1_000_000.0).contains(&self.speed) {
                    return Err(field.wrong("is not between 0.001 and 1000000"));
                }
            }
            "clock.origin" => self.origin = Some(field.parse("is not a time such as 2026-11-23T09:00:00Z")?),
            "log.json" => self.log_json = field.parse("is neither true nor false")?,
            "trace.sample" => {
                let share: f64 = field.parse("is not a number")?;
                if !(0.0..=1.0).contains(&share) {
                    return Err(field.wrong("is not between 0 and 1"));
                }
                self.trace_share = Share::of(share);
            }
            "trace.otlp" => {
                self.trace_otlp = field.url()?;
                if self.trace_otlp.is_some() && !cfg!(feature = "otel") {
                    return Err(field.wrong(
                        "needs a campaignd that was built with `--features otel`; without it traces are lines of the log",
                    ));
                }
            }
            "runtime.in_flight_max" => self.in_flight_max = field.at_least(1)?,
            "runtime.resident_max" => self.resident_max = field.at_least(1)?,
            "runtime.lease_seconds" => self.lease = Duration::from_secs(field.at_least(5)?),
            _ => return Err(ConfigError::UnknownKey { origin: origin.to_owned(), key: key.to_owned() }),
        }
        Ok(())
    }

    /// The clock that these settings describe.
    pub fn clock(&self) -> Clock {
        match self.origin {
            Some(origin) => Clock::Scaled { origin: origin.into(), speed: self.speed },
            None if (self.speed - 1.0).abs() > f64::EPSILON => Clock::scaled_from_now(self.speed),
            None => Clock::System,
        }
    }
}

struct Field<'a> {
    origin: &'a str,
    key: &'a str,
    value: &'a str,
}

impl Field<'_> {
    fn wrong(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::Value { origin: self.origin.to_owned(), key: self.key.to_owned(), reason: reason.into() }
    }

    fn parse<T: FromStr>(&self, reason: &str) -> Result<T, ConfigError> {
        self.value.trim().parse().map_err(|_| self.wrong(reason))
    }

    fn at_least<T: FromStr + PartialOrd + Display>(&self, least: T) -> Result<T, ConfigError> {
        let value: T = self.parse("is not a whole number")?;
        if value < least { Err(self.wrong(format!("is less than {least}"))) } else { Ok(value) }
    }

    fn secret(&self) -> Option<Secret> {
        (!self.value.trim().is_empty()).then(|| Secret::new(self.value.trim()))
    }

    fn url(&self) -> Result<Option<String>, ConfigError> {
        let url = self.value.trim().trim_end_matches('/');
        if url.is_empty() {
            return Ok(None);
        }
        if url.starts_with("http://") || url.starts_with("https://") {
            return Ok(Some(url.to_owned()));
        }
        Err(self.wrong("is not a URL that starts with http:// or https://"))
    }
}

/// The keys of a file, as `section.key` and text.
fn read(path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let syntax = |reason: String| ConfigError::Syntax { path: path.to_owned(), reason };
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| syntax(e.to_string()))?;
    let mut keys = Vec::new();
    for (section, value) in table {
        let toml::Value::Table(entries) = value else {
            return Err(syntax(format!(
                "`{section}` stands outside of a section: write it below a line such as [http]"
            )));
        };
        for (key, value) in entries {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(n) => n.to_string(),
                toml::Value::Float(n) => n.to_string(),
                toml::Value::Boolean(b) => b.to_string(),
                toml::Value::Datetime(t) => t.to_string(),
                toml::Value::Array(_) | toml::Value::Table(_) => {
                    return Err(syntax(format!("`{section}.{key}` is a list or a table; no key takes one")));
                }
            };
            keys.push((format!("{section}.{key}"), text));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::from_sources(None, environment).map_err(|e| e.to_string())
    }

    #[test]
    fn the_environment_overrides_by_section_and_key() {
        let config = from(&[
            ("CAMPAIGND_HTTP__METRICS_LISTEN", "0.0.0.0:9"),
            ("CAMPAIGND_CLOCK__SPEED", "7200"),
            ("DATABASE_URL", "postgres://u:hunter2@h/d"),
            ("CAMPAIGND_DATA_DIR", "/x"),
        ])
        .unwrap();
        assert_eq!(config.metrics_listen.port(), 9);
        assert!((config.speed - 7200.0).abs() < f64::EPSILON);
        assert!(!format!("{config:?}").contains("hunter2"), "a secret in Debug");
    }

    #[test]
    fn a_slip_names_the_key_and_where_it_stands_and_never_the_value() {
        let unknown = from(&[("CAMPAIGND_HTTP__LISTENS", "x")]).unwrap_err();
        assert!(unknown.contains("CAMPAIGND_HTTP__LISTENS") && unknown.contains("http.listen,"), "{unknown}");
        let wrong = from(&[("CAMPAIGND_UNIPILE__BASE_URL", "api8.unipile.com")]).unwrap_err();
        assert!(wrong.contains("http://") && !wrong.contains("api8"), "{wrong}");
    }

    #[test]
    fn a_file_is_read_by_sections() {
        let path = std::env::temp_dir().join(format!("campaignd-config-{}.toml", std::process::id()));
        std::fs::write(&path, "[http]\nlisten = \"127.0.0.1:1\"\n[runtime]\nlease_seconds = 7\n").unwrap();
        let config = Config::from_sources(Some(&path), BTreeMap::new()).unwrap();
        assert_eq!((config.listen.port(), config.lease.as_secs()), (1, 7));
        std::fs::write(&path, "listen = 1\n").unwrap();
        let error = Config::from_sources(Some(&path), BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("outside of a section"), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}
