//! A request without its body, as the runtime hands it over: one text, read in place.
//!
//! The first line is the method, the second the URL, each further one `name:value` of a header that is there. Neither
//! a URL nor a header's value can hold a line break.

/// What is known of a request before its body is read.
#[derive(Clone, Debug)]
pub struct Head {
    text: String,
}

impl Head {
    /// Takes the runtime's text.
    pub const fn new(text: String) -> Self {
        Self { text }
    }

    /// The method in upper case.
    pub fn method(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    fn url(&self) -> &str {
        self.text.lines().nth(1).unwrap_or_default()
    }

    /// Where the authority of the URL ends and its path begins.
    fn split(&self) -> (&str, &str) {
        let url = self.url();
        let authority = url.find("://").map_or(0, |at| at + "://".len());
        let path = url.bytes().skip(authority).position(|byte| matches!(byte, b'/' | b'?' | b'#'));
        url.split_at_checked(path.map_or(url.len(), |at| authority + at)).unwrap_or((url, ""))
    }

    /// Scheme and authority, for instance `https://edge.example.com`.
    pub fn origin(&self) -> &str {
        self.split().0
    }

    /// Path and query as they were requested, without the fragment.
    pub fn path_and_query(&self) -> &str {
        self.split().1.split('#').next().unwrap_or_default()
    }

    /// The path alone.
    pub fn path(&self) -> &str {
        self.path_and_query().split('?').next().unwrap_or_default()
    }

    /// What follows the question mark, or nothing.
    pub fn query(&self) -> &str {
        self.path_and_query().split_once('?').map_or("", |(_, query)| query)
    }

    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(2).find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_request() {
        let head = Head::new(
            "POST\nhttps://edge.example:8443/twilio/voice?attempt=2&u=http://x/y\ncontent-type:a/b; c=d:e\nx-timestamp:"
                .into(),
        );
        assert_eq!(head.method(), "POST");
        assert_eq!(head.origin(), "https://edge.example:8443");
        assert_eq!(head.path(), "/twilio/voice");
        assert_eq!(head.query(), "attempt=2&u=http://x/y");
        assert_eq!(head.path_and_query(), "/twilio/voice?attempt=2&u=http://x/y");
        assert_eq!(head.header("content-type"), Some("a/b; c=d:e"));
        assert_eq!(head.header("x-timestamp"), Some(""));
        assert_eq!(head.header("x-time"), None);
        assert_eq!(head.header("https"), None);
    }

    #[test]
    fn strange_texts_are_only_empty() {
        for text in ["", "POST", "POST\nnonsense", "\n\n\n", "GET\nhttps://é"] {
            let head = Head::new(text.into());
            assert_eq!((head.path(), head.query(), head.header("a")), ("", "", None), "{text}");
        }
        assert_eq!(Head::new("GET\nhttps://a?b#c/d".into()).path_and_query(), "?b");
    }
}
