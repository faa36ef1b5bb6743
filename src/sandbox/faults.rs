//! Faults on order: which request goes wrong, how, and how often.

use serde::{Deserialize, Serialize};

/// Which requests a rule is for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Match {
    /// `POST /users/invite`, `POST /chats/{chat_id}/messages`, …, or `*`. The names in braces do not matter.
    pub(super) endpoint: String,
    #[serde(default)]
    pub(super) account_id: Option<String>,
    /// Share of the matching requests, 0..=1; all when absent.
    #[serde(default)]
    pub(super) share: Option<f64>,
}

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Effect {
    /// Refused; nothing happens.
    FailBefore,
    /// Done, but answered with an error.
    FailAfter,
    /// Done, but answered late (`delay_ms`).
    Slow,
    /// Done, but the connection is reset.
    ResetAfter,
    /// The connection is reset; nothing happens.
    ResetBefore,
    /// Done, but the answer breaks off in the middle.
    Truncate,
    /// 429; nothing happens.
    RateLimit,
    /// The account loses its session: 401, and `AccountStatus` `CREDENTIALS`.
    Disconnect,
}

/// One rule of `POST /sandbox/faults`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Rule {
    #[serde(rename = "match")]
    pub(super) target: Match,
    /// How often it strikes before it is spent; without end when absent.
    #[serde(default)]
    pub(super) times: Option<u64>,
    pub(super) effect: Effect,
    /// Status of the error; 500 before, 504 after.
    #[serde(default)]
    pub(super) status: Option<u16>,
    /// Its type, with or without `errors/`.
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) delay_ms: Option<u64>,
    /// How often it struck.
    #[serde(default, skip_deserializing)]
    pub(super) struck: u64,
}

/// Takes the first rule that strikes this request. `chance` draws a number in 0..1.
pub(super) fn strike(rules: &mut [Rule], label: &str, account: &str, mut chance: impl FnMut() -> f64) -> Option<Rule> {
    for rule in rules {
        let target = &rule.target;
        let hit = (target.endpoint == "*" || same_endpoint(&target.endpoint, label))
            && target.account_id.as_deref().is_none_or(|a| a == account)
            && rule.times != Some(0)
            && target.share.is_none_or(|s| chance() < s);
        if hit {
            rule.struck += 1;
            rule.times = rule.times.map(|n| n - 1);
            return Some(rule.clone());
        }
    }
    None
}

fn same_endpoint(one: &str, other: &str) -> bool {
    let name = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
    let one = one.replacen(" /api/v1/", " /", 1);
    one.split('/').map(name).eq(other.split('/').map(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_spent_after_its_times_and_does_not_mind_the_names_in_braces() {
        let mut rules: Vec<Rule> = serde_json::from_str(
            r#"[{"match":{"endpoint":"POST /chats/{id}/messages","account_id":"a"},"times":1,"effect":"fail_after"}]"#,
        )
        .unwrap();
        let mut ask = |account: &str| strike(&mut rules, "POST /chats/{chat_id}/messages", account, || 0.0).is_some();
        assert!(!ask("b"));
        assert!(ask("a"));
        assert!(!ask("a"));
    }
}
