//! Reads a template's tokens: which variables it uses, and whether it keeps to the small language we allow.
//!
//! minijinja does not tell whether a variable has a default, and its language is larger than what a letter needs. This scan
//! answers the first and bounds the second; whether the template is well formed is minijinja's to say.

use super::{FILTERS, TESTS, Variable};

/// The most blocks inside each other, and the most `elif` of a template. minijinja goes down a level of the stack for each.
const DEPTH_MAX: usize = 32;
/// The most names, texts and signs of one expression, for the same reason.
const TOKENS_MAX: usize = 200;

/// What was found.
pub(super) struct Scan {
    /// In the order of their first use.
    pub(super) variables: Vec<Variable>,
    /// Characters outside of expressions and blocks.
    pub(super) static_chars: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Token<'a> {
    Name(&'a str),
    /// With its quotes taken off; escapes are left as they are.
    Text(&'a str),
    Number,
    Sign(&'a str),
}

const KEYWORDS: &[&str] =
    &["and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None"];
const SIGNS: &[&str] =
    &["//", "==", "!=", "<=", ">=", ".", ",", "(", ")", "[", "]", "|", ":", "<", ">", "=", "-", "/", "%"];

/// Scans a whole template.
pub(super) fn scan(template: &str) -> Result<Scan, String> {
    let mut found = Scan { variables: Vec::new(), static_chars: 0 };
    // Names that `for` has bound, a set for each open block.
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    let mut elifs = 0;
    let mut rest = template;
    while let Some(at) = find_opening(rest) {
        let (text, tail) = rest.split_at(at);
        if blocks.is_empty() {
            found.static_chars += text.chars().count();
        }
        let (opening, tail) = tail.split_at(2);
        match opening {
            "{#" => {
                let end = tail.find("#}").ok_or("`{#` is never closed: write `#}` after the comment")?;
                rest = tail.get(end + 2..).unwrap_or("");
            }
            "{{" => {
                let (tokens, after) = tokens(tail, "}}")?;
                expression(&tokens, &blocks, &mut found.variables)?;
                rest = after;
            }
            _ => {
                let (tokens, after) = tokens(tail, "%}")?;
                statement(&tokens, &mut blocks, &mut found.variables)?;
                elifs += usize::from(tokens.first() == Some(&Token::Name("elif")));
                if blocks.len() > DEPTH_MAX || elifs > DEPTH_MAX {
                    return Err(format!(
                        "template has more than {DEPTH_MAX} blocks inside each other, or `elif`: make it simpler"
                    ));
                }
                rest = after;
            }
        }
    }
    if blocks.is_empty() {
        found.static_chars += rest.chars().count();
    }
    Ok(found)
}

fn find_opening(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|w| matches!(w, b"{{" | b"{%" | b"{#"))
}

/// The tokens up to `end`, and what follows it.
fn tokens<'a>(text: &'a str, end: &str) -> Result<(Vec<Token<'a>>, &'a str), String> {
    let mut found = Vec::new();
    // The sign right after the opening is whitespace control.
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    loop {
        rest = rest.trim_start();
        if let Some(after) =
            rest.strip_prefix(end).or_else(|| rest.strip_prefix(['-', '+']).and_then(|r| r.strip_prefix(end)))
        {
            return Ok((found, after));
        }
        let Some(c) = rest.chars().next() else {
            let opening = if end == "}}" { "{{" } else { "{%" };
            return Err(format!("`{opening}` is never closed: write `{end}` after the expression"));
        };
        let (token, length) = if c == '"' || c == '\'' {
            let length = text_length(rest, c).ok_or_else(|| format!("a text that starts with {c} is never closed"))?;
            (Token::Text(rest.get(1..length - 1).unwrap_or("")), length)
        } else if c.is_ascii_alphabetic() || c == '_' {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            (Token::Name(rest.get(..length).unwrap_or("")), length)
        } else if c.is_ascii_digit() {
            (Token::Number, number_length(rest))
        } else if rest.starts_with("**") {
            return Err("`**` is not part of the template language: write the value itself".to_owned());
        } else if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(format!(
                "`{c}` is not part of the template language: write names, filters and comparisons only"
            ));
        };
        if found.len() == TOKENS_MAX {
            return Err(format!("an expression has more than {TOKENS_MAX} parts: make it simpler"));
        }
        found.push(token);
        rest = rest.get(length..).unwrap_or("");
    }
}

/// The length of a quoted text with its quotes.
fn text_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

/// The length of a number, with its fraction.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(b) = bytes.get(at) {
        let fraction = *b == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        if !(b.is_ascii_alphanumeric() || *b == b'_' || fraction) {
            break;
        }
        at += 1;
    }
    at
}

