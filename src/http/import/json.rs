//! JSON uploads: an array of objects, or `{"prospects": [...]}`.

use serde_json::{Map, Value};

use super::columns::Column;
use super::{ROWS_MAX, RejectedRow, Unreadable, Upload, field, set_duplicates_apart};
use crate::store::upload::New;

/// Reads a JSON upload.
///
/// # Errors
/// [`Unreadable`] when it is not that JSON; single bad rows are in [`Upload::rejected`].
pub(crate) fn read(bytes: &[u8]) -> Result<Upload, Unreadable> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| Unreadable::Json(e.to_string(), e.line(), e.column()))?;
    let rows = match value {
        Value::Array(rows) => rows,
        Value::Object(mut map) => match map.remove("prospects") {
            Some(Value::Array(rows)) if map.is_empty() => rows,
            _ => return Err(shape()),
        },
        _ => return Err(shape()),
    };
    if rows.len() > ROWS_MAX {
        return Err(Unreadable::TooManyRows);
    }
    let mut upload = Upload::default();
    for (line, value) in (0_u64..).zip(rows) {
        match row(line, value) {
            Ok(row) => upload.rows.push((line, row)),
            Err(rejected) => upload.rejected.push(rejected),
        }
    }
    set_duplicates_apart(&mut upload, "index");
    Ok(upload)
}

/// One person as templates see them: the columns, and everything else beside them. For previews, where nobody is taken in.
///
/// # Errors
/// What an upload would say about the row.
pub(crate) fn person(value: Value) -> Result<Value, RejectedRow> {
    let mut person = Map::new();
    let New { first_name, last_name, email, phone, linkedin_url, company_name, title, data, keys: _ } = row(0, value)?;
    person.extend(data);
    for (column, text) in [
        ("first_name", first_name),
        ("last_name", last_name),
        ("email", email),
        ("phone", phone),
        ("linkedin_url", linkedin_url),
        ("company_name", company_name),
        ("title", title),
    ] {
        person.extend(text.map(|text| (column.to_owned(), text.into())));
    }
    Ok(Value::Object(person))
}

fn shape() -> Unreadable {
    Unreadable::Json("expected an array of prospects, or an object with the one key 'prospects'".to_owned(), 1, 1)
}

fn row(line: u64, value: Value) -> Result<New, RejectedRow> {
    let Value::Object(map) = value else {
        return Err(RejectedRow::new(line, None, "is not an object"));
    };
    let mut row = New::default();
    let mut taken = Vec::new();
    for (name, value) in map {
        match Column::from_header(&name) {
            Some(column) if !taken.contains(&column) => {
                taken.push(column);
                set(&mut row, column, &value)
            }
            _ if name == "data" => match value {
                Value::Object(more) => add_all(&mut row, more),
                Value::Null => Ok(()),
                _ => Err("is not an object".to_owned()),
            },
            _ => add(&mut row, name.clone(), value),
        }
        .map_err(|reason| RejectedRow::new(line, Some(&name), reason))?;
    }
    field::check(line, &row)?;
    Ok(row)
}

fn set(row: &mut New, column: Column, value: &Value) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        Value::String(text) => field::set(row, column, text),
        // Phone numbers arrive as numbers from careless exports.
        Value::Number(n) if column == Column::Phone => field::set(row, column, &n.to_string()),
        _ => Err("is not text".to_owned()),
    }
}

fn add_all(row: &mut New, more: Map<String, Value>) -> Result<(), String> {
    more.into_iter().try_for_each(|(key, value)| add(row, key, value))
}

fn add(row: &mut New, key: String, value: Value) -> Result<(), String> {
    if key.contains('\0') || key.chars().count() > 200 {
        return Err("is no usable name".to_owned());
    }
    field::data(&value)?;
    row.data.insert(key, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_read_and_unknown_keys_become_data() {
        let array = br#"[{"firstName":"Ada","email":"ada@example.com","seats":5,"data":{"plan":"pro"}}]"#;
        let upload = read(array).unwrap();
        let row = &upload.rows[0].1;
        assert_eq!(row.first_name.as_deref(), Some("Ada"));
        assert_eq!(Value::Object(row.data.clone()), serde_json::json!({"seats": 5, "plan": "pro"}));
        assert_eq!(read(br#"{"prospects":[{"phone":"+4930123456"}]}"#).unwrap().rows.len(), 1);
    }

    #[test]
    fn bad_rows_are_named_by_index() {
        let text = br#"[{"email":"a@b.co"}, 7, {"email":5}, {"first_name":"x"}, {"email":"A@B.co"}, {"phone":123456,"n":"\u0000"}]"#;
        let upload = read(text).unwrap();
        let bad: Vec<_> = upload.rejected.iter().map(|r| (r.line, r.column.as_deref())).collect();
        assert_eq!(bad, [(1, None), (2, Some("email")), (3, None), (5, Some("n"))]);
        assert_eq!(upload.duplicates[0].of, "index 0");
    }

    #[test]
    fn a_person_of_a_preview_is_read_like_a_row_of_an_upload() {
        let person = person(
            serde_json::json!({"First Name": "Ada", "E-Mail": "ada@example.com", "seats": 5, "data": {"plan": "pro"}}),
        );
        let expected = serde_json::json!({"first_name": "Ada", "email": "ada@example.com", "seats": 5, "plan": "pro"});
        assert_eq!(person, Ok(expected));
        assert_eq!(super::person(serde_json::json!({"first_name": "Ada"})).map_err(|r| r.line), Err(0));
    }

    #[test]
    fn other_json_is_refused() {
        for text in ["7", r#"{"people":[]}"#, r#"{"prospects":[],"x":1}"#, "[", ""] {
            assert!(matches!(read(text.as_bytes()), Err(Unreadable::Json(..))), "{text}");
        }
    }
}
