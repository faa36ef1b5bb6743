//! JSON to [`Flow`], strictly, with every problem at once.

use serde_json::Value;

use super::Flow;

/// One thing that is wrong with a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON path, for example `$.steps[2].delay`.
    pub path: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// Reads a flow in the current form or in one the old orchestrator wrote.
///
/// # Errors
/// Every problem, in document order.
pub fn parse(value: &Value) -> Result<Flow, Vec<Problem>> {
    let _ = value;
    Err(Vec::new())
}
