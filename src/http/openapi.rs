//! `/openapi.json`, made from the handlers.

use axum::Json;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::api::{accounts, campaigns, commands, hooks, import, priority, prospects, sends, suppressions, triggers};
use super::{health, unsubscribe, webhook};

#[derive(OpenApi)]
#[openapi(
    info(title = "campaignd", description = "Runs outreach campaigns: every prospect a supervised actor, every transition durable."),
    paths(
        campaigns::create, campaigns::preview, campaigns::list, campaigns::show, campaigns::start, campaigns::pause, campaigns::resume,
        import::import, prospects::list, prospects::show, prospects::timeline,
        commands::pause, commands::resume, commands::skip, commands::restart, commands::stop,
        triggers::create, priority::change, sends::list, sends::resolve, suppressions::add, suppressions::list, suppressions::remove,
        accounts::create, accounts::list, accounts::get, accounts::change, hooks::create, hooks::list, webhook::receive,
        unsubscribe::page, unsubscribe::confirm,
        document, health::healthz, health::readyz,
    ),
    modifiers(&Security),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) struct Api;

/// The ways to hand in an API key.
struct Security;

impl Modify for Security {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        components
            .add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))));
    }
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", security(()), responses((status = 200, body = Object)))]
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}
