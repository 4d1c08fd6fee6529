//! A small language for the shape of a client event, and the check of a JSON value against it.
//!
//! The real service refuses an event for its first fault and says where it is; so does this.

use serde_json::Value;

use super::errors::ApiError;

/// What a value must look like.
pub(super) enum Shape {
    /// Anything at all.
    Any,
    /// `true` or `false`.
    Boolean,
    /// Text of at most so many characters.
    Text(usize),
    /// A whole number in a range, both ends included.
    Integer(i64, i64),
    /// Any number in a range, both ends included.
    Decimal(f64, f64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of at most so many.
    List(&'static Shape, usize),
    /// A list of exactly one of `text` and `audio`.
    Modalities,
    /// Text to text, at most (entries, characters of a key, characters of a value).
    Metadata(usize, usize, usize),
    /// An object with these fields and no others.
    Object(&'static [Field]),
    /// An object whose fields depend on the word in the field named first.
    Tagged(&'static str, &'static [(&'static str, &'static [Field])]),
    /// An object with any fields.
    OpenObject,
    /// `null` or this.
    Nullable(&'static Shape),
    /// The first for a string, the second for anything else; the text names what is expected.
    Either(&'static Shape, &'static Shape, &'static str),
    /// The first for a list, the second for anything else.
    ListOr(&'static Shape, &'static Shape),
}

/// A field of an object.
pub(super) struct Field {
    name: &'static str,
    required: bool,
    shape: Shape,
}

/// Room enough for any text.
pub(super) const LONG: usize = usize::MAX;

pub(super) const fn required(name: &'static str, shape: Shape) -> Field {
    Field { name, required: true, shape }
}

pub(super) const fn optional(name: &'static str, shape: Shape) -> Field {
    Field { name, required: false, shape }
}

/// Checks an object's fields. `path` is how errors name it; empty for an event itself.
pub(super) fn check_fields(path: &str, value: &Value, fields: &[Field]) -> Result<(), ApiError> {
    let Some(object) = value.as_object() else {
        return Err(ApiError::wrong_type(path, "an object", value));
    };
    for name in object.keys() {
        if !fields.iter().any(|field| field.name == name) {
            return Err(ApiError::unknown_parameter(&join(path, name)));
        }
    }
    for field in fields {
        match object.get(field.name) {
            Some(value) => check(&join(path, field.name), value, &field.shape)?,
            None if field.required => {
                return Err(ApiError::missing_parameter(&join(path, field.name)));
            }
            None => {}
        }
    }
    Ok(())
}

fn check(path: &str, value: &Value, shape: &Shape) -> Result<(), ApiError> {
    match shape {
        Shape::Any => Ok(()),
        Shape::Boolean => match value {
            Value::Bool(_) => Ok(()),
            _ => Err(ApiError::wrong_type(path, "a boolean", value)),
        },
        Shape::Text(longest) => check_text(path, value, *longest).map(|_| ()),
        Shape::Integer(minimum, maximum) => check_integer(path, value, *minimum, *maximum),
        Shape::Decimal(minimum, maximum) => check_decimal(path, value, *minimum, *maximum),
        Shape::Word(words) => {
            let word = check_text(path, value, LONG)?;
            if words.contains(&word) { Ok(()) } else { Err(ApiError::unsupported_value(path, word, words)) }
        }
        Shape::List(each, longest) => check_list(path, value, each, *longest),
        Shape::Modalities => check_modalities(path, value),
        Shape::Metadata(entries, key, text) => check_metadata(path, value, *entries, *key, *text),
        Shape::Object(fields) => check_fields(path, value, fields),
        Shape::Tagged(tag, variants) => check_tagged(path, value, tag, variants),
        Shape::OpenObject if value.is_object() => Ok(()),
        Shape::OpenObject => Err(ApiError::wrong_type(path, "an object", value)),
        Shape::Nullable(_) if value.is_null() => Ok(()),
        Shape::Nullable(shape) => check(path, value, shape),
        Shape::ListOr(list, _) if value.is_array() => check(path, value, list),
        Shape::ListOr(_, other) => check(path, value, other),
        Shape::Either(word, other, expected) => match value {
            Value::String(_) => check(path, value, word),
            Value::Null | Value::Bool(_) => Err(ApiError::wrong_type(path, expected, value)),
            _ => check(path, value, other),
        },
    }
}

fn check_text<'v>(path: &str, value: &'v Value, longest: usize) -> Result<&'v str, ApiError> {
    let Some(text) = value.as_str() else {
        return Err(ApiError::wrong_type(path, "a string", value));
    };
    match text.chars().count() {
        length if length > longest => Err(ApiError::string_too_long(path, longest, length)),
        _ => Ok(text),
    }
}

fn check_integer(path: &str, value: &Value, minimum: i64, maximum: i64) -> Result<(), ApiError> {
    #[expect(clippy::cast_precision_loss, reason = "the limits are small")]
    match value.as_i64() {
        None => Err(ApiError::wrong_type(path, "an integer", value)),
        Some(n) if n < minimum => Err(ApiError::below_minimum(path, "integer", minimum as f64, value)),
        Some(n) if n > maximum => Err(ApiError::above_maximum(path, "integer", maximum as f64, value)),
        Some(_) => Ok(()),
    }
}

fn check_decimal(path: &str, value: &Value, minimum: f64, maximum: f64) -> Result<(), ApiError> {
    match value.as_f64() {
        None => Err(ApiError::wrong_type(path, "a decimal", value)),
        Some(n) if n < minimum => Err(ApiError::below_minimum(path, "decimal", minimum, value)),
        Some(n) if n > maximum => Err(ApiError::above_maximum(path, "decimal", maximum, value)),
        Some(_) => Ok(()),
    }
}

fn check_list(path: &str, value: &Value, each: &Shape, longest: usize) -> Result<(), ApiError> {
    let Some(list) = value.as_array() else {
        return Err(ApiError::wrong_type(path, "an array", value));
    };
    if list.len() > longest {
        let message = format!(
            "Invalid '{path}': array too long. Expected an array with maximum length {longest}, \
             but got an array with length {} instead.",
            list.len()
        );
        return Err(ApiError::request("array_above_max_length", message).at(path));
    }
    list.iter().enumerate().try_for_each(|(at, value)| check(&format!("{path}[{at}]"), value, each))
}

fn check_modalities(path: &str, value: &Value) -> Result<(), ApiError> {
    check_list(path, value, &Shape::Word(&["text", "audio"]), LONG)?;
    let names: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.len() == 1 {
        return Ok(());
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let message =
        format!("Invalid modalities: [{}]. Supported combinations are: ['text'] and ['audio'].", quoted.join(", "));
    Err(ApiError::request("invalid_value", message).at(path))
}

fn check_metadata(path: &str, value: &Value, most: usize, key: usize, text: usize) -> Result<(), ApiError> {
    let Some(object) = value.as_object() else {
        return Err(ApiError::wrong_type(path, "an object", value));
    };
    if object.len() > most {
        // The wording is ours.
        let message = format!("Invalid '{path}': too many properties. Expected at most {most}.");
        return Err(ApiError::request("object_above_max_properties", message).at(path));
    }
    for (name, value) in object {
        if name.chars().count() > key {
            return Err(ApiError::string_too_long(path, key, name.chars().count()));
        }
        check_text(&join(path, name), value, text)?;
    }
    Ok(())
}

/// Checks an object whose fields depend on the word in the field `tag`.
pub(super) fn check_tagged(
    path: &str,
    value: &Value,
    tag: &str,
    variants: &[(&'static str, &[Field])],
) -> Result<(), ApiError> {
    let Some(object) = value.as_object() else {
        return Err(ApiError::wrong_type(path, "an object", value));
    };
    let path_of_tag = join(path, tag);
    let Some(word) = object.get(tag) else {
        return Err(ApiError::missing_parameter(&path_of_tag));
    };
    let word = check_text(&path_of_tag, word, LONG)?;
    let Some((_, fields)) = variants.iter().find(|variant| variant.0 == word) else {
        let words: Vec<&str> = variants.iter().map(|variant| variant.0).collect();
        return Err(ApiError::unsupported_value(&path_of_tag, word, &words));
    };
    check_fields(path, value, fields)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
