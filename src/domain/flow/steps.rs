//! Reads one step.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::duration;
use super::super::send::Action;
use super::names::{self, mend_word, not_built, quote};
use super::parse::{Form, Reader, kind};
use super::problem::Place;
use super::wait::{self, WaitDraft};
use super::{Requires, Step, Track, legacy, text};

/// The longest id.
const ID_MAX: usize = 64;

/// What a step does, as far as it could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// Something that is built.
    Built(Action),
    /// `end`: nothing comes after it.
    End,
    /// Unknown, missing, or not built. It has been reported; what comes after it comes after it.
    Other,
}

/// A step as it was read. What is `None` has been reported.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) place: Place,
    pub(super) id: Option<String>,
    pub(super) does: Does,
    pub(super) subject: Option<String>,
    pub(super) message: Option<String>,
    pub(super) in_thread: bool,
    pub(super) note_required: bool,
    pub(super) track: Track,
    pub(super) delay: Option<Duration>,
    /// The outer one: whether the step waits.
    pub(super) wait: Option<WaitDraft>,
    pub(super) requires: Requires,
}

impl Draft {
    /// The finished step; `None` if something of it could not be read.
    pub(super) fn finish(self, ids: &[Option<String>]) -> Option<Step> {
        let Does::Built(action) = self.does else { return None };
        let wait_for = match self.wait {
            None => None,
            Some(wait) => Some(wait.finish(ids)?),
        };
        // With a wait the delay is its deadline.
        let delay = if wait_for.is_some() { Duration::ZERO } else { self.delay? };
        Some(Step {
            id: self.id?,
            action,
            subject: self.subject,
            message: self.message,
            in_thread: self.in_thread,
            note_required: self.note_required,
            track: self.track,
            delay,
            wait_for,
            requires: self.requires,
        })
    }
}

/// Reads the step at a place; `index` is its 0-based position.
pub(super) fn read(reader: &mut Reader, value: &Value, place: &Place, index: usize) -> Draft {
    let mut draft = Draft {
        place: place.clone(),
        id: None,
        does: Does::Other,
        subject: None,
        message: None,
        in_thread: false,
        note_required: false,
        track: Track::default(),
        delay: None,
        wait: None,
        requires: Requires::default(),
    };
    let Value::Object(map) = value else {
        reader.add(place, format!("must be an object with `id` and `action`, not {}", kind(value)));
        return draft;
    };
    draft.id = read_id(reader, map, &place.key("id"), index);
    let later;
    (draft.does, later) = read_action(reader, map, place);
    if later {
        // Its keys are not known here: nothing more can be said about it.
        return draft;
    }
    reader.unknown_keys(map, place, names::STEP);
    read_variants(reader, map, &place.key("variants"));
    draft.in_thread = read_in_thread(reader, map, &place.key("in_thread"), draft.does);
    draft.note_required = read_note_required(reader, map, &place.key("note_required"), draft.does);
    draft.track = read_track(reader, map, &place.key("track"), draft.does);
    (draft.subject, draft.message) = text::read(reader, map, place, draft.does, draft.in_thread);
    let delay = read_delay(reader, map, place);
    draft.wait = reader.get(map, "wait_for").map(|w| wait::read(reader, w, &place.key("wait_for"), place, delay));
    draft.delay = match delay {
        Given::No => Some(Duration::ZERO),
        Given::Bad => None,
        Given::Is(d) => Some(d),
    };
    if let Some(value) = reader.get(map, "requires")
        && let Some(words) = reader.words(value, &place.key("requires"), names::FACTS, names::FACTS_LATER)
    {
        draft.requires.connected = words.contains(&"connected");
    }
    draft
}

