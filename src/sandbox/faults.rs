//! Faults on order: which request goes wrong, how, and how often.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::span;
use super::text;

/// Requests whose repetitions a rule remembers; then it starts to count them afresh.
const SEEN_MAX: usize = 100_000;

/// Which requests a rule is for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    /// `POST /users/invite`, `POST /chats/{chat_id}/messages`, …, or `*`. The names in braces do not matter when it is given.
    pub(super) endpoint: String,
    #[serde(default)]
    pub(super) account_id: Option<String>,
    /// Part of whom or what the request is about: a provider id, an address, a number, an id of the path.
    #[serde(default)]
    pub(super) about: Option<String>,
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
    /// Done late, after `delay_ms`, and answered at once.
    SlowBefore,
    /// Done, but the connection is reset.
    ResetAfter,
    /// The connection is reset; nothing happens.
    ResetBefore,
    /// Done, but the answer breaks off in the middle, and the connection with it.
    Truncate,
    /// Done, but only the first half of the body comes, as if it were all.
    TruncateJson,
    /// A proxy's 502 with a page of HTML; nothing happens.
    GatewayBefore,
    /// Done, but a proxy's 502 with a page of HTML comes back.
    GatewayAfter,
    /// 429; nothing happens.
    RateLimit,
    /// The account loses its session: 401, and `AccountStatus` `CREDENTIALS`. It is back after `back_after`, if that is given.
    Disconnect,
}

/// One rule of `POST /sandbox/faults`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(default, skip_deserializing)]
    pub(super) id: u64,
    #[serde(rename = "match")]
    pub(super) target: Match,
    /// Matching requests it lets pass first.
    #[serde(default)]
    pub(super) skip: u64,
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
    /// When a disconnected account is back, on the clock.
    #[serde(default, with = "span::maybe")]
    pub(super) back_after: Option<Duration>,
    /// How often it struck.
    #[serde(default, skip_deserializing)]
    pub(super) struck: u64,
    /// How often it has seen each request, by a hash of what that was about.
    #[serde(skip)]
    seen: HashMap<u64, u32>,
}

impl Rule {
    /// What is wrong with it; `endpoint` knows what each spelling of an endpoint means, and that is kept.
    pub(super) fn check(&mut self, endpoint: impl Fn(&str) -> Result<&'static str, String>) -> Result<(), String> {
        if self.target.endpoint != "*" {
            endpoint(&self.target.endpoint)?.clone_into(&mut self.target.endpoint);
        }
        if self.target.share.is_some_and(|s| !(0.0..=1.0).contains(&s)) {
            return Err("share is a number from 0 to 1".to_owned());
        }
        if self.status.is_some_and(|s| !(400..=599).contains(&s)) {
            return Err("status is that of an error: 400 to 599".to_owned());
        }
        Ok(())
    }
}

/// A request, as rules see it.
pub(super) struct Request<'a> {
    pub(super) label: &'a str,
    /// Ids of the accounts it is about.
    pub(super) accounts: &'a [String],
    /// What `about` is looked for in.
    pub(super) about: &'a str,
    /// What shares are drawn from: all of this, in words that are the same in every run.
    pub(super) key: &'a str,
}

/// What a rule does to a request.
#[derive(Clone)]
pub(super) struct Strike {
    pub(super) effect: Effect,
    /// The account that the rule is for.
    pub(super) account_id: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) kind: Option<String>,
    delay_ms: Option<u64>,
    pub(super) back_after: Option<Duration>,
}

impl Strike {
    /// How long it makes its request wait, in real time.
    pub(super) fn wait(&self) -> Duration {
        let slow = matches!(self.effect, Effect::Slow | Effect::SlowBefore);
        Duration::from_millis(self.delay_ms.unwrap_or(if slow { 1000 } else { 0 }))
    }
}

/// Takes the first rule that strikes this request. Shares are drawn from the seed, the rule, the request and how often the
/// rule has seen it: other requests in between change nothing.
pub(super) fn strike(rules: &mut [Rule], seed: u64, request: &Request<'_>) -> Option<Strike> {
    for rule in rules {
        let target = &rule.target;
        let meant = (target.endpoint == "*" || target.endpoint == request.label)
            && target.account_id.as_ref().is_none_or(|a| request.accounts.contains(a))
            && target.about.as_deref().is_none_or(|a| request.about.contains(a))
            && rule.times != Some(0)
            // Without an account there is nothing to disconnect.
            && (rule.effect != Effect::Disconnect || !request.accounts.is_empty());
        if !meant {
            continue;
        }
        if rule.skip > 0 {
            rule.skip -= 1;
            continue;
        }
        if let Some(share) = target.share {
            let id = rule.id.to_string();
            let words = ["fault", &id, request.label, request.key];
            if rule.seen.len() >= SEEN_MAX {
                rule.seen.clear();
            }
            let count = rule.seen.entry(text::number(seed, &words)).or_default();
            *count += 1;
            let count = count.to_string();
            let words: Vec<&str> = words.into_iter().chain([count.as_str()]).collect();
            if text::unit(seed, &words) >= share {
                continue;
            }
        }
        rule.struck += 1;
        rule.times = rule.times.map(|n| n - 1);
        return Some(Strike {
            effect: rule.effect,
            account_id: rule.target.account_id.clone(),
            status: rule.status,
            kind: rule.kind.clone(),
            delay_ms: rule.delay_ms,
            back_after: rule.back_after,
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Vec<Rule> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_rule_is_for_one_account_of_several_and_spent_after_its_times() {
        let mut rules =
            rules(r#"[{"match":{"endpoint":"GET /chats","account_id":"a"},"times":1,"effect":"fail_after"}]"#);
        let mut ask = |accounts: &[&str]| {
            let accounts: Vec<String> = accounts.iter().map(|a| (*a).to_owned()).collect();
            let request = Request { label: "GET /chats", accounts: &accounts, about: "", key: "" };
            strike(&mut rules, 1, &request).is_some()
        };
        assert!(!ask(&["b"]));
        assert!(!ask(&[]));
        assert!(ask(&["b", "a"]));
        assert!(!ask(&["a"]));
    }

    #[test]
    fn a_share_strikes_the_same_requests_whatever_comes_between_and_a_repetition_is_drawn_anew() {
        let run = |others: usize| {
            let mut rules = rules(r#"[{"match":{"endpoint":"*","share":0.5},"effect":"fail_before"}]"#);
            let mut ask = |about: &str| {
                let request = Request { label: "POST /users/invite", accounts: &[], about: "", key: about };
                strike(&mut rules, 7, &request).is_some()
            };
            (0..200)
                .map(|n| {
                    (0..others).for_each(|o| _ = ask(&format!("other {n} {o}")));
                    (ask(&format!("person {n}")), ask(&format!("person {n}")))
                })
                .collect::<Vec<_>>()
        };
        let alone = run(0);
        assert_eq!(alone, run(3));
        let struck = alone.iter().filter(|(first, _)| *first).count();
        assert!((75..125).contains(&struck), "{struck}");
        assert!(alone.iter().any(|(first, again)| first != again));
    }
}
