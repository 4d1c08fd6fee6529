//! One webhook request with everything that Twilio does around it: signature, idempotency token,
//! connection overrides, retries, redirects, limits of size and time.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HOST, LOCATION};
use tokio::time::Instant;

use super::overrides::{Limits, Retry};
use super::signature::{Param, sign};
use super::twiml::Method;
use crate::hosts::{Hosts, http_client};

/// Largest answer: 64 kB.
const SIZE_LIMIT: usize = 64 * 1024;
/// Redirects (3xx) followed before Twilio gives up.
const REDIRECT_LIMIT: u32 = 10;

/// A request to make.
#[derive(Clone, Debug)]
pub(crate) struct Webhook<'a> {
    pub(crate) hosts: &'a Hosts,
    pub(crate) auth_token: &'a str,
    /// The public URL, with its fragment of overrides if it has one.
    pub(crate) url: &'a str,
    pub(crate) method: Method,
    pub(crate) params: &'a [Param],
    /// The hard limit of all attempts together, on the wall clock.
    pub(crate) total: Duration,
}

/// An answer of status 2xx.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) content_type: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Why there is none, as the debugger shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u32,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: u32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// One attempt, for the trace.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) took_us: u64,
}

/// How one attempt went wrong.
struct Fault {
    kind: Option<Retry>,
    status: Option<u16>,
    failure: Failure,
}

impl Webhook<'_> {
    /// Makes the request; `attempt` hears of every attempt as it ends.
    pub(crate) async fn send(&self, mut attempt: impl FnMut(Attempt)) -> Result<Answer, Failure> {
        let limits = Limits::of(self.url, self.total);
        let client = http_client()
            .connect_timeout(limits.connect)
            .read_timeout(limits.read)
            .pool_max_idle_per_host(0)
            .user_agent("TwilioProxy/1.1")
            .build()
            .expect("a client with these settings can be built");
        let idempotency = uuid::Uuid::new_v4().to_string();
        let deadline = Instant::now() + limits.total;
        let (mut url, mut method, mut params) = (without_fragment(self.url).to_owned(), self.method, self.params);
        let (mut tries, mut redirects) = (0, 0);
        loop {
            let began = Instant::now();
            let request = self.request(&client, &url, method, params, &idempotency);
            let result = match tokio::time::timeout_at(deadline, request).await {
                Ok(result) => result,
                Err(_) => Err(Fault {
                    kind: None,
                    status: None,
                    failure: Failure::new(11200, format!("no answer within {} ms", limits.total.as_millis())),
                }),
            };
            let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let (status, error) = match &result {
                Ok(reply) => (Some(reply.status), None),
                Err(fault) => (fault.status, Some(fault.failure.text.clone())),
            };
            attempt(Attempt { method, url: url.clone(), status, error, took_us });
            match result {
                Ok(Reply { location: Some(location), .. }) if redirects < REDIRECT_LIMIT => {
                    redirects += 1;
                    url = resolve(Some(&url), &location).ok_or_else(|| Failure::new(11200, "redirected to no URL"))?;
                    // A redirect is followed with GET, and what was posted is lost.
                    (method, params) = (Method::Get, &[]);
                }
                Ok(Reply { location: Some(_), .. }) => return Err(Failure::new(11215, "too many redirects")),
                Ok(reply) => return Ok(reply.answer),
                Err(fault) => {
                    let retried = fault.kind.is_some_and(|kind| limits.retried.contains(&kind));
                    if tries == limits.retries || !retried {
                        return Err(fault.failure);
                    }
                    tries += 1;
                }
            }
        }
    }

    async fn request(
        &self,
        client: &reqwest::Client,
        url: &str,
        method: Method,
        params: &[Param],
        idempotency: &str,
    ) -> Result<Reply, Fault> {
        let in_query = if method == Method::Get { with_query(url, params) } else { url.to_owned() };
        let destination = self.hosts.resolve(&in_query).map_err(|unresolved| Fault {
            kind: Some(Retry::Connect),
            status: None,
            failure: Failure::new(11210, unresolved.to_string()),
        })?;
        let request = match method {
            Method::Get => {
                client.get(&destination.url).header("X-Twilio-Signature", sign(self.auth_token, &in_query, &[]))
            }
            Method::Post => client
                .post(&destination.url)
                .header("X-Twilio-Signature", sign(self.auth_token, url, params))
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8")
                .body(form(params)),
        };
        let request = request
            .header(HOST, destination.host)
            .header("Accept", "*/*")
            .header("I-Twilio-Idempotency-Token", idempotency)
            .header("X-Home-Region", "us1");
        let mut response = request.send().await.map_err(|error| Fault::of(&error, None))?;
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (content_type, location) = (header(CONTENT_TYPE), header(LOCATION));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Fault::of(&error, Some(status.as_u16())))? {
            body.extend_from_slice(&chunk);
            if body.len() > SIZE_LIMIT {
                return Err(Fault {
                    kind: None,
                    status: Some(status.as_u16()),
                    failure: Failure::new(11750, "the answer is larger than 64 kB"),
                });
            }
        }
        let kind = match status.as_u16() {
            200..=299 => None,
            300..=399 if location.is_some() => None,
            400..=499 => Some(Retry::Status4xx),
            _ => Some(Retry::Status5xx),
        };
        if kind.is_some() {
            let failure = Failure::new(11200, format!("the answer has status {}", status.as_u16()));
            return Err(Fault { kind, status: Some(status.as_u16()), failure });
        }
        let location = location.filter(|_| status.is_redirection());
        Ok(Reply { status: status.as_u16(), location, answer: Answer { content_type, body } })
    }
}

