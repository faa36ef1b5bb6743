//! Templates at the door: what is refused when a campaign is saved, and what a preview shows.

use std::sync::{Arc, Mutex};

use campaignd::domain::account::Channel;
use serde_json::json;

use crate::client::Api;
use crate::fake::{Act, Rig};

#[tokio::test]
async fn a_campaign_whose_fields_may_be_missing_is_not_saved() {
    let api = Api::new().await;
    let with = |message: &str| {
        json!({"name": "x", "flow_settings": {"schema_version": 1, "steps": [
            {"id": "mail", "action": "send_email", "subject": "Hi", "message": message}]}})
    };
    for (message, field) in [
        ("Dear {{ last_name }}", "last_name"),
        ("At {{ company_name }}", "company_name"),
        ("Call {{ phone }}", "phone"),
        ("You, {{ data.role }}", "data.role"),
        ("{{ shoe_size }}", "shoe_size"),
    ] {
        let problem = api.post("/v1/campaigns", with(message)).await.problem(422, "invalid_flow");
        assert_eq!(problem["problems"][0]["path"], "$.steps[0].message", "{message}");
        assert!(problem["problems"][0]["message"].as_str().unwrap().contains(field), "{problem}");
    }
    for message in ["Hi {{ first_name }}, {{ email }}, {{ last_name | default('') }}", "{{ unsubscribe_url }}", "Plain"]
    {
        api.post("/v1/campaigns", with(message)).await.ok(201);
    }
    assert_eq!(api.count("SELECT count(*) FROM campaigns").await, 3);
}

#[tokio::test]
async fn an_upload_says_how_many_have_no_name_to_write() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let people =
        "first_name,email,linkedin\n,ada@example.org,linkedin.com/in/ada\nBob,bob@example.org,linkedin.com/in/bob\n";
    let report = api.csv(&campaign, people).await.ok(201);
    assert_eq!(report["accepted"], 2);
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{report}");
    assert!(warnings[0].as_str().unwrap().starts_with("1 of 2 accepted rows have no first_name"), "{report}");
}

#[tokio::test]
async fn a_preview_shows_each_text_its_length_and_its_problems() {
    let api = Api::new().await;
    let flow = json!({"schema_version": 1, "steps": [
        {"id": "invite", "action": "send_linkedin_cr", "message": "Hi {{ first_name }}"},
        {"id": "mail", "action": "send_email", "subject": "{{ data.topic | default('A word') }}", "message": "{{ company }}"}]});
    let ask = |prospect| json!({"flow_settings": flow, "prospect": prospect});
    let made =
        api.post("/v1/campaigns/preview", ask(json!({"First Name": "Ada", "email": "ada@example.org"}))).await.ok(200);
    assert_eq!(made["ok"], false);
    assert_eq!(
        made["steps"][0]["texts"],
        json!([{"key": "message", "text": "Hi Ada", "length": 6, "length_max": 300}])
    );
    assert_eq!(made["steps"][1]["texts"][0]["text"], "A word");
    let paths: Vec<&str> = made["problems"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["$.steps[1].message", "$.steps[1].message"], "refused when saved, and empty for this person");
    // A subject cannot be made to hold a second header.
    let spy = json!({"first_name": "Ada", "email": "ada@example.org", "company": "Acme", "topic": "x\r\nBcc: spy@example.org"});
    let made = api.post("/v1/campaigns/preview", ask(spy)).await.ok(200);
    assert_eq!(made["steps"][1]["texts"][0]["text"], json!(null));
    assert!(made["problems"][1]["message"].as_str().unwrap().contains("line break"), "{made}");

    let bad = api.post("/v1/campaigns/preview", ask(json!({"email": "nobody"}))).await.problem(422, "invalid_fields");
    assert_eq!(bad["problems"][0]["path"], "$.prospect[\"email\"]");
    let broken = json!({"flow_settings": {"steps": []}, "prospect": {}});
    api.post("/v1/campaigns/preview", broken).await.problem(422, "invalid_flow");
    assert_eq!(api.count("SELECT count(*) FROM campaigns").await, 0);
}

#[tokio::test]
async fn no_field_of_a_person_reaches_the_provider_with_a_line_break_where_a_header_could_be_added() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let flow = json!({"schema_version": 1, "steps": [
        {"id": "mail", "action": "send_email", "subject": "For {{ data.team | default('you') }}", "message": "Hello"}]});
    let campaign = rig.campaign(&flow).await;
    let people = rig.prospects(campaign, 3).await;
    // As another program may write them: past every check of an upload.
    let spoil = |n: usize, what: &str| {
        let id = people[n];
        format!(
            "UPDATE campaign_prospects SET {what} WHERE id = (SELECT prospect_id FROM campaign_prospect_execution_state
             WHERE id = '{id}');"
        )
    };
    let script = [
        spoil(0, "first_name = E'Ada\\r\\nBcc: spy@example.org', last_name = NULL"),
        spoil(1, "email = E'ada@example.org\\r\\nBcc: spy@example.org'"),
        spoil(2, "data = '{\"team\": \"x\\r\\nBcc: spy@example.org\"}'"),
    ];
    rig.db.script(script.concat()).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    rig.fake.script(move |request, _| {
        let to = &request.recipient;
        noted.lock().unwrap().push((to.name.clone(), to.email.clone(), request.subject.clone()));
        Act::Ok
    });
    rig.start().await;
    for person in &people {
        rig.until(*person, "ended", |e| e.exit_reason.is_some()).await;
    }
    let failed = rig.execution(people[2]).await;
    assert!(failed.last_error.as_ref().unwrap().contains("line break"), "{failed:?}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "the third has no subject that could be sent: {seen:?}");
    for (name, email, subject) in seen.iter() {
        for field in [name, email, subject].into_iter().flatten() {
            assert!(!field.chars().any(char::is_control), "{field:?}");
        }
    }
    assert!(seen.iter().any(|(_, email, _)| email.is_none()), "an address with a line break is none: {seen:?}");
}
