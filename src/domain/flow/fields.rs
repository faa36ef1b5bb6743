//! Merge fields that may be missing: what is refused when a flow is saved, and what an upload has to bring along for it.
//!
//! Apart from [`super::parse`], which also reads flows that were saved before there was this rule: those go on, and a step fails
//! for whom a field is missing.

use super::super::account::Channel;
use super::super::send::Action;
use super::super::template::{self, UNSUBSCRIBE_URL};
use super::{Flow, Problem, Step};

/// What a template writes that may have no value: each place once, with how to mend it.
///
/// A field is always there if it is the column that a list of people has to have (`first_name`, and so `name`: an upload says how
/// many rows lack it), if it is the address that the step goes to, or if it has a default.
pub fn missing_fields(flow: &Flow) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (i, step) in flow.steps.iter().enumerate() {
        for (key, text) in texts(step) {
            for name in undefaulted(text).filter(|name| !is_always_there(step.action, name)) {
                let message = if name == UNSUBSCRIBE_URL {
                    format!("only a mail has a link to unsubscribe: take {{{{ {name} }}}} out of this {}", step.action)
                } else {
                    format!("`{name}` may be missing: write {{{{ {name} | default(\"...\") }}}}")
                };
                problems.push(Problem { path: format!("$.steps[{i}].{key}"), message });
            }
        }
    }
    problems
}

/// Whether a step fails for somebody without a name: a text writes it and says nothing about what to write instead.
pub fn needs_first_name(flow: &Flow) -> bool {
    flow.steps.iter().flat_map(texts).any(|(_, text)| undefaulted(text).any(|name| is_name(&name)))
}

fn is_name(field: &str) -> bool {
    matches!(field, "first_name" | "name")
}

fn is_always_there(action: Action, field: &str) -> bool {
    let address = match action.channel() {
        Some(Channel::Email) => field == "email" || field == UNSUBSCRIBE_URL,
        Some(Channel::Linkedin) => field == "linkedin_url",
        Some(Channel::Whatsapp) => field == "phone",
        None => false,
    };
    address || is_name(field) || field == "data"
}

fn texts(step: &Step) -> impl Iterator<Item = (&'static str, &str)> {
    [("subject", &step.subject), ("message", &step.message)]
        .into_iter()
        .filter_map(|(key, text)| text.as_deref().map(|t| (key, t)))
}

/// The fields without a default. A text that does not compile was refused before.
fn undefaulted(text: &str) -> impl Iterator<Item = String> {
    let found = template::check(text).unwrap_or_default();
    found.into_iter().filter(|v| !v.has_default).map(|v| v.name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::flow::parse;

    fn flow(steps: Value) -> Flow {
        parse(&json!({"schema_version": 1, "steps": steps})).unwrap()
    }

    #[test]
    fn a_field_that_may_be_missing_is_refused_with_its_place() {
        let bad = flow(json!([
            {"id": "a", "action": "send_email", "subject": "{{ company_name }}", "message": "{{ first_name }} {{ last_name }}
                {{ email }} {{ phone }} {{ title | default('') }} {{ unsubscribe_url }} {% if company is defined %}{{ company }}{% endif %}"},
            {"id": "b", "action": "send_whatsapp", "message": "{{ name }} {{ phone }} {{ email }} {{ unsubscribe_url }}"},
            {"id": "c", "action": "send_linkedin_cr", "message": "{{ linkedin_url }} {{ data.role | default('x') }}"},
        ]));
        let found: Vec<(String, String)> = missing_fields(&bad)
            .into_iter()
            .map(|p| (p.path, p.message.split('`').nth(1).unwrap_or("link").to_owned()))
            .collect();
        let found: Vec<(&str, &str)> = found.iter().map(|(path, name)| (path.as_str(), name.as_str())).collect();
        assert_eq!(
            found,
            [
                ("$.steps[0].subject", "company_name"),
                ("$.steps[0].message", "last_name"),
                ("$.steps[0].message", "phone"),
                ("$.steps[0].message", "company"),
                ("$.steps[1].message", "email"),
                ("$.steps[1].message", "link"),
            ]
        );
    }

    #[test]
    fn a_name_is_needed_only_where_nothing_stands_in_for_it() {
        let with = |message: &str| flow(json!([{"id": "a", "action": "send_linkedin_cr", "message": message}]));
        for (message, needed) in [
            ("Hi {{ first_name }}", true),
            ("Hi {{ name }}", true),
            ("Hi {{ first_name | default('there') }}", false),
            ("Hi", false),
        ] {
            assert_eq!(needs_first_name(&with(message)), needed, "{message}");
            assert!(missing_fields(&with(message)).is_empty(), "{message}");
        }
    }
}