struct Reply {
    status: u16,
    location: Option<String>,
    answer: Answer,
}

impl Fault {
    fn of(error: &reqwest::Error, status: Option<u16>) -> Self {
        let (kind, text) = if error.is_connect() {
            (Some(Retry::Connect), "could not connect".to_owned())
        } else if error.is_timeout() {
            (Some(Retry::Read), "no answer in time".to_owned())
        } else {
            (Some(Retry::Read), format!("the answer broke off: {error}"))
        };
        Self { kind, status, failure: Failure::new(11200, text) }
    }
}

/// A URL that a document names, made absolute. An empty one means the document itself.
pub(crate) fn resolve(base: Option<&str>, url: &str) -> Option<String> {
    if url.is_empty() {
        return base.map(str::to_owned);
    }
    // An absolute URL is used byte for byte: parsing it could change what is signed.
    if url.contains("://") {
        return Some(url.to_owned());
    }
    let base = url::Url::parse(base?).ok()?;
    base.join(url).ok().map(String::from)
}

fn without_fragment(url: &str) -> &str {
    url.split('#').next().unwrap_or_default()
}

fn form(params: &[Param]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish()
}

/// A GET webhook carries its parameters in the query, after what the URL has there already.
fn with_query(url: &str, params: &[Param]) -> String {
    if params.is_empty() {
        return url.to_owned();
    }
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}{}", form(params).replace('+', "%20"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_resolve_against_the_document() {
        let base = Some("https://h.test/twilio/voice?x=1");
        assert_eq!(resolve(base, "").as_deref(), base);
        assert_eq!(resolve(base, "resume").as_deref(), Some("https://h.test/twilio/resume"));
        assert_eq!(resolve(base, "/a?b=1").as_deref(), Some("https://h.test/a?b=1"));
        assert_eq!(resolve(None, "https://h.test/O'B").as_deref(), Some("https://h.test/O'B"));
        assert_eq!(resolve(None, "/a"), None);
    }

    #[test]
    fn a_get_request_has_its_parameters_in_the_query() {
        let params = [("From".to_owned(), "+1 a".to_owned()), ("ToCity".to_owned(), String::new())];
        assert_eq!(with_query("https://h.test/p?q=1", &params), "https://h.test/p?q=1&From=%2B1%20a&ToCity=");
    }
}
