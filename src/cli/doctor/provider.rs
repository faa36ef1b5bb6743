//! Whether the provider can be reached and lets us in, step by step: name, connection, then a call with certificate and key.

use std::time::{Duration, Instant};

use super::Report;
use crate::config::Config;
use crate::provider::unipile::{Error, Options, Unipile, UnipileAccount};
use crate::store::doctor::Sender;

/// How long each step may take.
const WAIT: Duration = Duration::from_secs(10);
const CHECK: &str = "provider";

/// Looks at every provider that is configured. `accounts`: ours, if the database told them.
pub(super) async fn look(report: &mut Report, config: &Config, accounts: Option<&[Sender]>) {
    let (Some(url), Some(key)) = (&config.unipile_url, &config.unipile_key) else {
        return report.skip(CHECK, "none is configured");
    };
    let Some((host, port)) = host_and_port(url) else {
        return report.find(
            CHECK,
            "unipile.base_url has no host",
            "set it to the address that Unipile's dashboard shows",
        );
    };
    if !connects(report, &host, port).await {
        return;
    }
    let options = Options { timeout: WAIT, ..Options::new(url.clone(), key.clone()) };
    let began = Instant::now();
    let told = match Unipile::new(options) {
        Ok(unipile) => unipile.accounts().await,
        Err(error) => Err(error),
    };
    match told {
        Ok(theirs) => {
            let took = began.elapsed().as_millis();
            report.well(CHECK, format!("unipile takes the key; it has {} accounts ({took} ms)", theirs.len()));
            if let Some(ours) = accounts {
                compare(report, ours, &theirs);
            }
        }
        Err(error) => refused(report, &error),
    }
}

async fn connects(report: &mut Report, host: &str, port: u16) -> bool {
    // Behind a proxy neither names nor connections say anything: only the call does.
    if ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    {
        return true;
    }
    let found = match tokio::time::timeout(WAIT, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    if found.is_empty() {
        let todo = "correct unipile.base_url, or look at /etc/resolv.conf and the network of this machine";
        report.find(CHECK, format!("the name {host} is not found"), todo);
        return false;
    }
    let connected = tokio::time::timeout(WAIT, tokio::net::TcpStream::connect((host, port))).await;
    if matches!(connected, Ok(Ok(_))) {
        return true;
    }
    let why = match connected {
        Ok(Err(error)) => error.to_string(),
        _ => format!("no answer within {} s", WAIT.as_secs()),
    };
    report.find(
        CHECK,
        format!("cannot connect to {host} port {port}: {why}"),
        "let this machine out to that port; where high ports are closed, write the port as in https://api8.unipile.com?port=13443",
    );
    false
}

fn refused(report: &mut Report, error: &Error) {
    let says = error.to_string();
    let todo = match error {
        Error::Api(refusal) if matches!(refusal.status, 401 | 403) => {
            "set CAMPAIGND_UNIPILE__API_KEY to an access token of this tenant; nothing is sent until then"
        }
        Error::Api(refusal) if refusal.status == 404 => {
            "correct unipile.base_url: nothing of Unipile's is at this address"
        }
        Error::Api(_) => "the provider has a problem of its own: look at its status page, and try again",
        Error::Options(_) => "correct unipile.base_url and unipile.api_key",
        Error::NotSent(_) => {
            "the connection stands, so it is the certificate: is there another server, or a proxy, in between?"
        }
        Error::Lost(_) => {
            "it takes longer than 10 s or breaks off: look at the network; unipile.timeout_seconds bounds a call"
        }
        Error::Unreadable(_) => "what answers is not Unipile: correct unipile.base_url",
    };
    report.find(CHECK, says, todo);
}

/// Accounts that the provider does not know, or knows to be broken.
fn compare(report: &mut Report, ours: &[Sender], theirs: &[UnipileAccount]) {
    for account in ours.iter().filter(|account| account.provider == "unipile") {
        match theirs.iter().find(|t| t.id == account.provider_account_id) {
            None => report.find(
                "accounts",
                format!("account {} ({}) is not connected at the provider", account.id, account.channel),
                "connect it in Unipile's dashboard, and correct its provider_account_id, or disable it",
            ),
            Some(t) if t.status != "OK" => report.find(
                "accounts",
                format!("account {} ({}): the provider says {}", account.id, account.channel, t.status),
                "reconnect it in Unipile's dashboard; it goes on by itself when the provider reports that it works",
            ),
            Some(_) => {}
        }
    }
}

/// The port in the query is Unipile's way around closed ports: the connection goes to the usual one.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port_or_known_default()?))
}
