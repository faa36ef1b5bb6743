//! Settings that do not go together, files that others can read, and the server that runs with them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Report;
use crate::cli::database::key_file;
use crate::config::Config;

/// How long the server may take to answer.
const SERVER_WAIT: Duration = Duration::from_secs(4);

/// What the values themselves tell.
pub(super) fn look(report: &mut Report, config: &Config, file: Option<&Path>) {
    const CHECK: &str = "settings";
    let before = report.findings();
    if let Some(file) = file {
        readable_by_others(report, file, "may hold secrets");
    }
    if key_file().exists() {
        readable_by_others(report, &key_file(), "holds an API key");
    }
    if (config.speed - 1.0).abs() > f64::EPSILON {
        let says = format!("clock.speed is {}: waits and windows are not those of real days", config.speed);
        report.find(CHECK, says, "leave clock.speed and clock.origin out, unless this is a demo or a test");
    }
    match (&config.unipile_url, &config.unipile_key, &config.webhook_secret, &config.public_url) {
        (None, ..) => report.find(
            CHECK,
            "no provider is configured: campaigns run, but nothing is sent",
            "set unipile.base_url and unipile.api_key (CAMPAIGND_UNIPILE__BASE_URL, CAMPAIGND_UNIPILE__API_KEY)",
        ),
        (Some(_), None, ..) => report.find(
            CHECK,
            "unipile.base_url is set but unipile.api_key is not: `serve` does not start",
            "set CAMPAIGND_UNIPILE__API_KEY to the access token of the tenant",
        ),
        (Some(_), Some(_), None, _) => report.find(
            CHECK,
            "unipile.webhook_secret is not set: no webhooks are registered, and answers are only heard when lists are read",
            "set CAMPAIGND_UNIPILE__WEBHOOK_SECRET to a long random word of your own, and http.public_url",
        ),
        (Some(_), Some(_), Some(secret), _) if secret.expose().len() < 16 => report.find(
            CHECK,
            "unipile.webhook_secret is shorter than 16 characters: it can be guessed",
            "set a longer one, for example of `openssl rand -hex 32`; the webhooks are registered anew",
        ),
        (Some(_), Some(_), Some(_), None) => report.find(
            CHECK,
            "http.public_url is not set: no webhooks are registered at the provider, and mails carry no link to unsubscribe",
            "set CAMPAIGND_HTTP__PUBLIC_URL to the address under which the provider reaches http.listen",
        ),
        (Some(_), Some(_), Some(_), Some(_)) => {}
    }
    if report.findings() == before {
        report.well(CHECK, "nothing is missing");
    }
}

fn readable_by_others(report: &mut Report, file: &Path, why: &str) {
    let Ok(found) = file.metadata() else { return };
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        report.find(
            "settings",
            format!("{} {why} and can be read by others (mode {mode:o})", file.display()),
            format!("chmod 600 {}, and let the user who runs campaignd own it", file.display()),
        );
    }
}

/// Asks the server of these settings whether it is ready.
pub(super) async fn server(report: &mut Report, config: &Config) {
    const CHECK: &str = "server";
    let url = format!("http://{}/readyz", config.metrics_listen);
    let client = reqwest::Client::builder().no_proxy().timeout(SERVER_WAIT).build();
    let answer = match client {
        Ok(client) => client.get(&url).send().await,
        Err(error) => Err(error),
    };
    let body: Value = match answer {
        Ok(answer) => answer.json().await.unwrap_or_default(),
        Err(error) if error.is_connect() => {
            return report.note(CHECK, format!("none runs here: nobody answers at {url}"));
        }
        Err(_) => {
            return report.find(
                CHECK,
                format!("something listens at http.metrics_listen, but {url} gives no answer"),
                "look at the server's log; when it hangs, restart it (docs/runbooks/CampaigndDown.md)",
            );
        }
    };
    match body["ready"].as_bool() {
        Some(true) => report.well(CHECK, format!("ready, with {} residents", body["residents"])),
        Some(false) => {
            let reasons: Vec<String> = body["reasons"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|r| format!("{}: {}", r["name"].as_str().unwrap_or("?"), r["detail"].as_str().unwrap_or("?")))
                .collect();
            let says = format!("not ready: {}", reasons.join("; "));
            report.find(CHECK, says, "docs/runbooks/CampaigndNotReady.md says what to do about each");
        }
        None => report.find(
            CHECK,
            format!("what answers at {url} is not campaignd"),
            "choose another http.metrics_listen, or end the other program",
        ),
    }
}
