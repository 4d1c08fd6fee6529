//! What Liquid a text holds. Vapi renders it in every call; nothing is rendered here.
//!
//! Source: Vapi's documentation, "Dynamic variables". The dialect is that of `LiquidJS`; only what stands between the braces is
//! looked at, so a template inside `{% raw %}` counts as well.

use std::fmt;

/// Variables that every call has, whoever starts it. A name that ends in `.` stands for all below it.
const VARIABLES: [&str; 19] = [
    "now",
    "date",
    "time",
    "month",
    "day",
    "year",
    "messages",
    "transcript",
    "customer.",
    "phoneNumber.number",
    "phoneNumber.name",
    "phoneNumber.id",
    "call.id",
    "call.type",
    "call.assistantId",
    "call.startedAt",
    "transport.",
    "assistant.id",
    "assistant.name",
];

/// The filter that Vapi's documentation uses; with any other, the outcome is not known.
const FILTERS: [&str; 1] = ["date"];

/// One `{{ … }}` or `{% … %}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// A variable that every call has.
    Variable(String),
    /// A variable that a call has only if somebody supplies it.
    Unknown(String),
    /// A filter other than `date`.
    Filter(String),
    /// A tag, such as `if`.
    Tag(String),
}

impl Template {
    /// Whether it cannot be rendered from what every call has.
    pub const fn needs_decision(&self) -> bool {
        !matches!(self, Self::Variable(_))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "the variable `{name}`"),
            Self::Unknown(name) => write!(f, "the unknown variable `{name}`"),
            Self::Filter(name) => write!(f, "the filter `{name}`"),
            Self::Tag(name) => write!(f, "the tag `{name}`"),
        }
    }
}

/// The templates of a text, in order.
pub fn scan(text: &str) -> Vec<Template> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        let (open, inside) = rest[start..].split_at(2);
        let close = if open == "{{" { "}}" } else { "%}" };
        let Some(end) = inside.find(close) else { break };
        let body = inside[..end].trim_matches(|c: char| c == '-' || c.is_whitespace());
        if open == "{{" {
            expression(body, &mut found);
        } else {
            found.push(Template::Tag(word(body)));
        }
        rest = &inside[end + 2..];
    }
    found
}

fn expression(body: &str, found: &mut Vec<Template>) {
    let mut parts = outside_quotes(body, '|').into_iter();
    let head = parts.next().unwrap_or_default().trim();
    let literal = head.starts_with(['"', '\'']) || head.starts_with(|c: char| c.is_ascii_digit());
    let name = word(head);
    if literal {
        // Only the literal "now" means anything.
        found.push(Template::Variable("now".to_owned()));
    } else if VARIABLES.iter().any(|known| *known == name || (known.ends_with('.') && name.starts_with(known))) {
        found.push(Template::Variable(name));
    } else {
        found.push(Template::Unknown(name));
    }
    for filter in parts {
        let name = word(filter.trim_start());
        let name = name.trim_end_matches(':');
        if !FILTERS.contains(&name) {
            found.push(Template::Filter(name.to_owned()));
        }
    }
}

/// Splits at `at` where it does not stand in quotes.
fn outside_quotes(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut start, mut quote) = (Vec::new(), 0, None);
    for (position, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == at => {
                parts.push(&text[start..position]);
                start = position + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// The first word, at most 60 characters of it: what stands in braces by mistake may be long.
fn word(text: &str) -> String {
    let end = text.find(|c: char| c.is_whitespace() || c == '|').unwrap_or(text.len());
    text[..end].chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_filters_and_tags_are_told_apart() {
        let text = r#"It is {{ "now" | date: "%H:%M|", "Europe/Berlin" }}, {{customer.name}} of {{company}}{{- day | upcase -}}
            {% if vip %}hello{% endif %} {{ customer"#;
        let templates = scan(text);
        let words: Vec<String> = templates.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "the variable `now`",
                "the variable `customer.name`",
                "the unknown variable `company`",
                "the variable `day`",
                "the filter `upcase`",
                "the tag `if`",
                "the tag `endif`",
            ]
        );
        assert_eq!(templates.iter().filter(|template| template.needs_decision()).count(), 4);
    }

    #[test]
    fn text_without_templates_has_none() {
        for text in ["", "{", "{{", "{ {a} }", "100 %}", "{%", "ä{{ö"] {
            assert_eq!(scan(text), [], "{text}");
        }
        assert_eq!(scan("{{}}"), [Template::Unknown(String::new())]);
    }
}
