//! Reads a step's `subject` and `message` and checks them as templates.

use serde_json::{Map, Value};

use super::super::limits;
use super::super::send::Action;
use super::super::template::{self, Variable};
use super::names::{self, nearest, quote};
use super::parse::{Form, Reader, kind};
use super::problem::Place;
use super::steps::Does;

/// The longest template of a message that is no mail, in characters.
const MESSAGE_MAX: usize = 8000;

/// The subject and the message. Both are `None` after a problem too.
pub(super) fn read(
    reader: &mut Reader,
    map: &Map<String, Value>,
    step: &Place,
    does: Does,
    in_thread: bool,
) -> (Option<String>, Option<String>) {
    let Does::Built(action) = does else {
        // What the step does is unknown, but a template is a template.
        for key in ["subject", "message"] {
            if let Some(Value::String(text)) = reader.get(map, key) {
                check(reader, text, &step.key(key));
            }
        }
        return (None, None);
    };
    (
        read_subject(reader, map, &step.key("subject"), action, in_thread),
        read_message(reader, map, &step.key("message"), action),
    )
}

fn read_subject(
    reader: &mut Reader,
    map: &Map<String, Value>,
    place: &Place,
    action: Action,
    in_thread: bool,
) -> Option<String> {
    let Some(most) = limits::subject_max(action) else {
        if reader.form == Form::Current && map.contains_key("subject") {
            reader.add(place, format!("{action} has no subject: remove it"));
        }
        return None;
    };
    // The thread has one.
    if in_thread && !map.contains_key("subject") {
        return None;
    }
    let what = if action == Action::SendEmail { "a mail needs a subject" } else { "an InMail needs a subject" };
    let text = present(reader, map, "subject", place, what)?;
    if text.chars().any(template::breaks_line) {
        reader.add(place, "holds a line break or another control character: write it on one line");
        return None;
    }
    if template::static_length(&text) > most {
        reader.add(place, format!("is longer than {most} characters: shorten it"));
    }
    check(reader, &text, place).then_some(text)
}

fn read_message(reader: &mut Reader, map: &Map<String, Value>, place: &Place, action: Action) -> Option<String> {
    match action {
        Action::Wait => {
            if reader.form == Form::Current && map.contains_key("message") {
                reader.add(place, "wait sends nothing: remove the message");
            }
            return None;
        }
        Action::VisitLinkedinProfile => {
            if reader.form == Form::Current && map.contains_key("message") {
                reader.add(place, "a visit says nothing: remove the message");
            }
            return None;
        }
        Action::SendLinkedinCr => {
            let empty = |v: &Value| v.as_str().is_some_and(|s| s.trim().is_empty());
            match reader.get(map, "message") {
                None => return None,
                Some(v) if empty(v) && reader.form == Form::Legacy => return None,
                Some(_) => {}
            }
        }
        Action::SendLinkedinMessage | Action::SendLinkedinInmail | Action::SendEmail | Action::SendWhatsapp => {}
    }
    let text = present(reader, map, "message", place, &format!("{action} needs a message"))?;
    if action == Action::SendEmail {
        if text.len() > template::TEMPLATE_MAX_BYTES {
            reader
                .add(place, format!("has {} bytes: at most {} are allowed", text.len(), template::TEMPLATE_MAX_BYTES));
            return None;
        }
    } else {
        let length = text.chars().count();
        if length > MESSAGE_MAX {
            reader.add(place, format!("has {length} characters: at most {MESSAGE_MAX} are allowed"));
            return None;
        }
    }
    let fixed = template::static_length(&text);
    if let Some(most) = limits::text_max(action).filter(|most| fixed > *most) {
        let what = limits::text_name(action);
        reader.add(
            place,
            format!("{what} has at most {most} characters, this one {fixed} without its variables: shorten it"),
        );
    }
    check(reader, &text, place).then_some(text)
}

fn present(reader: &mut Reader, map: &Map<String, Value>, key: &str, place: &Place, need: &str) -> Option<String> {
    match reader.get(map, key) {
        Some(Value::String(text)) if !text.trim().is_empty() => return Some(text.clone()),
        Some(Value::String(_)) => reader.add(place, format!("is empty: {need}")),
        Some(other) => reader.add(place, format!("must be a text, not {}", kind(other))),
        None => reader.add(place, format!("is missing: {need}")),
    }
    None
}

/// Reports what is wrong with a template; whether nothing is.
fn check(reader: &mut Reader, text: &str, place: &Place) -> bool {
    let variables = match template::check(text) {
        Ok(variables) => variables,
        Err(e) => {
            reader.add(place, e.0);
            return false;
        }
    };
    let mut good = true;
    for Variable { name, .. } in
        variables.iter().filter(|v| !v.has_default && !names::VARIABLES.contains(&v.name.as_str()))
    {
        good = false;
        let name = quote(name);
        let parts = name.split('.').count();
        let of_data = name.starts_with("data.");
        let message = if parts > 2 || (parts == 2 && !of_data) {
            format!(
                "variable `{name}`: a field of a field may be missing; put the value into the prospect's data and write {{{{ data.x | default(\"...\") }}}}"
            )
        } else if let Some(near) = nearest(&name, names::VARIABLES.iter().copied()).filter(|_| !of_data) {
            format!(
                "unknown variable `{name}`: did you mean `{near}`? otherwise write {{{{ {name} | default(\"...\") }}}}"
            )
        } else {
            let what = if of_data { "variable" } else { "unknown variable" };
            format!("{what} `{name}` may be missing: write {{{{ {name} | default(\"...\") }}}}")
        };
        reader.add(place, message);
    }
    for name in names::VARIABLES.iter().filter(|name| in_single_braces(text, name)) {
        good = false;
        reader.add(place, format!("`{{{name}}}` would be sent as it stands: write {{{{ {name} }}}}"));
    }
    good
}

/// Whether a variable stands in single braces, as other tools write them: people would read the braces.
fn in_single_braces(text: &str, name: &str) -> bool {
    let wanted = format!("{{{name}}}");
    text.match_indices(&wanted).any(|(at, found)| {
        let (before, after) = (&text[..at], &text[at + found.len()..]);
        !before.ends_with('{') || !after.starts_with('}')
    })
}
