//! A campaign file: a flow, or a campaign with a flow in it, and what is wrong with it where.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::output::{Failure, clean};
use crate::domain::account::Channel;
use crate::domain::flow::{self, Flow};

/// Longest campaign file, in bytes: what the server takes in one request.
const FILE_MAX: u64 = 1 << 20;
/// What an object may hold that is a campaign and not a flow.
const KEYS: &[&str] = &["name", "flow_settings", "accounts"];

/// A campaign file as it was read.
#[derive(Debug)]
pub(super) struct Text {
    /// For messages.
    pub(super) name: String,
    /// What a campaign is called that has no other name.
    pub(super) stem: Option<String>,
    pub(super) bytes: Vec<u8>,
}

impl Text {
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let stdin = file == Path::new("-");
        let name = if stdin { "<stdin>".to_owned() } else { clean(&file.to_string_lossy()) };
        let mut bytes = Vec::new();
        let input: Result<Box<dyn Read>, io::Error> =
            if stdin { Ok(Box::new(io::stdin())) } else { File::open(file).map(|f| Box::new(f) as Box<dyn Read>) };
        input
            .and_then(|input| input.take(FILE_MAX + 1).read_to_end(&mut bytes))
            .map_err(|e| Failure::unusable(format!("cannot read {name}: {e}")))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(Failure::refused(format!("{name}: is larger than 1 MiB")));
        }
        let stem = file.file_stem().filter(|_| !stdin).map(|s| s.to_string_lossy().into_owned());
        Ok(Self { name, stem, bytes })
    }

    /// The document, or where it is no JSON.
    pub(super) fn parse(&self) -> Result<Document, Found> {
        let bytes = self.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.bytes);
        serde_json::from_slice(bytes).map(Document::new).map_err(|e| {
            let full = e.to_string();
            let place = format!(" at line {} column {}", e.line(), e.column());
            Found {
                path: "$".to_owned(),
                message: format!("no JSON: {}", full.strip_suffix(&place).unwrap_or(&full)),
                place: Some((e.line(), e.column())),
            }
        })
    }
}

/// A problem of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    path: String,
    message: String,
    /// Line and column, where it is no JSON.
    place: Option<(usize, usize)>,
}

impl Found {
    pub(super) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), place: None }
    }

    /// `FILE: $.steps[2].delay: ...` or `FILE:3:14: ...`
    pub(super) fn line(&self, file: &str) -> String {
        let message = clean(&self.message);
        match self.place {
            Some((line, column)) => format!("{file}:{line}:{column}: {message}"),
            None => format!("{file}: {}: {message}", clean(&self.path)),
        }
    }

    pub(super) fn json(&self) -> Value {
        match self.place {
            Some((line, column)) => {
                json!({"path": self.path, "message": self.message, "line": line, "column": column})
            }
            None => json!({"path": self.path, "message": self.message}),
        }
    }
}

/// A flow, or a campaign with a flow in it.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) flow: Value,
    /// `$`, or `$.flow_settings`: where the flow stands in the file.
    root: &'static str,
    /// The campaign around the flow, without the flow.
    pub(super) around: Map<String, Value>,
}

impl Document {
    pub(super) fn new(value: Value) -> Self {
        match value {
            Value::Object(mut map) if map.contains_key("flow_settings") => {
                let flow = map.remove("flow_settings").unwrap_or_default();
                Self { flow, root: "$.flow_settings", around: map }
            }
            flow => Self { flow, root: "$", around: Map::new() },
        }
    }

    /// A path in the flow as a path in the file.
    pub(super) fn path(&self, in_flow: &str) -> String {
        format!("{}{}", self.root, in_flow.strip_prefix('$').unwrap_or(in_flow))
    }

    /// The flow, or every problem of the file.
    pub(super) fn check(&self) -> Result<Flow, Vec<Found>> {
        let mut found = Vec::new();
        for (key, value) in &self.around {
            if !KEYS.contains(&key.as_str()) {
                found.push(Found::new(format!("$[{key:?}]"), format!("unknown key; known: {}", KEYS.join(", "))));
            } else if key == "name" && !value.is_string() {
                found.push(Found::new("$.name", "must be a text"));
            }
        }
        match flow::parse(&self.flow) {
            Ok(flow) => {
                let missing = flow::missing_fields(&flow);
                found.extend(missing.into_iter().map(|p| Found::new(self.path(&p.path), p.message)));
                if found.is_empty() { Ok(flow) } else { Err(found) }
            }
            Err(problems) => {
                found.extend(problems.into_iter().map(|p| Found::new(self.path(&p.path), p.message)));
                Err(found)
            }
        }
    }

    /// The name in the file: the campaign's, else the flow's.
    pub(super) fn name(&self) -> Option<&str> {
        self.around
            .get("name")
            .or_else(|| self.flow.get("name"))
            .and_then(Value::as_str)
            .filter(|n| !n.trim().is_empty())
    }
}

/// `3 steps (linkedin, email)`; the channels in the order of their first step.
pub(super) fn summary(flow: &Flow) -> String {
    let mut channels: Vec<Channel> = Vec::new();
    for channel in flow.steps.iter().filter_map(|s| s.action.channel()) {
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    let names: Vec<&str> = channels.into_iter().map(Channel::as_str).collect();
    let names = if names.is_empty() { "contacting nobody".to_owned() } else { names.join(", ") };
    let n = flow.len();
    format!("{n} step{} ({names})", if n == 1 { "" } else { "s" })
}
