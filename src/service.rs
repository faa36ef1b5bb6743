//! The daemon, put together: database, runtime, provider, HTTP. Used by `serve` and by `demo`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::id::WorkspaceId;
use crate::provider::unipile::{self, Unipile};
use crate::provider::{Provider, Secret};
use crate::runtime::{self, Runtime};
use crate::store::{self, Pool, api_key, endpoint, link_secret, migrate};
use crate::{http, telemetry};

/// Connections for requests; facts have a few more, and the engine has its own.
const API_CONNECTIONS: u32 = 10;

/// The workspace that exists in every database.
pub const DEFAULT_WORKSPACE: WorkspaceId =
    WorkspaceId(uuid::Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The schema cannot be brought up to date.
    #[error(transparent)]
    Migrate(#[from] migrate::MigrateError),
    /// The provider's settings are wrong.
    #[error(transparent)]
    Provider(#[from] unipile::Error),
    /// The engine did not start.
    #[error(transparent)]
    Runtime(#[from] runtime::StartError),
    /// An address is taken.
    #[error(transparent)]
    Http(#[from] http::StartError),
    /// The metrics recorder.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// The collector of traces.
    #[cfg(feature = "otel")]
    #[error(transparent)]
    Trace(#[from] telemetry::trace::Error),
    /// A setting that another one needs is missing.
    #[error("{0}")]
    Config(String),
}

/// A running daemon.
pub struct Service {
    pool: Pool,
    engine: Pool,
    runtime: Runtime,
    http: http::Server,
}

/// Where webhooks of the default workspace are delivered, and what has to be in their secret header.
#[derive(Debug)]
struct Hook {
    path: String,
    secret: Secret,
}

impl Service {
    /// Brings the schema up to date, takes the shards, rebuilds the actors and serves. `progress` is told how many
    /// executions have been read back, of how many.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left running.
    pub async fn start(
        config: &Config,
        database_url: &str,
        clock: Clock,
        progress: Box<dyn Fn(u64, u64) + Send + Sync>,
    ) -> Result<Self, Error> {
        let metrics = telemetry::install()?;
        #[cfg(feature = "otel")]
        if let Some(endpoint) = &config.trace_otlp {
            telemetry::trace::export_to(endpoint, || Clock::System.now())?;
        }
        let http_options = http::Options {
            listen: config.listen,
            metrics_listen: config.metrics_listen,
            trace_share: config.trace_share,
            ..http::Options::default()
        };
        let (doing, reason) = tokio::sync::watch::channel(http::StartingReason::Database);
        let starting = http::Starting::start(&http_options, reason).await?;
        let pool = store::connect(database_url, API_CONNECTIONS).await?;
        doing.send_replace(http::StartingReason::Schema);
        let pool = store::apart(&pool, API_CONNECTIONS, http::CONNECTION_WAIT);
        let engine = store::connect_engine(database_url, config.connections).await?;
        let report = migrate::migrate(&pool).await?;
        if !report.already_up_to_date {
            tracing::info!(applied = ?report.applied, "schema brought up to date");
        }
        let unipile = provider(config)?;
        let mut providers: HashMap<String, Arc<dyn Provider>> = HashMap::new();
        if let Some(unipile) = &unipile {
            providers.insert(unipile.name().to_owned(), Arc::clone(unipile) as Arc<dyn Provider>);
        } else {
            tracing::warn!("no provider is configured (unipile.base_url): campaigns run, but nothing is sent");
        }
        let hook = hook(&pool, config, &clock).await?;
        let links = match &config.public_url {
            Some(public_url) => Some(runtime::Links {
                public_url: public_url.clone(),
                secret: link_secret::unsubscribe(&pool, clock.now()).await?,
            }),
            None => None,
        };
        let options = runtime::Options {
            links,
            in_flight_max: config.in_flight_max,
            resident_max: config.resident_max,
            lease_ttl: config.lease,
            progress,
            ..runtime::Options::new(engine.clone(), clock.clone(), providers)
        };
        doing.send_replace(http::StartingReason::Leases);
        let runtime = runtime::start(options).await?;
        let app = http::App { pool: pool.clone(), runtime: runtime.handle(), clock, options: http_options, metrics };
        let http = match http::Server::start_after(app, Some(starting)).await {
            Ok(http) => http,
            Err(error) => {
                runtime.shutdown().await;
                return Err(error.into());
            }
        };
        if let (Some(unipile), Some(hook), Some(public)) = (unipile, hook, &config.public_url) {
            tokio::spawn(register(unipile, hook, public.clone()));
        }
        Ok(Self { pool, engine, runtime, http })
    }

    /// The database.
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The engine.
    pub fn handle(&self) -> runtime::Handle {
        self.runtime.handle()
    }

    /// Where the API listens.
    pub const fn api_addr(&self) -> std::net::SocketAddr {
        self.http.api_addr()
    }

    /// Where metrics are scraped.
    pub const fn metrics_addr(&self) -> std::net::SocketAddr {
        self.http.metrics_addr()
    }

    /// Returns when another node has taken the shards over.
    pub async fn lost(&self) {
        // The sender lives as long as the lease.
        let _ = self.runtime.lost().wait_for(|lost| *lost).await;
    }

    /// Takes no more requests, lets what is in flight end, writes what is left and gives the shards back. Answers whether
    /// everything in flight came to its end.
    pub async fn stop(self) -> bool {
        let Self { pool, engine, runtime, mut http } = self;
        let (drained, ()) = tokio::join!(runtime.shutdown(), http.stop_api());
        http.stop().await;
        pool.close().await;
        engine.close().await;
        #[cfg(feature = "otel")]
        telemetry::trace::flush().await;
        drained
    }
}

fn provider(config: &Config) -> Result<Option<Arc<Unipile>>, Error> {
    let Some(url) = &config.unipile_url else { return Ok(None) };
    let key = config.unipile_key.clone().ok_or_else(|| {
        Error::Config("unipile.base_url is set but unipile.api_key is not: set CAMPAIGND_UNIPILE__API_KEY".into())
    })?;
    let options = unipile::Options { timeout: config.unipile_timeout, ..unipile::Options::new(url.clone(), key) };
    Ok(Some(Arc::new(Unipile::new(options)?)))
}

/// The endpoint for the configured secret: the one that accepts it, or a new one.
async fn hook(pool: &Pool, config: &Config, clock: &Clock) -> Result<Option<Hook>, Error> {
    let Some(secret) = config.webhook_secret.clone() else { return Ok(None) };
    for listed in endpoint::list(pool, DEFAULT_WORKSPACE).await? {
        let found = endpoint::find(pool, &listed.id, "unipile").await?;
        if found.is_some_and(|e| e.accepts(secret.expose())) {
            return Ok(Some(Hook { path: listed.id, secret }));
        }
    }
    let made = endpoint::create(pool, DEFAULT_WORKSPACE, "unipile", Some(secret.expose()), clock.now()).await?;
    Ok(Some(Hook { path: made.id, secret }))
}

/// Registers our webhooks at the provider, however long that takes: until then acceptances and replies are not heard.
async fn register(unipile: Arc<Unipile>, hook: Hook, public_url: String) {
    let url = format!("{public_url}/v1/hooks/unipile/{}", hook.path);
    let mut wait = std::time::Duration::from_millis(500);
    loop {
        match unipile.ensure_webhooks(&url, &hook.secret).await {
            Ok(created) => {
                tracing::info!(created, "webhooks are registered at the provider");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot register webhooks at the provider; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(std::time::Duration::from_secs(60));
            }
        }
    }
}

/// Makes the first API key of a database that has none. `None`: there are keys already.
///
/// # Errors
/// The database's.
pub async fn first_key(pool: &Pool, clock: &Clock) -> Result<Option<api_key::Key>, store::Error> {
    if api_key::list(pool, DEFAULT_WORKSPACE).await?.is_empty() {
        return api_key::create(pool, DEFAULT_WORKSPACE, "first", clock.now()).await.map(Some);
    }
    Ok(None)
}