fn read_id(reader: &mut Reader, map: &Map<String, Value>, place: &Place, index: usize) -> Option<String> {
    if reader.form == Form::Legacy
        && let Some(id) = legacy::id(map, index)
    {
        return Some(id);
    }
    let Some(value) = map.get("id") else {
        reader.add(place, format!("is missing: give the step a name of its own, such as \"step_{}\"", index + 1));
        return None;
    };
    let good = |s: &&str| {
        (1..=ID_MAX).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let id = value.as_str().filter(good);
    if id.is_none() {
        reader.add(place, format!("must be a text of 1 to {ID_MAX} letters, digits, `_` and `-`"));
    }
    id.map(str::to_owned)
}

/// What the step does, and whether it is something that is not built yet.
fn read_action(reader: &mut Reader, map: &Map<String, Value>, step: &Place) -> (Does, bool) {
    let known: Vec<&str> = Action::ALL.iter().map(|a| a.as_str()).collect();
    let (key, value) = match reader.get(map, "action") {
        None if reader.form == Form::Legacy => ("type", reader.get(map, "type")),
        other => ("action", other),
    };
    let Some(value) = value else {
        // `type` in the current form is an unknown key that says what to do.
        if !map.contains_key("type") || reader.form == Form::Legacy {
            reader.add(&step.key("action"), format!("is missing: say what the step does, one of {}", known.join(", ")));
        }
        return (Does::Other, false);
    };
    let place = step.key(key);
    let Some(word) = value.as_str() else {
        reader.add(&place, format!("must be a text, one of {}", known.join(", ")));
        return (Does::Other, false);
    };
    if let Some(action) = Action::parse(word) {
        return (Does::Built(action), false);
    }
    if names::ACTIONS_LATER.contains(&word) {
        reader.add(&place, not_built(word));
        return (if word == "end" { Does::End } else { Does::Other }, true);
    }
    reader.add(&place, format!("unknown action `{}`: {}", quote(word), mend_word(word, &known)));
    (Does::Other, false)
}

/// Whether a mail goes on in the thread of the mail before it.
fn read_in_thread(reader: &mut Reader, map: &Map<String, Value>, place: &Place, does: Does) -> bool {
    let Some(value) = reader.get(map, "in_thread") else { return false };
    let Some(wanted) = value.as_bool() else {
        reader.add(place, format!("must be true or false, not {}", kind(value)));
        return false;
    };
    if let Does::Built(action) = does
        && wanted
        && action != Action::SendEmail
    {
        reader.add(place, format!("{action} has no thread: only send_email goes on in one, remove it"));
    }
    wanted && does == Does::Built(Action::SendEmail)
}

/// Whether an invitation is not sent without its note.
fn read_note_required(reader: &mut Reader, map: &Map<String, Value>, place: &Place, does: Does) -> bool {
    let Some(value) = reader.get(map, "note_required") else { return false };
    let Some(wanted) = value.as_bool() else {
        reader.add(place, format!("must be true or false, not {}", kind(value)));
        return false;
    };
    if wanted
        && let Does::Built(action) = does
        && (action != Action::SendLinkedinCr || reader.get(map, "message").is_none())
    {
        reader.add(place, "is for a send_linkedin_cr with a message: there is no note here, remove it");
    }
    wanted && does == Does::Built(Action::SendLinkedinCr)
}

/// What a mail is tracked for.
fn read_track(reader: &mut Reader, map: &Map<String, Value>, place: &Place, does: Does) -> Track {
    let Some(value) = reader.get(map, "track") else { return Track::default() };
    let Some(words) = reader.words(value, place, names::TRACK, &[]) else { return Track::default() };
    if let Does::Built(action) = does
        && action != Action::SendEmail
    {
        reader.add(place, format!("{action} cannot be tracked: only send_email can, remove it"));
    }
    Track { opens: words.contains(&"opens"), links: words.contains(&"links") }
}

fn read_variants(reader: &mut Reader, map: &Map<String, Value>, place: &Place) {
    let Some(value) = reader.get(map, "variants") else { return };
    reader.add(place, not_built("variants"));
    let Some(variants) = value.as_array() else { return };
    // A missing weight counts 1.
    let weights = variants.iter().map(|v| v.get("weight").map_or(1.0, |w| w.as_f64().unwrap_or(1.0)));
    if weights.sum::<f64>() <= 0.0 {
        reader.add(place, "the weights sum to zero: give at least one variant a weight above 0");
    }
}

/// A value that may be missing or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given<T> {
    No,
    /// It has been reported.
    Bad,
    Is(T),
}

/// Reads a duration that stands at a key.
pub(super) fn read_duration(
    reader: &mut Reader,
    map: &Map<String, Value>,
    key: &str,
    object: &Place,
) -> Given<Duration> {
    let Some(value) = reader.get(map, key) else { return Given::No };
    let place = object.key(key);
    match value {
        Value::String(text) => match duration::parse(text) {
            Some(d) => return Given::Is(d),
            None if text.trim().starts_with('-') => {
                reader.add(&place, "is negative: write 0h or a time ahead, as in \"48h\"");
            }
            None => reader.add(
                &place,
                format!(
                    "`{}` is no duration: write numbers with d, h, m, s or ms, as in \"1h30m\" (at most 3650d)",
                    quote(text)
                ),
            ),
        },
        Value::Number(n) => reader.add(
            &place,
            format!("{n} has no unit: write a text, as in \"{}h\"", n.to_string().trim_start_matches('-')),
        ),
        other => reader.add(&place, format!("must be a duration, as in \"48h\", not {}", kind(other))),
    }
    Given::Bad
}

fn read_delay(reader: &mut Reader, map: &Map<String, Value>, place: &Place) -> Given<Duration> {
    let written = read_duration(reader, map, "delay", place);
    match (legacy::delay(reader, map, place), written) {
        (None, written) => written,
        (Some(None), _) => Given::Bad,
        (Some(Some(d)), Given::No) => Given::Is(d),
        (Some(Some(_)), Given::Bad) => Given::Bad,
        (Some(Some(d)), Given::Is(other)) => {
            if d != other {
                reader.add(&place.key("delay"), "`delay` and `delay_hours`/`delay_days` differ: keep `delay` alone");
                return Given::Bad;
            }
            Given::Is(d)
        }
    }
}
