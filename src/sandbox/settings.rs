//! What can be set while a sandbox runs, as one JSON document: `/sandbox/settings`, and `--set` of the command line.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::options::Options;
use super::span;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    people: Behaviour,
    null_ids_share: f64,
    #[serde(with = "span::needed")]
    new_relation_delay_max: Duration,
    #[serde(with = "span::needed")]
    read_lag_max: Duration,
    list_unsubscribe: bool,
    #[serde(with = "span::list")]
    webhook_retry_delays: Vec<Duration>,
    webhook_duplicate_share: f64,
    webhook_loss_share: f64,
    #[serde(with = "span::needed")]
    webhook_delay_max: Duration,
    #[serde(with = "span::needed")]
    webhook_shuffle: Duration,
    held_loss_share: f64,
}

/// The settings as they are.
pub(super) fn view(o: &Options) -> Value {
    let settings = Settings {
        people: o.people.clone(),
        null_ids_share: o.null_ids_share,
        new_relation_delay_max: o.new_relation_delay_max,
        read_lag_max: o.read_lag_max,
        list_unsubscribe: o.list_unsubscribe,
        webhook_retry_delays: o.webhook_retry_delays.clone(),
        webhook_duplicate_share: o.webhook_duplicate_share,
        webhook_loss_share: o.webhook_loss_share,
        webhook_delay_max: o.webhook_delay_max,
        webhook_shuffle: o.webhook_shuffle,
        held_loss_share: o.held_loss_share,
    };
    serde_json::to_value(settings).unwrap_or_default()
}

/// Changes what `change` names and leaves the rest; `Err` says what is wrong with it, and nothing is changed.
pub(super) fn change(o: &mut Options, change: &Value) -> Result<(), String> {
    let mut whole = view(o);
    merge(&mut whole, change);
    check_shares(&whole)?;
    let s: Settings = serde_json::from_value(whole).map_err(|e| e.to_string())?;
    o.people = s.people;
    o.null_ids_share = s.null_ids_share;
    o.new_relation_delay_max = s.new_relation_delay_max;
    o.read_lag_max = s.read_lag_max;
    o.list_unsubscribe = s.list_unsubscribe;
    o.webhook_retry_delays = s.webhook_retry_delays;
    o.webhook_duplicate_share = s.webhook_duplicate_share;
    o.webhook_loss_share = s.webhook_loss_share;
    o.webhook_delay_max = s.webhook_delay_max;
    o.webhook_shuffle = s.webhook_shuffle;
    o.held_loss_share = s.held_loss_share;
    Ok(())
}

/// Puts the fields of `change` into `whole`, objects into objects.
pub(super) fn merge(whole: &mut Value, change: &Value) {
    match (whole, change) {
        (Value::Object(whole), Value::Object(change)) => {
            for (name, value) in change {
                merge(whole.entry(name).or_insert(Value::Null), value);
            }
        }
        (whole, change) => *whole = change.clone(),
    }
}

fn check_shares(settings: &Value) -> Result<(), String> {
    let Some(fields) = settings.as_object() else { return Err("settings are a JSON object".to_owned()) };
    for (name, value) in fields {
        if value.is_object() {
            check_shares(value)?;
        } else if name.ends_with("_share") && !value.as_f64().is_some_and(|s| (0.0..=1.0).contains(&s)) {
            return Err(format!("{name} is a share: a number from 0 to 1"));
        }
    }
    Ok(())
}

impl Options {
    /// Sets one of the settings by name: `people.reply_share` to `0.5`, `webhook_delay_max` to `2h`.
    ///
    /// # Errors
    /// A text that says what is wrong with the name or the value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        let nested = name.rsplit('.').fold(value, |inner, part| json!({ part: inner }));
        change(self, &nested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_changed_by_its_name_and_a_wrong_one_changes_nothing() {
        let mut o = Options::default();
        o.set("people.reply_share", "0.5").unwrap();
        o.set("webhook_delay_max", "2h").unwrap();
        o.set("people.accept_mean", "90").unwrap();
        o.set("webhook_retry_delays", r#"["10s", 60]"#).unwrap();
        assert_eq!(o.webhook_retry_delays, [10, 60].map(Duration::from_secs));
        assert_eq!(o.people.reply_share.to_bits(), 0.5_f64.to_bits());
        assert_eq!((o.webhook_delay_max, o.people.accept_mean), (Duration::from_secs(7200), Duration::from_secs(90)));
        for (name, value) in [
            ("people.reply_share", "1.5"),
            ("people.unheard_of", "1"),
            ("webhook_delay_max", "soon"),
            ("people", "1"),
            ("webhook_retry_delays", "1s"),
        ] {
            assert!(o.set(name, value).is_err(), "{name}={value}");
        }
        assert_eq!(o.people.reply_share.to_bits(), 0.5_f64.to_bits());
    }
}
