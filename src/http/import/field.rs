//! Checks one value at a time, and puts a row together from its values.

use serde_json::Value;

use super::RejectedRow;
use super::columns::Column;
use crate::domain::address;
use crate::store::upload::New;

/// Longest names, in characters.
const NAME_MAX: usize = 200;
/// Longest company name or title, in characters.
const TEXT_MAX: usize = 300;
/// Longest value of an unknown column, in characters.
pub(crate) const DATA_MAX: usize = 10_000;
/// Most unknown columns of one row.
pub(crate) const DATA_COLUMNS_MAX: usize = 100;

/// Sets one column of `row` from its text; empty text leaves it unset.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn set(row: &mut New, column: Column, text: &str) -> Result<(), String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(());
    }
    match column {
        Column::FirstName => row.first_name = Some(plain(text, NAME_MAX)?),
        Column::LastName => row.last_name = Some(plain(text, NAME_MAX)?),
        Column::Company => row.company_name = Some(plain(text, TEXT_MAX)?),
        Column::Title => row.title = Some(plain(text, TEXT_MAX)?),
        Column::Email => {
            let email = address::email(text)?;
            row.keys.email = Some(email.to_lowercase());
            row.email = Some(email.to_owned());
        }
        Column::Phone => {
            let phone = address::phone(text)?;
            row.keys.phone = Some(phone.trim_start_matches('+').to_owned());
            row.phone = Some(phone);
        }
        Column::Linkedin => {
            let slug = address::linkedin_slug(text)?;
            // The case of a member id carries meaning; that of a name does not.
            row.keys.linkedin = Some(if address::is_member_id(slug) { slug.to_owned() } else { slug.to_lowercase() });
            row.linkedin_url = Some(format!("https://www.linkedin.com/in/{slug}"));
        }
    }
    Ok(())
}

/// Checks a whole row.
///
/// # Errors
/// A row that names nobody we could contact.
pub(crate) fn check(line: u64, row: &New) -> Result<(), RejectedRow> {
    if row.email.is_none() && row.linkedin_url.is_none() && row.phone.is_none() {
        return Err(RejectedRow::new(line, None, "needs at least one of email, linkedin_url, phone"));
    }
    if row.data.len() > DATA_COLUMNS_MAX {
        return Err(RejectedRow::new(line, None, format!("has more than {DATA_COLUMNS_MAX} columns of its own")));
    }
    Ok(())
}

/// Text on one line, within a length.
fn plain(text: &str, max: usize) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("holds a control character or a line break".to_owned());
    }
    within(text, max)?;
    Ok(text.to_owned())
}

fn within(text: &str, max: usize) -> Result<(), String> {
    let length = text.chars().count();
    if length > max { Err(format!("is {length} characters long; at most {max}")) } else { Ok(()) }
}

/// Checks a value for `data`: text within a length, and no NUL anywhere (Postgres cannot store one).
///
/// # Errors
/// What is wrong with it.
pub(crate) fn data(value: &Value) -> Result<(), String> {
    if has_nul(value) {
        return Err("holds a NUL character".to_owned());
    }
    match value {
        Value::String(text) => within(text, DATA_MAX),
        Value::Array(_) | Value::Object(_) => within(&value.to_string(), DATA_MAX),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Whether a NUL character stands anywhere in a JSON value.
pub(crate) fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_found_wherever_it_hides() {
        assert!(has_nul(&serde_json::json!({"a": [{"b": "x\0"}]})));
        assert!(!has_nul(&serde_json::json!({"a": [1, null, "x"]})));
    }
}
