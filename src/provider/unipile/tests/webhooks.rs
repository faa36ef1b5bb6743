//! Delivered bodies: each recorded one as it should be read, and everything else without a panic.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::domain::account::Channel;
use crate::domain::time::Timestamp;
use crate::domain::trigger::Sighting;
use crate::provider::unipile::webhook::{Event, MailKind, Parsed, Person, Words, parse};

const RECEIVED: Timestamp = Timestamp::from_micros(1_783_328_580_000_000);

const RECORDED: &[&str] = &[
    "new_relation",
    "message_linkedin",
    "message_own",
    "message_whatsapp",
    "mail_reply",
    "mail_bounce",
    "mail_delayed",
    "mail_out_of_office",
    "mail_sent",
    "mail_by_hand",
    "mail_opened",
    "mail_link_clicked",
    "message_read",
    "message_delivered",
    "message_reaction",
    "message_edited",
    "message_deleted",
    "account_status",
    "account_restored",
    "unknown",
];

fn recorded(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/unipile/webhook_{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn check(name: &str, key: &str, event: Event) {
    assert_eq!(parse(&recorded(name), RECEIVED), Parsed { event, dedupe_key: key.into() }, "{name}");
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn mail(email_id: &str, from: &str, kind: MailKind) -> Event {
    Event::MailReceived {
        account: "mail-acc".into(),
        email_id: some(email_id),
        message_id: None,
        thread_id: None,
        in_reply_to_message_id: None,
        in_reply_to_id: None,
        from: some(from),
        kind,
    }
}

#[test]
fn a_new_relation_names_the_person() {
    check(
        "new_relation",
        "new_relation:fFl2acc:ACoAAAjane",
        Event::NewRelation {
            account: "fFl2acc".into(),
            recipient_id: some("ACoAAAjane"),
            public_identifier: some("jane-doe"),
            profile_url: some("https://www.linkedin.com/in/jane-doe/"),
        },
    );
}

fn linkedin_person(id: &str) -> Person {
    Person { id: some(id), ..Person::default() }
}

#[test]
fn a_linkedin_message_is_theirs_or_ours() {
    let message = |id: &str, from_us, sender: &str, others: Vec<Person>, text: &str, micros| Event::MessageReceived {
        account: "fFl2acc".into(),
        channel: Some(Channel::Linkedin),
        chat_id: some("chat-1"),
        message_id: some(id),
        from_us,
        is_sure: true,
        is_group: false,
        sender: linkedin_person(sender),
        others,
        text: Some(Words::new(text)),
        timestamp: Some(Timestamp::from_micros(micros)),
    };
    let at = 1_783_331_007_002_000;
    let theirs = message("msg-1", false, "ACoAAAjane", Vec::new(), "Sounds good", at);
    check("message_linkedin", "message_received:msg-1", theirs);
    // Without is_sender, as the documentation has it.
    let jane = vec![linkedin_person("ACoAAAjane")];
    let ours = message("msg-2", true, "ACoAAAown", jane, "Hi Jane", 1_783_328_400_000_000);
    check("message_own", "message_received:msg-2", ours);
}

#[test]
fn a_whatsapp_message_names_the_writer_by_lid_jid_and_number() {
    check(
        "message_whatsapp",
        "message_received:msg-9",
        Event::MessageReceived {
            account: "wa-acc".into(),
            channel: Some(Channel::Whatsapp),
            chat_id: some("chat-9"),
            message_id: some("msg-9"),
            from_us: false,
            is_sure: true,
            is_group: false,
            sender: Person {
                id: some("140111@lid"),
                public: some("33612345678@s.whatsapp.net"),
                phone: some("+33612345678"),
                lid: some("140111@lid"),
            },
            others: Vec::new(),
            text: Some(Words::new("Oui")),
            timestamp: Some(Timestamp::from_micros(1_779_098_400_000_000)),
        },
    );
}

/// A message without the field that says whose it is, as `from us, and sure of it`.
fn whose(info: &Value, sender: &Value) -> (bool, bool) {
    let body = json!({"event": "message_received", "account_id": "wa", "account_type": "WHATSAPP", "message_id": "m",
        "account_info": info, "sender": sender});
    let Event::MessageReceived { from_us, is_sure, .. } = parse(body.to_string().as_bytes(), RECEIVED).event else {
        panic!()
    };
    (from_us, is_sure)
}

#[test]
fn whose_message_it_is_shows_in_any_of_the_names_and_else_it_is_a_guess() {
    let info = json!({"type": "WHATSAPP", "phone_number": "+33 612"});
    let hidden = json!({"phone_number": "hidden", "lid": "140@lid"});
    let own = json!({"attendee_provider_id": "140@lid", "attendee_public_identifier": "33612@s.whatsapp.net",
        "attendee_specifics": hidden});
    let theirs = json!({"attendee_provider_id": "33699@s.whatsapp.net"});
    let nobody = json!({"attendee_provider_id": "140@lid", "attendee_specifics": hidden});
    assert_eq!(whose(&info, &own), (true, true));
    assert_eq!(whose(&info, &theirs), (false, true));
    assert_eq!(whose(&info, &nobody), (false, false));
    assert_eq!(whose(&Value::Null, &theirs), (false, false));
    let info = json!({"user_id": "ACoAAAown"});
    assert_eq!(whose(&info, &json!({"attendee_provider_id": "ACoAAAown"})), (true, true));
    assert_eq!(whose(&info, &json!({"attendee_provider_id": "ACoAAAjane"})), (false, true));
}

#[test]
fn a_message_without_a_word_of_ours_for_the_network_is_on_its_accounts_channel() {
    for (kind, expected) in [
        (json!("linkedin"), Some(Channel::Linkedin)),
        (json!(null), None),
        (json!("LINKEDIN_RECRUITER"), None),
        (json!(7), None),
    ] {
        let body = json!({"event": "message_received", "account_id": "a", "message_id": "m", "account_type": kind});
        let event = parse(body.to_string().as_bytes(), RECEIVED).event;
        let channel = |event| match event {
            Event::MessageReceived { channel, .. } => channel,
            other => panic!("{other:?}"),
        };
        assert_eq!(channel(event.clone()), expected, "{kind}");
        assert_eq!(channel(event.on(Channel::Linkedin)), Some(Channel::Linkedin), "{kind}");
    }
}

#[test]
fn a_text_that_was_cut_in_an_emoji_hides_no_fact() {
    let body = br#"{"event":"message_received","account_id":"a","account_type":"LINKEDIN","message_id":"m1",
        "is_sender":false,"sender":{"attendee_provider_id":"ACoAAAjane"},"message":"No thanks \ud83d"}"#;
    let parsed = parse(body, RECEIVED);
    let Event::MessageReceived { sender, .. } = parsed.event else { panic!("{parsed:?}") };
    assert_eq!((sender.id.as_deref(), parsed.dedupe_key.as_str()), (Some("ACoAAAjane"), "message_received:m1"));
}

#[test]
fn what_was_written_is_not_shown() {
    let shown = format!("{:?}", parse(&recorded("message_own"), RECEIVED));
    assert!(shown.contains("[7 bytes]") && !shown.contains("Hi Jane"), "{shown}");
}

#[test]
fn a_message_of_ours_that_was_seen_names_itself_and_how() {
    let seen = |account: &str, channel, chat: &str, id: &str, how| Event::MessageSeen {
        account: account.into(),
        channel: Some(channel),
        chat_id: some(chat),
        message_id: some(id),
        from_us: true,
        how,
    };
    let read = seen("fFl2acc", Channel::Linkedin, "chat-1", "msg-2", Sighting::Read);
    check("message_read", "message_read:msg-2", read);
    // Without is_sender: what is delivered is ours.
    let delivered = seen("wa-acc", Channel::Whatsapp, "chat-9", "msg-8", Sighting::Delivered);
    check("message_delivered", "message_delivered:msg-8", delivered);
}

#[test]
fn changes_of_a_message_are_kept_each_under_its_bytes() {
    let mut keys = Vec::new();
    for what in ["message_reaction", "message_edited", "message_deleted"] {
        let Parsed { event, dedupe_key } = parse(&recorded(what), RECEIVED);
        assert_eq!(event, Event::MessageChanged { account: "fFl2acc".into(), what });
        assert_eq!(event.name(), what);
        assert!(dedupe_key.starts_with("sha256:"));
        keys.push(dedupe_key);
    }
    keys.dedup();
    assert_eq!(keys.len(), 3);
}

#[test]
fn a_mail_that_left_the_mailbox_tells_whom_it_went_to_and_who_sent_it() {
    check(
        "mail_by_hand",
        "mail_sent:hand-1",
        Event::MailSent {
            account: "mail-acc".into(),
            email_id: some("hand-1"),
            provider_id: some("prov-77"),
            message_id: some("<hand-1@us.test>"),
            thread_id: some("thread-1"),
            tracking_id: None,
            through_api: false,
            send: None,
            to: vec!["jane@acme.test".into()],
            subject: Some(Words::new("Re: A question")),
            text: Some(Words::new("Shall we talk?")),
            timestamp: Some(Timestamp::from_micros(1_783_332_000_000_000)),
        },
    );
    // Ours, and told as if it had been received.
    let parsed = parse(&recorded("mail_sent"), RECEIVED);
    assert_eq!(parsed.dedupe_key, "mail_sent:own-1");
    assert!(matches!(parsed.event, Event::MailSent { through_api: true, .. }));
    let header = json!({"event": "mail_sent", "account_id": "a", "email_id": "e", "role": "sent",
        "headers": [{"name": "x-campaignd-send", "value": "01900000-0000-7000-8000-000000000042"}]});
    let Event::MailSent { send, .. } = parse(header.to_string().as_bytes(), RECEIVED).event else { panic!() };
    assert_eq!(send.unwrap().to_string(), "01900000-0000-7000-8000-000000000042");
    let draft = json!({"event": "mail_sent", "account_id": "a", "email_id": "e", "role": "drafts"});
    let event = parse(draft.to_string().as_bytes(), RECEIVED).event;
    assert!(matches!(event, Event::MailReceived { kind: MailKind::Ours, .. }));
}

#[test]
fn an_opened_mail_names_its_send_by_the_label_and_else_its_tracking_id() {
    let tracked = |how, send: Option<&str>| Event::MailTracked {
        account: some("mail-acc"),
        how,
        send: send.map(|id| id.parse().unwrap()),
        tracking_id: some("JRekFgKASkenrTYuB-Myog"),
    };
    let opened = tracked(Sighting::Opened, Some("01900000-0000-7000-8000-000000000042"));
    check("mail_opened", "mail_opened:s-5DTo49QZ-uGZFij4qQcA", opened);
    check("mail_link_clicked", "mail_link_clicked:t-5DTo49QZ-uGZFij4qQcA", tracked(Sighting::Clicked, None));
}

#[test]
fn a_mail_reply_names_what_it_answers() {
    check(
        "mail_reply",
        "mail_received:YPNSmail",
        Event::MailReceived {
            account: "mail-acc".into(),
            email_id: some("YPNSmail"),
            message_id: some("<reply-1@acme.test>"),
            thread_id: some("thread-1"),
            in_reply_to_message_id: some("<sent-1@us.test>"),
            in_reply_to_id: some("sent-prov-1"),
            from: some("jane@acme.test"),
            kind: MailKind::Reply,
        },
    );
}

#[test]
fn bounces_automatic_answers_and_our_own_mail_are_not_replies() {
    let bounce = |to: &str, hard| MailKind::Bounce { failed: vec![to.into()], hard };
    for (name, kind) in [
        ("mail_bounce", bounce("gone@acme.test", true)),
        ("mail_delayed", bounce("slow@acme.test", false)),
        ("mail_out_of_office", MailKind::AutoReply),
    ] {
        let Event::MailReceived { kind: read, .. } = parse(&recorded(name), RECEIVED).event else { panic!("{name}") };
        assert_eq!(read, kind, "{name}");
    }
    check(
        "mail_delayed",
        "mail_received:bounce-2",
        mail("bounce-2", "mailer-daemon@googlemail.test", bounce("slow@acme.test", false)),
    );
}

#[test]
fn what_a_mail_is_shows_in_sender_subject_and_body() {
    let hard = || MailKind::Bounce { failed: vec!["x@acme.test".into()], hard: true };
    let soft = || MailKind::Bounce { failed: vec!["x@acme.test".into()], hard: false };
    for (from, subject, body, expected) in [
        ("jane@acme.test", "Re: Delivery failure", "x@acme.test 5.1.1", MailKind::Reply),
        ("jane@acme.test", "RE: Out of office next week?", "", MailKind::Reply),
        ("jane@acme.test", "Urlaub und Preise", "", MailKind::Reply),
        ("jane@acme.test", "Out of Office: Re: A question", "", MailKind::AutoReply),
        ("jane@acme.test", "Réponse automatique : une question", "", MailKind::AutoReply),
        ("jane@acme.test", "Respuesta automática: hola", "", MailKind::AutoReply),
        ("jane@acme.test", "自动回复: hello", "", MailKind::AutoReply),
        ("postmaster@acme.test", "Undeliverable: A question", "<a href=\"mailto:x@acme.test\">", hard()),
        ("postmaster@acme.test", "Unzustellbar: A question", "x@acme.test 4.2.2", soft()),
        ("postmaster@acme.test", "Your quota", "hello", MailKind::AutoReply),
        ("mailer-daemon@acme.test", "anything", "X@Acme.test is unknown here", hard()),
        ("mailer-daemon@acme.test", "Delayed Mail (still being retried)", "x@acme.test", soft()),
        ("mailer-daemon@acme.test", "x", "mx 10.4.1.1 says 550 5.7.1 to x@acme.test", hard()),
    ] {
        let body = json!({"event": "mail_received", "account_id": "a", "email_id": "e", "role": "inbox", "subject": subject,
            "body_plain": body, "from_attendee": {"identifier": from}, "to_attendees": [{"identifier": "us@us.test"}]});
        let Event::MailReceived { kind, .. } = parse(body.to_string().as_bytes(), RECEIVED).event else { panic!() };
        assert_eq!(kind, expected, "{from} {subject}");
    }
}

#[test]
fn a_status_change_is_one_fact_within_a_minute() {
    let event = Event::AccountStatus { account: "fFl2acc".into(), message: "CREDENTIALS".into() };
    check("account_status", "account_status:fFl2acc:CREDENTIALS:29722143", event);
    let event = Event::AccountStatus { account: "fFl2acc".into(), message: "RECONNECTED".into() };
    check("account_restored", "account_status:fFl2acc:RECONNECTED:29722143", event);
    let later = RECEIVED + std::time::Duration::from_secs(60);
    assert_ne!(
        parse(&recorded("account_status"), later).dedupe_key,
        parse(&recorded("account_status"), RECEIVED).dedupe_key
    );
}

#[test]
fn what_we_do_not_know_is_kept_under_the_hash_of_its_bytes() {
    let unknown = parse(&recorded("unknown"), RECEIVED);
    assert_eq!(unknown.event, Event::Unknown { event: "mail_moved".into() });
    assert!(unknown.dedupe_key.starts_with("sha256:"), "{}", unknown.dedupe_key);
    for body in
        [&b""[..], b"a=b", b"\xff\xfe", b"[]", b"1", b"{}", br#"{"event":"new_relation"}"#, br#"{"AccountStatus":1}"#]
    {
        assert!(matches!(parse(body, RECEIVED).event, Event::Unreadable { .. }), "{body:?}");
    }
    let system = br#"{"event":"message_received","account_id":"a","message_id":"m","is_event":1}"#;
    assert!(matches!(parse(system, RECEIVED).event, Event::Unknown { .. }));
}

#[test]
fn texts_are_trimmed_bounded_and_free_of_nul() {
    let body = json!({"event": "new_relation", "account_id": " a\u{0}b ", "user_provider_id": "ü".repeat(5000)});
    let parsed = parse(body.to_string().as_bytes(), RECEIVED);
    let Event::NewRelation { account, recipient_id, .. } = parsed.event else { panic!() };
    assert_eq!(account, "ab");
    assert_eq!(recipient_id.unwrap().chars().count(), 512);
    assert!(parsed.dedupe_key.starts_with("sha256:"));
}

/// No NUL anywhere, nothing beyond its bounds.
fn storable(parsed: &Parsed) {
    assert!(parsed.dedupe_key.len() <= 300 && !parsed.dedupe_key.contains('\0'));
    let shown = format!("{:?}", parsed.event);
    assert!(!shown.contains("\\0") && shown.len() < 64 * 1024);
}

#[test]
fn every_recorded_body_survives_any_value_anywhere() {
    let values = [
        json!(null),
        json!(true),
        json!(1),
        json!(-1.5e300),
        json!("\u{0}<>@.x"),
        json!([]),
        json!([1, {}]),
        json!({}),
    ];
    for name in RECORDED {
        let body: Value = serde_json::from_slice(&recorded(name)).unwrap();
        for path in paths(&body, "") {
            for value in &values {
                let mut changed = body.clone();
                *changed.pointer_mut(&path).unwrap() = value.clone();
                storable(&parse(changed.to_string().as_bytes(), RECEIVED));
            }
        }
    }
}

/// Every place in a document, as JSON pointers.
fn paths(value: &Value, at: &str) -> Vec<String> {
    let inner: Vec<String> = match value {
        Value::Object(map) => map.iter().flat_map(|(k, v)| paths(v, &format!("{at}/{k}"))).collect(),
        Value::Array(items) => items.iter().enumerate().flat_map(|(i, v)| paths(v, &format!("{at}/{i}"))).collect(),
        _ => Vec::new(),
    };
    std::iter::once(at.to_owned()).chain(inner).collect()
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        Just("message_received".to_owned()),
        Just("mail_received".to_owned()),
        Just("new_relation".to_owned()),
        Just("mail_sent".to_owned()),
        Just("message_read".to_owned()),
        Just("mail_opened".to_owned()),
        Just("mailer-daemon@x.test".to_owned()),
        Just("Status: 5.é\u{0}.1\nFinal-Recipient: a@b.c".to_owned()),
    ];
    let key = prop_oneof![
        any::<String>(),
        prop::sample::select(vec!["event", "account_id", "AccountStatus", "sender", "from_attendee", "identifier"])
            .prop_map(str::to_owned),
        prop::sample::select(vec!["subject", "body_plain", "in_reply_to", "to_attendees", "message", "message_id"])
            .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..512)) {
        storable(&parse(&body, RECEIVED));
    }

    #[test]
    fn any_json_is_read_without_a_panic(body in any_json(), received in any::<i64>()) {
        storable(&parse(body.to_string().as_bytes(), Timestamp::from_micros(received)));
    }
}

#[test]
fn a_body_that_is_delivered_again_in_another_spelling_is_the_same_fact() {
    // Those without an id of their own go by their bytes.
    let by_bytes = ["message_reaction", "message_edited", "message_deleted", "unknown"];
    for name in RECORDED.iter().filter(|name| !by_bytes.contains(name)) {
        let body: Value = serde_json::from_slice(&recorded(name)).unwrap();
        let first = parse(&recorded(name), RECEIVED);
        for again in [body.to_string(), serde_json::to_string_pretty(&body).unwrap(), format!("  {body}\n")] {
            assert_eq!(parse(again.as_bytes(), RECEIVED), first, "{name}");
        }
        assert!(!first.dedupe_key.starts_with("sha256:"), "{name}");
    }
}
