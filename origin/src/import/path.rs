//! Where a value stands in a JSON document, and which places a pattern means.

use std::fmt;

use serde_json::Value;

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Segment {
    /// Into another document: the tool with this id at Vapi.
    Tool(String),
    Key(String),
    Index(usize),
}

impl Segment {
    /// Whether a pattern's step means this one.
    fn is(&self, step: &str) -> bool {
        match self {
            Self::Tool(id) => step.strip_prefix("tool(").and_then(|rest| rest.strip_suffix(')')) == Some(id),
            Self::Key(key) => key == step,
            Self::Index(index) => step.parse() == Ok(*index),
        }
    }
}

/// The way from the assistant to a value, written like `model.messages[0].content` or `tool(<id>).function.name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Segment>);

impl Path {
    /// The document of a tool.
    pub fn tool(id: &str) -> Self {
        Self(vec![Segment::Tool(id.to_owned())])
    }

    /// A member of the object here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    /// An item of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    /// How many steps it takes.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Whether `pattern` means this place, after the first `skip` steps. In a pattern, steps are parted by `.` (or in
    /// brackets), `*` is any one step, and `**` at the end is here and everything below.
    pub fn matches(&self, skip: usize, pattern: &str) -> bool {
        let mut segments = self.0.iter().skip(skip);
        let steps = pattern.split(['.', '[']).map(|step| step.strip_suffix(']').unwrap_or(step));
        for step in steps.filter(|step| !step.is_empty()) {
            match (step, segments.next()) {
                ("**", _) => return true,
                ("*", Some(_)) => {}
                (step, Some(segment)) if segment.is(step) => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Tool(id) => write!(f, "tool({id})")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if is_plain(key) => {
                    f.write_str(if position == 0 { "" } else { "." })?;
                    f.write_str(key)?;
                }
                Segment::Key(key) => write!(f, "[{}]", Value::from(key.as_str()))?,
            }
        }
        Ok(())
    }
}

/// Whether a key can stand without quotes and be told from an index and a tool.
fn is_plain(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// Where.
    pub path: Path,
    /// What.
    pub value: &'a Value,
}

impl<'a> Node<'a> {
    /// The whole of a document.
    pub const fn new(path: Path, value: &'a Value) -> Self {
        Self { path, value }
    }

    /// A member that is there and not `null`: at Vapi, `null` is as good as absent.
    pub fn get(&self, key: &str) -> Option<Self> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Self { path: self.path.key(key), value })
    }

    /// A member of a member, and so on.
    pub fn at(&self, keys: &[&str]) -> Option<Self> {
        keys.iter().try_fold(self.clone(), |node, key| node.get(key))
    }

    /// The items of a list; none if it is no list.
    pub fn items(&self) -> Vec<Self> {
        let items = self.value.as_array().into_iter().flatten().enumerate();
        items
            .filter(|(_, value)| !value.is_null())
            .map(|(index, value)| Self { path: self.path.index(index), value })
            .collect()
    }

    /// The members of an object; none if it is no object.
    pub fn members(&self) -> Vec<(&'a str, Self)> {
        let members = self.value.as_object().into_iter().flatten();
        members
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.as_str(), Self { path: self.path.key(key), value }))
            .collect()
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        self.value.as_f64()
    }

    /// The yes or no, if it is one.
    pub fn flag(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// Everything below, and this itself if it is one, that holds no more members: the fields that are set. An empty
    /// object or list counts; `null` does not.
    pub fn leaves(&self) -> Vec<Self> {
        let below: Vec<Self> = match self.value {
            Value::Null => return Vec::new(),
            Value::Object(members) if !members.is_empty() => self.members().into_iter().map(|(_, node)| node).collect(),
            Value::Array(items) if !items.is_empty() => self.items(),
            _ => return vec![self.clone()],
        };
        below.iter().flat_map(Self::leaves).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_written_so_that_it_can_be_told_from_every_other() {
        let path = Path::default().key("model").key("messages").index(0).key("content");
        assert_eq!(path.to_string(), "model.messages[0].content");
        assert_eq!(Path::tool("t1").key("a.b").key("0").to_string(), r#"tool(t1)["a.b"]["0"]"#);
    }

    #[test]
    fn patterns_mean_places() {
        let path = Path::default().key("model").key("messages").index(0).key("content");
        for pattern in
            ["model.messages.*.content", "model.messages[0].content", "model.messages[*].**", "**", "model.**"]
        {
            assert!(path.matches(0, pattern), "{pattern}");
        }
        for pattern in ["model", "model.messages[1].content", "model.messages.*", "model.messages.*.content.*", ""] {
            assert!(!path.matches(0, pattern), "{pattern}");
        }
        assert!(path.matches(0, "model.messages[0].content.**"), "`**` is here and below");
        assert!(path.matches(3, "content"));
    }

    #[test]
    fn leaves_are_what_is_set() {
        let value = json!({"a": 1, "b": {"c": [], "d": null, "e": [true, null, {}]}, "f": {"g": null}});
        let leaves: Vec<_> = Node::new(Path::default(), &value).leaves().iter().map(|n| n.path.to_string()).collect();
        assert_eq!(leaves, ["a", "b.c", "b.e[0]", "b.e[2]"]);
    }
}
