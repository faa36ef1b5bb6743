//! What a flow would write to one person: each step's texts filled in, their lengths against the limits, and what is wrong.
//!
//! Called by `campaignd campaign preview` and `POST /v1/campaigns/preview`; nothing is sent and nothing is stored.

use serde_json::{Value, json};

use super::flow::{Flow, Problem, Step};
use super::limits;
use super::send::Action;
use super::template::{self, TemplateError, UNSUBSCRIBE_URL, fields};

/// The link that stands in a preview, which is nobody's.
pub const SAMPLE_LINK: &str = "https://unsubscribe.example/u/preview";

/// One text, filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// `subject` or `message`.
    pub key: &'static str,
    /// The text; `None` when it cannot be filled in: a problem says why.
    pub text: Option<String>,
    /// Its length in characters.
    pub length: usize,
    /// The most that the provider takes, where that is known.
    pub length_max: Option<usize>,
}

/// One step for one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPreview {
    /// 1-based.
    pub position: usize,
    /// The step's id.
    pub id: String,
    /// What it does.
    pub action: Action,
    /// What it writes.
    pub texts: Vec<Rendered>,
}

/// What a flow would write to one person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// In the order of the flow; which of them are carried out depends on what happens.
    pub steps: Vec<StepPreview>,
    /// What is wrong, with the place in the flow.
    pub problems: Vec<Problem>,
}

/// Fills in every text of a flow for a prospect: the row, flat, as templates see it.
pub fn preview(flow: &Flow, prospect: &Value) -> Preview {
    let mut made = Preview::default();
    let person = fields::of_prospect(prospect.clone());
    let mut mailed = person.clone();
    if let Some(object) = mailed.as_object_mut() {
        object.insert(UNSUBSCRIBE_URL.to_owned(), SAMPLE_LINK.into());
    }
    for (i, step) in flow.steps.iter().enumerate() {
        let variables = if step.action == Action::SendEmail { &mailed } else { &person };
        let texts = texts(step)
            .map(|(key, template, most)| {
                let path = format!("$.steps[{i}].{key}");
                rendered(key, &path, most, fill(key, template, variables), &mut made.problems)
            })
            .collect();
        made.steps.push(StepPreview { position: i + 1, id: step.id.clone(), action: step.action, texts });
    }
    made
}

fn texts(step: &Step) -> impl Iterator<Item = (&'static str, &str, Option<usize>)> {
    let (subject_max, text_max) = (limits::subject_max(step.action), limits::text_max(step.action));
    [("subject", &step.subject, subject_max), ("message", &step.message, text_max)]
        .into_iter()
        .filter_map(|(key, text, most)| Some((key, text.as_deref()?, most)))
}

fn fill(key: &str, template: &str, variables: &Value) -> Result<String, TemplateError> {
    if key == "subject" { template::render_line(template, variables) } else { template::render(template, variables) }
}

fn rendered(
    key: &'static str,
    path: &str,
    length_max: Option<usize>,
    text: Result<String, TemplateError>,
    problems: &mut Vec<Problem>,
) -> Rendered {
    let mut add = |message: String| problems.push(Problem { path: path.to_owned(), message });
    let text = text.map_err(|e| add(e.0)).ok();
    let length = text.as_ref().map_or(0, |t| t.chars().count());
    if let Some(most) = length_max.filter(|most| length > *most) {
        add(format!("is {length} characters long for this person, and at most {most} are sent: shorten it"));
    }
    Rendered { key, text, length, length_max }
}

impl Preview {
    /// As commands and the API show it.
    pub fn to_json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                let texts: Vec<Value> = step
                    .texts
                    .iter()
                    .map(|t| json!({"key": t.key, "text": t.text, "length": t.length, "length_max": t.length_max}))
                    .collect();
                json!({"position": step.position, "id": step.id, "action": step.action.as_str(), "texts": texts})
            })
            .collect();
        let problems: Vec<Value> =
            self.problems.iter().map(|p| json!({"path": p.path, "message": p.message})).collect();
        json!({ "ok": self.problems.is_empty(), "steps": steps, "problems": problems })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::flow::parse;

    #[test]
    fn every_text_is_filled_in_with_its_length_and_what_is_wrong_with_it() {
        let flow = parse(&json!({"schema_version": 1, "steps": [
            {"id": "invite", "action": "send_linkedin_cr", "message": "Hi {{ first_name }}{% for i in data.parts | default([]) %} part{% endfor %}"},
            {"id": "pause", "action": "wait", "delay": "1h"},
            {"id": "mail", "action": "send_email", "subject": "For {{ data.team | default('you') }}",
             "message": "Dear {{ name }} of {{ company }}\n{{ unsubscribe_url }}"},
        ]}))
        .unwrap();
        let parts = vec![1; 60];
        let person = json!({"first_name": "Ada", "last_name": "Lö", "team": "a\r\nBcc: x@y.z", "parts": parts});
        let made = preview(&flow, &person);
        let invite = &made.steps[0].texts[0];
        assert_eq!((invite.length, invite.length_max), (306, Some(300)));
        assert_eq!(made.steps[1].texts, []);
        assert_eq!(made.steps[2].texts.iter().map(|t| t.text.is_some()).collect::<Vec<_>>(), [false, false]);
        let paths: Vec<&str> = made.problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["$.steps[0].message", "$.steps[2].subject", "$.steps[2].message"]);
        assert!(made.problems[1].message.contains("line break"), "{:?}", made.problems);
        assert!(made.problems[2].message.contains("no value for company"), "{:?}", made.problems);

        let good = preview(&flow, &json!({"first_name": "Ada", "last_name": "Lö", "company_name": "Acme"}));
        assert_eq!(good.problems, []);
        let mail = good.steps[2].texts[1].text.as_deref().unwrap();
        assert_eq!(mail, format!("Dear Ada Lö of Acme\n{SAMPLE_LINK}"));
        assert_eq!(good.to_json()["steps"][0]["texts"][0]["length"], 6);
    }
}
