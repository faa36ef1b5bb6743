//! What a template is filled with: a prospect's row under the names that templates may use.

use serde_json::Value;

use super::super::address;

/// The person's full name: of the row, or put together; on one line, as a mail's header needs it. `None` without any.
pub fn person_name(prospect: &Value) -> Option<String> {
    let text = |key: &str| prospect.get(key)?.as_str().map(address::one_line).filter(|t| !t.is_empty());
    ["name", "full_name"].into_iter().find_map(text).map(std::borrow::Cow::into_owned).or_else(|| {
        let parts: Vec<_> = ["first_name", "last_name"].into_iter().filter_map(text).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    })
}

/// A prospect's row, flat, with the names templates may use whatever the columns are called: `name`, `company` beside
/// `company_name`, and `data` for everything under one more name.
pub fn of_prospect(mut prospect: Value) -> Value {
    let name = person_name(&prospect);
    let Some(object) = prospect.as_object_mut() else { return prospect };
    if !object.get("name").is_some_and(Value::is_string)
        && let Some(name) = name
    {
        object.insert("name".into(), name.into());
    }
    for (alias, column) in [("company", "company_name"), ("company_name", "company")] {
        if object.get(alias).is_none_or(Value::is_null)
            && let Some(value) = object.get(column).cloned()
        {
            object.insert(alias.into(), value);
        }
    }
    if !object.get("data").is_some_and(Value::is_object) {
        let all = object.clone();
        object.insert("data".into(), Value::Object(all));
    }
    prospect
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_names_of_templates_are_there_whatever_the_columns_are_called() {
        let row = of_prospect(json!({"first_name": "Ada", "last_name": "L", "company": "Acme", "role": "countess"}));
        let get = |path: &str| row.pointer(path).and_then(Value::as_str);
        assert_eq!(get("/name"), Some("Ada L"));
        assert_eq!(get("/company_name"), Some("Acme"));
        // What an upload put into `data` is read back flat, and templates say `data.role`.
        assert_eq!((get("/data/role"), get("/role")), (Some("countess"), Some("countess")));
        let text = super::super::render("{{ data.role | default('?') }} at {{ company_name | default('?') }}", &row);
        assert_eq!(text.as_deref(), Ok("countess at Acme"));
        assert_eq!(of_prospect(json!({"data": {"a": 1}})), json!({"data": {"a": 1}}));
        assert_eq!(of_prospect(Value::Null), Value::Null);
    }

    #[test]
    fn a_name_with_a_line_break_is_one_line() {
        let row = json!({"first_name": "Ada\r\nBcc: spy@example.org", "last_name": " "});
        assert_eq!(person_name(&row).as_deref(), Some("Ada Bcc: spy@example.org"));
    }
}
