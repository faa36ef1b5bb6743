//! What people wrote, who they are and what opens doors is in no line that the program prints, whatever it is told to log.

use serde_json::{Value, json};

use crate::processes::World;
use crate::trace::until;

/// Must not be seen, in any case. The secrets that [`World`] gives out are added to them.
const CANARIES: &[&str] = &[
    "zanzibarine",
    "quillfeather",
    "peacock@nest.example",
    "nest.example",
    "+33698765432",
    "33698765432",
    "the magpie has landed",
    "magpie",
    "an egg for breakfast",
    "cuckoo clocks incorporated",
    "dodo-database-password",
    "ostrich-in-a-path",
    "albatross-in-a-query",
    "heron-is-no-key",
    "stork-is-no-secret",
    "flamingo",
    "the secret of this test",
    "pelican-provider-key",
];

/// The same database, by an address with a password in it (the private cluster asks for none).
fn with_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, host) = rest.split_once('@').unwrap();
    let user = user.split(':').next().unwrap();
    format!("{scheme}://{user}:dodo-database-password@{host}")
}

fn campaign() -> Value {
    json!({"name": "flamingo hunt", "flow_settings": {"schema_version": 1, "steps": [
        {"id": "invite", "action": "send_linkedin_cr", "message": "The magpie has landed, {{ first_name | default('you') }}",
         "wait_for": {"trigger": "connection_accepted", "timeout": "12h"}},
        {"id": "mail", "action": "send_email", "subject": "The magpie", "message": "The magpie, {{ last_name | default('you') }}", "delay": "2h"},
        {"id": "message", "action": "send_linkedin_message", "message": "Magpie {{ company | default('you') }}", "requires": ["connected"],
         "delay": "2h"},
        {"id": "chat", "action": "send_whatsapp", "message": "The magpie again"}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_people_nor_their_words_nor_secrets_are_printed_whatever_happens_and_however_much_is_logged() {
    let world = World::new("canaries", 20_000).await;
    let _sandbox = world.start_sandbox(&["--api-key", "pelican-provider-key"]).await;
    for who in ["zanzibarine-accepts-replies", "peacock+replies@nest.example", "33699990001"] {
        let url = format!("http://127.0.0.1:{}/sandbox/people/{who}", world.sandbox);
        let conduct = json!({"reply_text": "An egg for breakfast"});
        assert!(reqwest::Client::new().patch(url).json(&conduct).send().await.unwrap().status().is_success());
    }
    let url = with_password(&world.db.url);
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("CAMPAIGND_UNIPILE__API_KEY", "pelican-provider-key"),
        ("CAMPAIGND_LOG__JSON", "true"),
        ("CAMPAIGND_TRACE__SAMPLE", "1"),
        ("RUST_LOG", "trace"),
    ];
    let server = world.start_server_with("server.log", &settings);
    world.until_answers(world.metrics, "/readyz").await;
    for (channel, id) in [
        ("linkedin", "li_account_one_0000000"),
        ("email", "mail_account_one_00000"),
        ("whatsapp", "wa_account_one_0000000"),
    ] {
        let account = json!({"channel": channel, "provider": "unipile", "provider_account_id": id, "name": "flamingo",
            "kind": "unlimited"});
        world.post("/v1/accounts", &account).await;
    }
    let id = world.post("/v1/campaigns", &campaign()).await["id"].as_str().unwrap().to_owned();
    let person = |slug: &str, mail: &str, phone: &str| {
        json!({"first_name": "Zanzibarine", "last_name": "Quillfeather", "company_name": "Cuckoo Clocks Incorporated",
            "linkedin_url": format!("https://www.linkedin.com/in/{slug}"), "email": mail, "phone": phone})
    };
    let people = json!([
        person("zanzibarine-accepts-at-once", "peacock@nest.example", "+33698765432"),
        person("zanzibarine-accepts-replies", "zanzibarine@nest.example", "+33698765433"),
        person("zanzibarine-never-accepts", "peacock+bounces@nest.example", "+33698765434"),
        person("zanzibarine-blocked", "peacock+rejected@nest.example", "+33699990003"),
        person("missing-zanzibarine", "peacock+replies@nest.example", "+33699990001"),
        person("zanzibarine-declines", "peacock+unsubscribes@nest.example", "+33698765435"),
        person("no such/profile", "zanzibarine is no address", "quillfeather is no number"),
    ]);
    let path = format!("/v1/campaigns/{id}/prospects");
    world.post(&path, &people).await;
    let key = format!("Bearer {}", world.key());
    let auth = ("authorization", key.as_str());
    let csv = "first name;last name;e-mail\nZanzibarine;Quillfeather;peacock@nest.example\nMagpie;\"unclosed;x\n";
    world.ask("POST", &path, &[auth, ("content-type", "text/csv")], csv).await;
    let break_calls = json!([{"match": {"endpoint": "*", "share": 0.15}, "effect": "fail_after"},
        {"match": {"endpoint": "*", "share": 0.15}, "effect": "fail_before"}]);
    world.order("/sandbox/faults", &break_calls).await;
    world.post(&format!("/v1/campaigns/{id}/start"), &Value::Null).await;

    // What strangers and slips bring.
    let json = ("content-type", "application/json");
    let endpoint: String =
        sqlx::query_scalar("SELECT id FROM webhook_endpoints").fetch_one(&world.db.pool).await.unwrap();
    let hook = format!("/v1/hooks/unipile/{endpoint}");
    for (method, path, headers, body) in [
        ("GET", "/v1/ostrich-in-a-path?token=albatross-in-a-query", vec![auth], ""),
        ("GET", "/v1/prospects/ostrich-in-a-path", vec![auth], ""),
        ("GET", "/v1/campaigns?status=albatross-in-a-query", vec![auth], ""),
        ("GET", "/v1/campaigns", vec![("authorization", "Bearer cmp_heron-is-no-key")], ""),
        ("GET", "/v1/campaigns", vec![("x-api-key", "heron-is-no-key")], ""),
        (
            "POST",
            "/v1/campaigns",
            vec![auth, json],
            "{\"name\": \"flamingo\", \"flow_settings\": {\"steps\": [\"flamingo\"]}}",
        ),
        ("POST", "/v1/campaigns", vec![auth, json], "{\"name\": flamingo"),
        ("POST", "/v1/triggers", vec![auth, json], "{\"trigger\": \"flamingo\", \"prospect_id\": \"flamingo\"}"),
        ("POST", "/v1/suppressions", vec![auth, json], "{\"entries\": [\"peacock@nest.example\", \"flamingo\"]}"),
        ("POST", hook.as_str(), vec![("unipile-auth", "stork-is-no-secret"), json], "{\"event\": \"flamingo\"}"),
        ("POST", hook.as_str(), vec![("unipile-auth", "the secret of this test"), json], "flamingo, the magpie"),
        (
            "POST",
            hook.as_str(),
            vec![("unipile-auth", "the secret of this test"), json, ("traceparent", "00-flamingo")],
            "{\"event\": \"message_received\", \"account_id\": \"flamingo\", \"message\": \"The magpie\"}",
        ),
        ("POST", "/v1/hooks/unipile/ostrich-in-a-path", vec![("unipile-auth", "stork-is-no-secret")], "{}"),
        ("GET", "/u/ostrich-in-a-path", vec![], ""),
    ] {
        world.ask(method, path, &headers, body).await;
    }

    let open = "SELECT count(*) FROM campaign_prospect_execution_state e WHERE status NOT IN ('completed', 'failed') \
        AND NOT EXISTS (SELECT FROM sends s WHERE s.execution_id = e.id AND s.parked_at IS NOT NULL)";
    until("everybody is through", async || world.count(open).await == 0).await;
    let facts = "SELECT count(*) FROM inbox WHERE status <> 'received'";
    until("somebody has answered", async || world.count(facts).await > 5).await;
    drop(server);

    let log = world.log("server.log");
    let traced = log.lines().filter(|line| line.contains("stage of a trace")).count();
    assert!(traced > 30 && log.contains("\"DEBUG\""), "{traced} stages in {} lines", log.lines().count());
    assert!(world.count("SELECT count(*) FROM sends WHERE status = 'sent'").await >= 10);
    let secret = world.key().rsplit('_').next().unwrap();
    let lower = log.to_lowercase();
    for canary in CANARIES.iter().copied().chain([secret, &endpoint]) {
        let seen = lower.lines().find(|line| line.contains(&canary.to_lowercase()));
        assert_eq!(seen, None, "`{canary}` was printed");
    }
}
