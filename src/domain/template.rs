//! Message templates: minijinja, strict, limited.
//!
//! A template is text with `{{ variable }}`, filters and `{% if %}`/`{% for %}`. A variable that has no value is an error,
//! not an empty place in a letter: `{{ company | default("your company") }}` says what to write then. Null, and text that
//! is empty or blank, count as no value. What a template may cost is bounded three ways: its own size, minijinja's fuel,
//! and the size of what it writes. Called by the flow language (which checks) and by the channels (which fill in).

use std::io;

use std::sync::OnceLock;

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, filters};
use serde_json::{Map, Value};

pub(crate) use super::address::breaks_line;

pub mod fields;
mod scan;

/// The longest template, in bytes.
pub const TEMPLATE_MAX_BYTES: usize = 100_000;
/// The most that a template may write, in bytes.
pub const OUTPUT_MAX_BYTES: usize = 100_000;
/// Steps of minijinja's machine; it counts bytes that filters write as well.
const FUEL: u64 = 500_000;
/// The variable that holds the link by which the person who gets a mail unsubscribes.
pub const UNSUBSCRIBE_URL: &str = "unsubscribe_url";
/// Filters a template may use.
pub(crate) const FILTERS: &[&str] = &[
    "default",
    "upper",
    "lower",
    "title",
    "capitalize",
    "trim",
    "replace",
    "first",
    "last",
    "length",
    "join",
    "round",
];
/// Tests (`is ...`) a template may use.
pub(crate) const TESTS: &[&str] = &["defined", "undefined"];

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub String);

/// A variable that a template uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name, for a field with its path: `data.role`.
    pub name: String,
    /// Whether the template says everywhere what to do without it (`| default(...)`, `is defined`). Always `false` for a
    /// field of a field: its parent may be missing, and no default helps then.
    pub has_default: bool,
}

/// Fills a template from a JSON object.
///
/// # Errors
/// The template is not one, a variable has no value, or a limit is exceeded. The text names variables, never their values.
pub fn render(template: &str, variables: &Value) -> Result<String, TemplateError> {
    let scan = scan_checked(template)?;
    let environment: &Environment<'_> = environment();
    let compiled = environment.template_from_str(template).map_err(|e| syntax(&e))?;
    let context = with_values(variables);
    let mut output = Capped { bytes: Vec::new(), full: false };
    let result =
        compiled.render_captured_to(minijinja::Value::from(minijinja::value::Serde(&context)), &mut output).map(drop);
    match result {
        Ok(()) => String::from_utf8(output.bytes).map_err(|_| TemplateError("template wrote no text".to_owned())),
        Err(_) if output.full => Err(TemplateError(format!(
            "template writes more than {OUTPUT_MAX_BYTES} bytes: shorten it or its variables"
        ))),
        Err(e) => Err(runtime(&e, &scan.variables, &context)),
    }
}

/// Fills the template of a single line, such as a mail's subject.
///
/// # Errors
/// As [`render`], and when the result holds a line break or another control character: it could add headers to a mail.
pub fn render_line(template: &str, variables: &Value) -> Result<String, TemplateError> {
    let line = render(template, variables)?;
    if line.chars().any(breaks_line) {
        return Err(TemplateError(
            "the line holds a line break or another control character: take it out of the template or of the variable"
                .to_owned(),
        ));
    }
    Ok(line)
}

/// Reads a template without filling it: the variables it uses, in the order of their first use.
///
/// # Errors
/// It does not compile, or uses what this version leaves out.
pub fn check(template: &str) -> Result<Vec<Variable>, TemplateError> {
    let scan = scan_checked(template)?;
    let environment: &Environment<'_> = environment();
    environment.template_from_str(template).map_err(|e| syntax(&e))?;
    Ok(scan.variables)
}

/// How many characters the template writes whatever its variables are: its text outside of expressions and blocks. 0 for
/// what is no template.
pub fn static_length(template: &str) -> usize {
    scan_checked(template).map_or(0, |s| s.static_chars)
}

fn scan_checked(template: &str) -> Result<scan::Scan, TemplateError> {
    if template.len() > TEMPLATE_MAX_BYTES {
        return Err(TemplateError(format!(
            "template has {} bytes: at most {TEMPLATE_MAX_BYTES} are allowed",
            template.len()
        )));
    }
    scan::scan(template).map_err(TemplateError)
}

/// The environment of all templates, made once: making it costs more than filling a template.
fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(new_environment)
}

