//! The words of the flow language: what is built, what is known and not built yet, and what was probably meant.

/// Keys of the top level.
pub(super) const TOP: &[&str] = &["schema_version", "name", "description", "timezone", "window", "stop_on", "steps"];
/// Keys of `window`.
pub(super) const WINDOW: &[&str] = &["days", "from", "to", "holidays"];
/// Days, Monday first.
pub(super) const DAYS: &[&str] = &["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Entries of `stop_on`.
pub(super) const STOP_ON: &[&str] = &["reply", "unsubscribe", "hard_bounce"];
/// Keys of a step.
pub(super) const STEP: &[&str] = &[
    "id",
    "action",
    "subject",
    "message",
    "in_thread",
    "note_required",
    "track",
    "variants",
    "delay",
    "wait_for",
    "requires",
];
/// What `track` can ask for.
pub(super) const TRACK: &[&str] = &["opens", "links"];
/// Keys of `wait_for`.
pub(super) const WAIT: &[&str] = &["trigger", "timeout", "check_every", "max_checks", "on_timeout"];
/// Actions of the language that this version cannot carry out.
pub(super) const ACTIONS_LATER: &[&str] = &["send_whatsapp_template", "branch", "webhook", "manual_task", "end"];
/// Triggers of the language that this version cannot wait for.
pub(super) const TRIGGERS_LATER: &[&str] =
    &["email_opened", "email_clicked", "email_bounced", "message_read", "message_delivered", "unsubscribe"];
/// Conditions of the language that this version cannot check.
pub(super) const FACTS_LATER: &[&str] =
    &["replied", "email_opened", "email_clicked", "message_read", "message_delivered"];
/// What `requires` can ask for.
pub(super) const FACTS: &[&str] = &["connected"];
/// Variables that every prospect has, if not always with a value.
pub(super) const VARIABLES: &[&str] = &[
    "first_name",
    "last_name",
    "name",
    "email",
    "phone",
    "company_name",
    "company",
    "title",
    "linkedin_url",
    "data",
    "unsubscribe_url",
];

/// The message for a word that is known and not built.
pub(super) fn not_built(word: &str) -> String {
    format!(
        "`{word}` is part of the flow language but not built yet in this version; remove it or use another that is built"
    )
}

/// Names of other habits for keys of ours.
const SYNONYMS: &[(&str, &str, &str)] = &[
    ("type", "action", "write `action`"),
    ("body", "message", "write `message`"),
    ("text", "message", "write `message`"),
    ("note", "message", "write `message`"),
    ("reply_to", "in_thread", "write \"in_thread\": true"),
    ("same_thread", "in_thread", "write \"in_thread\": true"),
    ("tracking", "track", "write \"track\": [\"opens\", \"links\"]"),
    ("tracking_options", "track", "write \"track\": [\"opens\", \"links\"]"),
    ("template", "message", "write `message`"),
    ("delay_hours", "delay", "write `delay` with a unit, as in \"72h\""),
    ("delay_days", "delay", "write `delay` with a unit, as in \"5d\""),
    ("wait", "wait_for", "write `wait_for`"),
    ("deadline", "timeout", "write `timeout`"),
    ("zone", "timezone", "write `timezone`, beside `window`"),
    ("tz", "timezone", "write `timezone`, beside `window`"),
    ("timezone", "days", "`timezone` stands beside `window`, not in it"),
    ("condition", "requires", "write `requires`"),
];

/// What to do about an unknown key.
pub(super) fn mend_key(key: &str, known: &[&str]) -> String {
    if let Some((_, _, hint)) = SYNONYMS.iter().find(|(k, meant, _)| *k == key && known.contains(meant)) {
        return (*hint).to_owned();
    }
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("remove it; known here: {}", known.join(", ")),
    }
}

/// What to do about an unknown word: the nearest, and the list.
pub(super) fn mend_word(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? known: {}", known.join(", ")),
        None => format!("use one of {}", known.join(", ")),
    }
}

/// The nearest of some words, if one is near at all.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer than any word of ours and a few letters: nothing is near, and the distance would be slow.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    let most = if word.len() > 6 { 3 } else { word.len().div_ceil(3) };
    known
        .map(|k| (distance(&word, &k.to_lowercase()), k))
        .filter(|(d, _)| *d <= most)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((y, pair), left) in b.iter().zip(row.windows(2)).zip(0..) {
            let &[diagonal, above] = pair else { continue };
            let left: usize = next.get::<usize>(left).copied().unwrap_or(0);
            next.push((diagonal + usize::from(x != *y)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// A word from the document as it is quoted in a message: short, on one line.
pub(super) fn quote(word: &str) -> String {
    let mut short: String = word.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
    if word.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("mesage", STEP.iter().copied()), Some("message"));
        assert_eq!(nearest("Delay", STEP.iter().copied()), Some("delay"));
        assert_eq!(nearest("zzz", STEP.iter().copied()), None);
        assert_eq!(nearest("", STEP.iter().copied()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
