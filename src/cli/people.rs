//! The people of the demo: made from an index, so that two runs invite the same ones.

use serde_json::{Value, json};

const FIRST: &[&str] = &[
    "Ada", "Bela", "Carla", "David", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kaya", "Lea", "Milan", "Nora",
    "Omar", "Paula", "Quentin", "Rosa", "Samir", "Tessa",
];
const LAST: &[&str] = &[
    "Alvarez", "Becker", "Costa", "Dubois", "Eriksson", "Fischer", "Garcia", "Hansen", "Ivanov", "Jansen", "Keller",
    "Lopez", "Moreau", "Novak", "Olsen", "Petrov", "Quinn", "Rossi", "Schmidt", "Tanaka",
];
const COMPANY: &[&str] = &["Nordwind", "Bluebird", "Granite Works", "Lumen", "Orchard", "Pinewood", "Quayside"];

/// The `index`-th person, as an upload takes it.
pub(super) fn person(index: usize) -> Value {
    // Indices into constant, non-empty lists, taken modulo their lengths.
    let pick = |list: &[&'static str], n: usize| list.get(n % list.len()).copied().unwrap_or_default();
    let (first, last) = (pick(FIRST, index), pick(LAST, index / FIRST.len() + index * 7));
    let slug = format!("{}-{}-{index}", first.to_lowercase(), last.to_lowercase());
    json!({
        "first_name": first, "last_name": last, "company_name": pick(COMPANY, index * 3),
        "email": format!("{}@people.example", slug.replace('-', ".")),
        "linkedin_url": format!("https://www.linkedin.com/in/{slug}"),
    })
}

/// The seed's campaign: an invitation, a mail, a message.
pub(super) fn campaign() -> Value {
    json!({
        "name": "Demo: the seed's three steps",
        "flow_settings": {
            "schema_version": 1,
            "stop_on": ["reply", "unsubscribe", "hard_bounce"],
            "steps": [
                { "id": "invite", "action": "send_linkedin_cr",
                  "message": "Hi {{ first_name }}, I would like to add you to my network.",
                  "wait_for": { "trigger": "connection_accepted", "timeout": "72h", "check_every": "1h",
                                "max_checks": 168, "on_timeout": "continue" } },
                { "id": "intro", "action": "send_email", "subject": "An idea for {{ company_name | default('you') }}",
                  "message": "Hi {{ first_name }},\n\nmay I show you what we do?\n\nBest,\nAda", "delay": "48h" },
                { "id": "nudge", "action": "send_linkedin_message",
                  "message": "Hi {{ first_name }}, did my mail reach you?", "delay": "120h", "requires": ["connected"] }
            ]
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn everybody_is_somebody_else_and_the_flow_is_sound() {
        let slugs: HashSet<String> = (0..5000).map(|i| person(i)["linkedin_url"].to_string()).collect();
        let mails: HashSet<String> = (0..5000).map(|i| person(i)["email"].to_string()).collect();
        assert_eq!((slugs.len(), mails.len()), (5000, 5000));
        assert_eq!(crate::domain::flow::parse(&campaign()["flow_settings"]).unwrap().len(), 3);
    }
}