/// An environment with nothing in it but what templates may use: no loader, no functions, no globals.
fn new_environment() -> Environment<'static> {
    let mut e = Environment::empty();
    e.set_undefined_behavior(UndefinedBehavior::Strict);
    e.set_auto_escape_callback(|_| AutoEscape::None);
    e.set_fuel(Some(FUEL));
    e.add_filter("default", filters::default);
    e.add_filter("upper", filters::upper);
    e.add_filter("lower", filters::lower);
    e.add_filter("title", filters::title);
    e.add_filter("capitalize", filters::capitalize);
    e.add_filter("trim", filters::trim);
    e.add_filter("replace", filters::replace);
    e.add_filter("first", filters::first);
    e.add_filter("last", filters::last);
    e.add_filter("length", filters::length);
    e.add_filter("join", filters::join);
    e.add_filter("round", filters::round);
    e.add_test("defined", |v: &minijinja::Value| !v.is_undefined());
    e.add_test("undefined", |v: &minijinja::Value| v.is_undefined());
    e
}

/// The variables without those that have no value; `data` is always there.
fn with_values(variables: &Value) -> Value {
    let mut map = match without_empty(variables) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    if !map.contains_key("data") {
        map.insert("data".to_owned(), Value::Object(Map::new()));
    }
    Value::Object(map)
}

fn without_empty(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(s) if s.trim().is_empty() => None,
        Value::Object(map) => {
            Some(Value::Object(map.iter().filter_map(|(k, v)| Some((k.clone(), without_empty(v)?))).collect()))
        }
        other => Some(other.clone()),
    }
}

fn syntax(e: &minijinja::Error) -> TemplateError {
    let line = e.line().unwrap_or(1);
    TemplateError(format!("template does not compile, line {line}: {}", e.detail().unwrap_or("syntax error")))
}

/// The error for people. minijinja's own detail is left out: it can quote values.
fn runtime(e: &minijinja::Error, variables: &[Variable], context: &Value) -> TemplateError {
    let line = e.line().unwrap_or(1);
    let missing: Vec<&str> =
        variables.iter().filter(|v| !v.has_default && !has_value(context, &v.name)).map(|v| v.name.as_str()).collect();
    TemplateError(match e.kind() {
        ErrorKind::UndefinedError if !missing.is_empty() => format!(
            "no value for {}: give the prospect one, or write {{{{ {} | default(\"...\") }}}}",
            missing.join(", "),
            missing.first().unwrap_or(&"")
        ),
        ErrorKind::UndefinedError => format!("an expression in line {line} has no value: give it a default(...)"),
        ErrorKind::OutOfFuel => "template takes too long: take out loops, or shorten what they go over".to_owned(),
        kind => format!("template cannot be filled in, line {line}: {kind}"),
    })
}

fn has_value(context: &Value, path: &str) -> bool {
    path.split('.').try_fold(context, |v, key| v.get(key)).is_some()
}

