//! `application/x-www-form-urlencoded` as Twilio sends it: blank values and repeated names count.

use std::borrow::Cow;

/// Decoded parameters in the order in which they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// A form that is not UTF-8 once decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the form is not valid UTF-8")]
pub struct InvalidForm;

impl<'a> Form<'a> {
    /// Decodes a form body or a query string.
    pub fn parse(encoded: &'a [u8]) -> Result<Self, InvalidForm> {
        encoded
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let mut halves = pair.splitn(2, |byte| *byte == b'=');
                let name = decode(halves.next().unwrap_or_default())?;
                let value = decode(halves.next().unwrap_or_default())?;
                Ok((name, value))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The first value of a name, if it is there and not blank.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs().find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
    }

    /// All parameters in the order in which they were sent.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Form<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

fn decode(text: &[u8]) -> Result<Cow<'_, str>, InvalidForm> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| InvalidForm);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        // A percent sign that starts no escape stands for itself, as in the WHATWG URL standard.
        rest = match rest {
            [] => break,
            [b'%', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex_digit(*high) << 4 | hex_digit(*low));
                tail
            }
            [b'+', tail @ ..] => {
                decoded.push(b' ');
                tail
            }
            [byte, tail @ ..] => {
                decoded.push(*byte);
                tail
            }
        };
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| InvalidForm)
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_repeats_escapes_and_order() {
        let form = Form::parse(b"b=&a=1%2B2+3&a=%C3%A9&c&&d=100%").unwrap();
        let pairs: Vec<_> = form.pairs().collect();
        assert_eq!(pairs, [("b", ""), ("a", "1+2 3"), ("a", "é"), ("c", ""), ("d", "100%")]);
        assert_eq!(form.get("a"), Some("1+2 3"));
        assert_eq!(form.get("b"), None);
        assert_eq!(Form::parse(b"a=%FF"), Err(InvalidForm));
    }
}