fn statement<'a>(
    tokens: &[Token<'a>],
    blocks: &mut Vec<Vec<&'a str>>,
    found: &mut Vec<Variable>,
) -> Result<(), String> {
    let Some((Token::Name(keyword), rest)) = tokens.split_first() else {
        return Err("`{% %}` is empty: write if, elif, else, endif, for or endfor".to_owned());
    };
    match *keyword {
        "if" => {
            expression(rest, blocks, found)?;
            blocks.push(Vec::new());
        }
        "elif" => expression(rest, blocks, found)?,
        "else" => {}
        "endif" | "endfor" => drop(blocks.pop()),
        "for" => {
            let at = rest
                .iter()
                .position(|t| *t == Token::Name("in"))
                .ok_or("`for` has no `in`: write {% for name in list %}")?;
            let (names, source) = rest.split_at(at);
            let mut bound = vec!["loop"];
            bound.extend(names.iter().filter_map(|t| if let Token::Name(n) = t { Some(*n) } else { None }));
            // The filter after the list (`for a in b if a`) knows the name, the list does not: both together are read
            // with it, because a list that has the name of its element is rare.
            blocks.push(bound);
            expression(source.get(1..).unwrap_or(&[]), blocks, found)?;
        }
        other => {
            return Err(format!(
                "`{{% {other} %}}` is not part of the template language: write if, elif, else, endif, for or endfor"
            ));
        }
    }
    Ok(())
}

fn expression<'a>(tokens: &[Token<'a>], blocks: &[Vec<&'a str>], found: &mut Vec<Variable>) -> Result<(), String> {
    let sign = |at: Option<usize>, s: &str| at.and_then(|i| tokens.get(i)) == Some(&Token::Sign(s));
    let word = |at: Option<usize>, n: &str| at.and_then(|i| tokens.get(i)) == Some(&Token::Name(n));
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let before = at.checked_sub(1);
        match token {
            Token::Sign("(") if is_call(tokens, at) => {
                return Err(
                    "a template cannot call functions or methods: write a filter, as in {{ name | upper }}".to_owned()
                );
            }
            Token::Name(name) if sign(before, "|") => {
                allowed(FILTERS.contains(name), || {
                    format!("unknown filter `{name}`: write one of {}", FILTERS.join(", "))
                })?;
            }
            Token::Name(n) if KEYWORDS.contains(n) => {}
            Token::Name(test) if is_test(tokens, at) => {
                allowed(TESTS.contains(test), || {
                    format!("unknown test `{test}`: write `is defined` or `is undefined`")
                })?;
            }
            Token::Name(_) if sign(before, ".") => {}
            // The name of a filter's argument.
            Token::Name(_) if sign(Some(at + 1), "=") => {}
            Token::Name(root) => {
                let (path, next) = path(tokens, at, root);
                let bound = blocks.iter().flatten().any(|b| b == root);
                let guarded = (sign(Some(next), "|") && word(Some(next + 1), "default")) || word(Some(next), "is");
                if !bound {
                    let reachable = path.len() == 1 || (*root == "data" && path.len() == 2);
                    note(found, path.join("."), guarded && reachable);
                }
                at = next;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

fn allowed(known: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if known { Ok(()) } else { Err(message()) }
}

/// A name with its fields, `data.role` or `data["role"]`, and the position after it.
fn path<'a>(tokens: &[Token<'a>], at: usize, root: &'a str) -> (Vec<&'a str>, usize) {
    let mut path = vec![root];
    let mut next = at + 1;
    loop {
        match tokens.get(next..) {
            Some([Token::Sign("."), Token::Name(field), ..]) => {
                path.push(field);
                next += 2;
            }
            Some([Token::Sign("."), Token::Number, ..]) => {
                path.push("0");
                next += 2;
            }
            Some([Token::Sign("["), Token::Text(field), Token::Sign("]"), ..]) => {
                path.push(field);
                next += 3;
            }
            _ => return (path, next),
        }
    }
}

/// Whether the name at `at` follows `is` or `is not`.
fn is_test(tokens: &[Token<'_>], at: usize) -> bool {
    let back = |n: usize| at.checked_sub(n).and_then(|i| tokens.get(i));
    back(1) == Some(&Token::Name("is")) || (back(1) == Some(&Token::Name("not")) && back(2) == Some(&Token::Name("is")))
}

/// Whether the bracket at `at` calls something other than a filter.
fn is_call(tokens: &[Token<'_>], at: usize) -> bool {
    let back = |n: usize| at.checked_sub(n).and_then(|i| tokens.get(i));
    match back(1) {
        Some(Token::Name(n)) => !KEYWORDS.contains(n) && back(2) != Some(&Token::Sign("|")),
        Some(Token::Text(_) | Token::Sign(")" | "]")) => true,
        _ => false,
    }
}

fn note(found: &mut Vec<Variable>, name: String, has_default: bool) {
    match found.iter_mut().find(|v| v.name == name) {
        Some(known) => known.has_default &= has_default,
        None => found.push(Variable { name, has_default }),
    }
}