/// Takes what a template writes, up to the limit.
struct Capped {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Capped {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > OUTPUT_MAX_BYTES {
            self.full = true;
            return Err(io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn ada() -> Value {
        json!({"first_name": "Ada", "company": "", "title": null, "data": {"role": "countess", "city": null, "tags": ["a", "b"]}})
    }

    #[track_caller]
    fn refused(template: &str, part: &str) {
        let error = render(template, &ada()).unwrap_err().0;
        assert!(error.contains(part), "{template:?}: {error}");
    }

    #[test]
    fn variables_filters_conditions_and_loops_are_filled_in() {
        for (template, expected) in [
            ("Hi {{first_name}}!", "Hi Ada!"),
            ("{{ first_name | upper }} <&>", "ADA <&>"),
            ("{{ data.role|title }} {{ data['role'] }}", "Countess countess"),
            ("{{ company | default('your company') }}", "your company"),
            ("{{ title | default(\"\") | trim }}.", "."),
            ("{{ data.city | default('town') }} {{ data.none | default('x') }}", "town x"),
            ("{{ nobody | default(first_name) }}", "Ada"),
            ("{% if company is defined %}at {{ company }}{% else %}alone{% endif %}", "alone"),
            ("{% for t in data.tags %}{{ loop.index }}{{ t }}{% endfor %}", "1a2b"),
            ("{{ data.tags | join(', ') }} {{ data.tags | length }}", "a, b 2"),
            ("a {# note {{ x }} #}b {{ '}}' }}", "a b }}"),
            ("{{ 2.46 | round(1) }}", "2.5"),
        ] {
            assert_eq!(render(template, &ada()).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn a_missing_variable_is_named() {
        refused("Hi {{ company }}", "no value for company");
        refused("Hi {{ data.city }}", "no value for data.city");
        refused("Hi {{ data.a.b }}", "no value for data.a.b");
    }

    #[test]
    fn what_is_left_out_is_refused_by_name() {
        refused("{% include 'x' %}", "include");
        refused("{% macro a() %}{% endmacro %}", "macro");
        refused("{% import 'x' as y %}", "import");
        refused("{% set x = 1 %}", "set");
        refused("{{ first_name | tojson }}", "tojson");
        refused("{{ range(10) }}", "call");
        refused("{{ first_name.upper() }}", "call");
        refused("{{ 'a' * 1000000000 }}", "*");
        refused("{{ first_name", "close");
        refused("{{ first_name | }}", "compile");
        refused("{{ {} }}", "{");
    }

    #[test]
    fn costs_are_bounded() {
        let long = "a".repeat(90_000);
        let variables = json!({"first_name": long, "data": {"many": vec![1; 10_000]}});
        let error = |t: &str| render(t, &variables).unwrap_err().0;
        assert!(error("{{ first_name }}{{ first_name }}").contains("100000"));
        assert!(error("{% for a in data.many %}{% for b in data.many %}{% endfor %}{% endfor %}").contains("too long"));
        assert!(
            render("{{ 'a' | replace('a', first_name) | replace('a', first_name) | length }}", &variables).is_err()
        );
        assert!(error(&"x".repeat(100_001)).contains("100001 bytes"));
        assert_eq!(render("{{ first_name | upper }}", &variables).map(|t| t.len()), Ok(90_000));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        for (open, close) in
            [("(", ")"), ("[", "]"), ("not ", ""), ("-", ""), ("", "|upper"), ("", ".a"), ("a if ", " else b")]
        {
            // Far over the limit, and as deep as the limit lets through.
            for times in [20_000, 95, 65, 45] {
                let _ = render(&format!("{{{{ {}data{} }}}}", open.repeat(times), close.repeat(times)), &ada());
                let inside = format!("{{{{ {}data{} }}}}", open.repeat(times), close.repeat(times));
                let blocks = ("{% for a in data.tags %}".repeat(32), "{% endfor %}".repeat(32));
                let _ = check(&format!("{}{inside}{}", blocks.0, blocks.1));
            }
        }
        for (start, middle, end) in [("", "{% if data %}", "{% endif %}"), ("{% if data %}", "{% elif data %}", "")] {
            refused(&format!("{start}{}{}", middle.repeat(4000), end.repeat(4000)), "simpler");
        }
        let deepest = format!("{}x{}", "{% if data is defined %}".repeat(32), "{% endif %}".repeat(32));
        assert_eq!(render(&deepest, &ada()).as_deref(), Ok("x"));
        let _ = render(&format!("{{{{ {}data{} }}}}", "(".repeat(90), ")".repeat(90)), &ada());
        let chain = format!("{{{{ first_name {} }}}}", "| upper ".repeat(99));
        assert_eq!(render(&chain, &ada()).as_deref(), Ok("ADA"));
    }

    #[test]
    fn a_line_with_a_line_break_is_refused() {
        assert_eq!(render_line("Hello {{first_name}}", &ada()).as_deref(), Ok("Hello Ada"));
        for bad in ["a\r\nBcc: x@example.org", "a\nb", "a\u{0}", "a\tb", "a\u{2028}b"] {
            assert!(render_line("{{ first_name }}", &json!({"first_name": bad})).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_variables_of_a_template_are_listed_with_their_defaults() {
        let found = check(
            "{{ first_name }} {{ x | default('y') }} {{ x }} {{ data.role|default(z) }} {{ data['b'] }} {{ data.a.b|default('') }}\
             {% for t in data.tags %}{{ t.name }}{{ loop.index }}{% endfor %}{{ t }}{% if q is not defined %}{% endif %}",
        )
        .unwrap();
        let found: Vec<(&str, bool)> = found.iter().map(|v| (v.name.as_str(), v.has_default)).collect();
        assert_eq!(
            found,
            [
                ("first_name", false),
                ("x", false),
                ("data.role", true),
                ("z", false),
                ("data.b", false),
                ("data.a.b", false),
                ("data.tags", false),
                ("t", false),
                ("q", true),
            ]
        );
    }

    #[test]
    fn only_text_outside_of_expressions_and_blocks_is_counted() {
        assert_eq!(static_length("Hé {{ first_name }}!{% if a %}long{% else %}short{% endif %}{# no #}."), 5);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = check(&text);
            let _ = render(&text, &ada());
        }

        #[test]
        fn no_heap_of_tokens_panics(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{{", "}}", "{%", "%}", "{#", "#}", " if ", " for ", " in ", "endif", "endfor", "else", "elif", "first_name",
                "data", ".", "|", "default", "(", ")", "[", "]", "'", "\"", "\\", "x", "1", "-", "=", "é", "is", "not", "defined",
                ",", " ", "{", "}", "replace", "join", ":", "raw", "endraw",
            ]), 0..40)
        ) {
            let text = parts.concat();
            let _ = check(&text);
            let _ = render(&text, &ada());
        }

        #[test]
        fn what_passes_the_check_with_defaults_can_be_filled_in(name in "[a-z]{1,8}", text in "[a-zA-Z ,.!]{0,40}") {
            prop_assume!(!["or", "in", "is", "not", "and", "if", "else", "true", "false", "none", "loop"].contains(&name.as_str()));
            let template = format!("{text}{{{{ data.{name} | default('-') }}}}{{{{ {name} | default('-') }}}}");
            prop_assert!(check(&template).unwrap().iter().all(|v| v.has_default));
            let rendered = render(&template, &Value::Null);
            prop_assert!(rendered.is_ok());
        }
    }
}
