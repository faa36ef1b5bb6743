//! JSON to [`Flow`], strictly, with every problem at once: the top level. Steps are read in `steps`, waits in `wait`, hours
//! in `hours`, texts in `text`; what holds between steps is checked in `check`; the old forms are in `legacy`.

use serde_json::{Map, Value};

use super::names::{self, mend_key, mend_word, quote};
use super::problem::{Place, Problem, Report};
use super::steps::Draft;
use super::{Flow, SCHEMA_VERSION, StopOn, check, hours, legacy, steps};

/// The most steps of a flow.
const STEPS_MAX: usize = 100;

/// Which form the document has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// With a `schema_version`: nothing unknown is let through.
    Current,
    /// Written for the old orchestrator.
    Legacy,
}

/// What every reader of a part needs.
pub(super) struct Reader {
    pub(super) form: Form,
    pub(super) report: Report,
}

impl Reader {
    /// A member. In the old forms null says that there is none.
    pub(super) fn get<'a>(&self, map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
        map.get(key).filter(|v| self.form == Form::Current || !v.is_null())
    }

    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.report.add(place, message);
    }

    /// Reports the keys that are not known. The old forms may hold what they like.
    pub(super) fn unknown_keys(&mut self, map: &Map<String, Value>, place: &Place, known: &[&str]) {
        if self.form == Form::Legacy {
            return;
        }
        for key in map.keys().filter(|k| !known.contains(&k.as_str())) {
            self.add(&place.key(&quote(key)), format!("unknown key: {}", mend_key(key, known)));
        }
    }

    /// A list of words of which each must be known. `None` after a problem.
    pub(super) fn words<'a>(
        &mut self,
        value: &'a Value,
        place: &Place,
        known: &[&str],
        later: &[&str],
    ) -> Option<Vec<&'a str>> {
        let Value::Array(items) = value else {
            self.add(place, format!("must be a list: write [\"{}\"] or leave it out", known.first().unwrap_or(&"")));
            return None;
        };
        let mut found = Vec::new();
        let mut good = true;
        for (i, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(word) if known.contains(&word) => found.push(word),
                Some(word) => {
                    good = false;
                    let message = if later.contains(&word) {
                        names::not_built(word)
                    } else {
                        format!("unknown entry `{}`: {}", quote(word), mend_word(word, known))
                    };
                    self.add(&place.index(i), message);
                }
                None => {
                    good = false;
                    self.add(&place.index(i), format!("must be a text: use one of {}", known.join(", ")));
                }
            }
        }
        good.then_some(found)
    }
}

/// The kind of a JSON value, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Reads a flow in the current form or in one the old orchestrator wrote.
///
/// # Errors
/// Every problem, in document order.
pub fn parse(value: &Value) -> Result<Flow, Vec<Problem>> {
    let root = Place::root();
    let mut reader = Reader { form: legacy::form(value), report: Report::default() };
    let flow = match value {
        // An old form: the steps alone.
        Value::Array(items) => {
            let drafts = read_steps(&mut reader, items, &root);
            finish(&mut reader, &root, Some((None, StopOn::ALL)), drafts)
        }
        Value::Object(map) => {
            let head = read_head(&mut reader, map, &root);
            let place = root.key("steps");
            let drafts = match reader.get(map, "steps") {
                Some(Value::Array(items)) => read_steps(&mut reader, items, &place),
                Some(other) => {
                    reader.add(&place, format!("must be a list of steps, not {}", kind(other)));
                    None
                }
                None => {
                    reader.add(&place, "is missing: a flow needs at least one step");
                    None
                }
            };
            finish(&mut reader, &place, head, drafts)
        }
        other => {
            reader.add(&root, format!("must be an object with `schema_version` and `steps`, not {}", kind(other)));
            None
        }
    };
    let problems = reader.report.finish();
    match flow {
        Some(flow) if problems.is_empty() => Ok(flow),
        // Cannot be: what could not be read has said why. An empty list of problems would read as success.
        _ if problems.is_empty() => {
            Err(vec![Problem { path: "$".to_owned(), message: "the flow cannot be read".to_owned() }])
        }
        _ => Err(problems),
    }
}

type Head = (Option<super::Window>, StopOn);

fn read_head(reader: &mut Reader, map: &Map<String, Value>, root: &Place) -> Option<Head> {
    reader.unknown_keys(map, root, names::TOP);
    if let Some(version) = map.get("schema_version")
        && version.as_u64() != Some(SCHEMA_VERSION)
    {
        reader.add(
            &root.key("schema_version"),
            format!("this version reads schema_version {SCHEMA_VERSION} only: write {SCHEMA_VERSION}"),
        );
    }
    if reader.form == Form::Current {
        for key in ["name", "description"] {
            if map.get(key).is_some_and(|v| !v.is_string()) {
                reader.add(&root.key(key), "must be a text: put it in quotes or leave it out");
            }
        }
    }
    let window = hours::read(reader, map, root);
    let stop_on = match reader.get(map, "stop_on") {
        None => Some(StopOn::ALL),
        Some(value) => reader.words(value, &root.key("stop_on"), names::STOP_ON, &[]).map(|words| StopOn {
            reply: words.contains(&"reply"),
            unsubscribe: words.contains(&"unsubscribe"),
            hard_bounce: words.contains(&"hard_bounce"),
        }),
    };
    Some((window?, stop_on?))
}

fn read_steps(reader: &mut Reader, items: &[Value], place: &Place) -> Option<Vec<Draft>> {
    if items.is_empty() {
        reader.add(place, "is empty: a flow needs at least one step");
        return None;
    }
    if items.len() > STEPS_MAX {
        reader.add(place, format!("has {} steps: at most {STEPS_MAX} are allowed, split the campaign", items.len()));
        return None;
    }
    Some(items.iter().enumerate().map(|(i, item)| steps::read(reader, item, &place.index(i), i)).collect())
}

fn finish(reader: &mut Reader, place: &Place, head: Option<Head>, drafts: Option<Vec<Draft>>) -> Option<Flow> {
    let mut drafts = drafts?;
    check::between_steps(reader, place, &mut drafts);
    let (window, stop_on) = head?;
    let ids: Vec<Option<String>> = drafts.iter().map(|d| d.id.clone()).collect();
    let steps = drafts.into_iter().map(|d| d.finish(&ids)).collect::<Option<Vec<_>>>()?;
    Some(Flow { window, stop_on, steps })
}
