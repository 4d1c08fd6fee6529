//! Twilio's phone numbers: those for sale, and those of the account with what calls to them do.
//!
//! Source: Twilio's API reference, `IncomingPhoneNumber` and `AvailablePhoneNumber`. No request has an idempotency key.
//! A number is bought by its exact name, so that a repeat is refused with code 21422 instead of buying another.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::twilio::answer::path;
use shared::{AccountSid, E164};
use utoipa::ToSchema;

use crate::config;
use crate::providers::retry_after;

/// For one request and its answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Buying takes Twilio longer, and its answer is worth waiting for.
const BUY_LIMIT: Duration = Duration::from_secs(20);
/// The most numbers on one page of a list, by Twilio's own limit.
const PAGE: usize = 1_000;
/// More numbers than any account has; stops a list that does not end.
const MAX_PAGES: usize = 100;

/// The number is taken, or not Twilio's to sell.
pub const NOT_AVAILABLE: u32 = 21422;
/// What is kept of Twilio's words for an error, in characters.
const MESSAGE_CHARACTERS: usize = 300;

/// What a call to a number does. A trunk comes before an application, and that before the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VoiceSettings {
    /// Asked how a call is answered.
    pub voice_url: Option<String>,
    /// With `GET` or `POST`.
    pub voice_method: Option<String>,
    /// Asked when that fails.
    pub voice_fallback_url: Option<String>,
    /// With `GET` or `POST`.
    pub voice_fallback_method: Option<String>,
    /// Told when a call is over.
    pub status_callback: Option<String>,
    /// With `GET` or `POST`.
    pub status_callback_method: Option<String>,
    /// Comes before the URLs.
    pub voice_application_sid: Option<String>,
    /// Comes before everything else.
    pub trunk_sid: Option<String>,
}

impl VoiceSettings {
    /// Calls come to the edge, and to the origin when the edge fails.
    pub fn to_edge(edge: &str, origin: &str) -> Self {
        let post = || Some("POST".to_owned());
        Self {
            voice_url: Some(format!("{edge}{}", path::VOICE)),
            voice_method: post(),
            voice_fallback_url: Some(format!("{origin}{}", path::VOICE)),
            voice_fallback_method: post(),
            status_callback: Some(format!("{edge}{}", path::STATUS)),
            status_callback_method: post(),
            voice_application_sid: None,
            trunk_sid: None,
        }
    }

    /// These settings after Vapi has imported or saved the number. Seen in many configurations; Vapi promises none of it.
    #[must_use]
    pub fn saved_by_vapi(self, vapi: &str) -> Self {
        let post = || Some("POST".to_owned());
        Self {
            voice_url: Some(format!("{vapi}{VAPI_INBOUND}")),
            voice_method: post(),
            status_callback: Some(format!("{vapi}/twilio/status")),
            status_callback_method: post(),
            voice_application_sid: None,
            trunk_sid: None,
            ..self
        }
    }

    /// Whether calls go straight to Vapi by the URL that Vapi itself sets.
    pub fn is_vapis(&self) -> bool {
        let path = |url: &String| url.split(['?', '#']).next().is_some_and(|url| url.ends_with(VAPI_INBOUND));
        self.voice_application_sid.is_none() && self.trunk_sid.is_none() && self.voice_url.as_ref().is_some_and(path)
    }

    /// Blank is the same as absent. A method without a URL means nothing: Twilio fills it in as it likes.
    #[must_use]
    fn normal(self) -> Self {
        let set = |value: Option<String>| value.filter(|value| !value.is_empty());
        let method = |url: &Option<String>, method: Option<String>| {
            url.as_ref().map(|_| set(method).unwrap_or_else(|| "POST".to_owned()).to_ascii_uppercase())
        };
        let [voice_url, voice_fallback_url, status_callback] =
            [self.voice_url, self.voice_fallback_url, self.status_callback].map(set);
        Self {
            voice_method: method(&voice_url, self.voice_method),
            voice_fallback_method: method(&voice_fallback_url, self.voice_fallback_method),
            status_callback_method: method(&status_callback, self.status_callback_method),
            voice_application_sid: set(self.voice_application_sid),
            trunk_sid: set(self.trunk_sid),
            voice_url,
            voice_fallback_url,
            status_callback,
        }
    }

    /// All of them by their names in Twilio's API.
    pub fn named(&self) -> [(&'static str, Option<&str>); 8] {
        [
            ("VoiceUrl", self.voice_url.as_deref()),
            ("VoiceMethod", self.voice_method.as_deref()),
            ("VoiceFallbackUrl", self.voice_fallback_url.as_deref()),
            ("VoiceFallbackMethod", self.voice_fallback_method.as_deref()),
            ("StatusCallback", self.status_callback.as_deref()),
            ("StatusCallbackMethod", self.status_callback_method.as_deref()),
            ("VoiceApplicationSid", self.voice_application_sid.as_deref()),
            ("TrunkSid", self.trunk_sid.as_deref()),
        ]
    }

    /// All of them, so that nothing of what was there stays; blank clears.
    fn form(&self) -> [(&'static str, &str); 8] {
        let blank = |name: &str| if name.ends_with("Method") { "POST" } else { "" };
        self.named().map(|(name, value)| (name, value.unwrap_or_else(|| blank(name))))
    }
}

/// Where Vapi lets Twilio ask, after its base.
const VAPI_INBOUND: &str = "/twilio/inbound_call";

/// A number of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedNumber {
    /// Twilio's name of it, `PN…`.
    pub sid: String,
    /// Whose it is.
    pub account: AccountSid,
    /// The number.
    pub number: E164,
    /// A text of the owner's.
    pub friendly_name: Option<String>,
    /// What its calls do.
    pub settings: VoiceSettings,
}

/// A number for sale. Nothing is reserved by looking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AvailableNumber {
    /// The number.
    pub number: E164,
    /// ISO 3166-1 alpha-2.
    pub country: String,
    /// State or province.
    pub region: Option<String>,
    /// City.
    pub locality: Option<String>,
    /// `none`, `any`, `local` or `foreign`: an address has to be registered for all but the first.
    pub address_requirements: Option<String>,
}

/// What is searched for.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// ISO 3166-1 alpha-2.
    pub country: String,
    /// `Local`, `TollFree`, `Mobile` or `National`.
    pub kind: &'static str,
    /// In the US and Canada.
    pub area_code: Option<String>,
    /// Digits, letters and `*`.
    pub contains: Option<String>,
    /// How many at most.
    pub limit: usize,
}

/// Why Twilio did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NumbersError {
    /// Not reached, or no answer in time: whether the request took effect is not known.
    #[error("Twilio cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// Too many requests; this one had no effect.
    #[error("Twilio asks to wait")]
    RateLimited {
        /// How long, if Twilio said.
        retry_after: Option<Duration>,
    },
    /// An answer that is not a success.
    #[error("Twilio refused with status {status}{}: {message}", code.map(|code| format!(", code {code}")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Twilio's code.
        code: Option<u32>,
        /// Twilio's words.
        message: String,
        /// How long to wait, if Twilio said.
        retry_after: Option<Duration>,
    },
    /// A success that cannot be read.
    #[error("Twilio's answer has no usable {0}")]
    Unreadable(&'static str),
}

impl From<reqwest::Error> for NumbersError {
    /// Without the URL, which names the account.
    fn from(error: reqwest::Error) -> Self {
        Self::Unreachable(error.without_url())
    }
}

#[derive(Deserialize)]
struct Answer {
    sid: String,
    account_sid: AccountSid,
    phone_number: E164,
    friendly_name: Option<String>,
    #[serde(flatten)]
    settings: Settings,
}

/// The settings under their names in answers.
#[derive(Deserialize)]
struct Settings {
    voice_url: Option<String>,
    voice_method: Option<String>,
    voice_fallback_url: Option<String>,
    voice_fallback_method: Option<String>,
    status_callback: Option<String>,
    status_callback_method: Option<String>,
    voice_application_sid: Option<String>,
    trunk_sid: Option<String>,
}

impl From<Answer> for OwnedNumber {
    fn from(answer: Answer) -> Self {
        let settings = answer.settings;
        Self {
            sid: answer.sid,
            account: answer.account_sid,
            number: answer.phone_number,
            friendly_name: answer.friendly_name,
            settings: VoiceSettings {
                voice_url: settings.voice_url,
                voice_method: settings.voice_method,
                voice_fallback_url: settings.voice_fallback_url,
                voice_fallback_method: settings.voice_fallback_method,
                status_callback: settings.status_callback,
                status_callback_method: settings.status_callback_method,
                voice_application_sid: settings.voice_application_sid,
                trunk_sid: settings.trunk_sid,
            }
            .normal(),
        }
    }
}

#[derive(Deserialize)]
struct Page {
    incoming_phone_numbers: Vec<Answer>,
    next_page_uri: Option<String>,
}

#[derive(Deserialize)]
struct ForSale {
    available_phone_numbers: Vec<Offer>,
}

#[derive(Deserialize)]
struct Offer {
    phone_number: E164,
    iso_country: String,
    region: Option<String>,
    locality: Option<String>,
    address_requirements: Option<String>,
}

#[derive(Deserialize)]
struct Fault {
    code: Option<u32>,
    message: Option<String>,
}

/// The numbers of one account.
#[derive(Clone, Copy, Debug)]
pub struct Numbers<'a> {
    /// For the requests.
    pub http: &'a reqwest::Client,
    /// Access to Twilio.
    pub config: &'a config::Twilio,
    /// Whose.
    pub account: &'a AccountSid,
}

impl Numbers<'_> {
    /// One number by Twilio's name of it; `None`: the account has none of that name.
    pub async fn fetch(&self, sid: &str) -> Result<Option<OwnedNumber>, NumbersError> {
        let url = self.url(&["IncomingPhoneNumbers", sid])?;
        match read::<Answer>(self.request(Method::GET, url).send().await?).await {
            Ok(answer) => Ok(Some(answer.into())),
            Err(NumbersError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One number by itself; `None`: the account does not have it.
    pub async fn find(&self, number: &E164) -> Result<Option<OwnedNumber>, NumbersError> {
        let mut url = self.url(&["IncomingPhoneNumbers"])?;
        url.query_pairs_mut().append_pair("PhoneNumber", number.as_str());
        let page: Page = read(self.request(Method::GET, url).send().await?).await?;
        // The filter finds parts of numbers, too.
        let owned = page.incoming_phone_numbers.into_iter().map(OwnedNumber::from);
        Ok(owned.into_iter().find(|owned| owned.number == *number))
    }

    /// Every number of the account.
    pub async fn all(&self) -> Result<Vec<OwnedNumber>, NumbersError> {
        let mut all = Vec::new();
        let mut url = self.url(&["IncomingPhoneNumbers"])?;
        url.query_pairs_mut().append_pair("PageSize", &PAGE.to_string());
        for _ in 0..MAX_PAGES {
            let page: Page = read(self.request(Method::GET, url.clone()).send().await?).await?;
            all.extend(page.incoming_phone_numbers.into_iter().map(OwnedNumber::from));
            let Some(next) = page.next_page_uri else { return Ok(all) };
            // A path: the credentials go nowhere else.
            url = self.config.api_url.join(&next).map_err(|_| NumbersError::Unreadable("page"))?;
            if url.origin() != self.config.api_url.origin() {
                return Err(NumbersError::Unreadable("page"));
            }
        }
        Err(NumbersError::Unreadable("end of the list"))
    }

    /// Sets what calls to the number do; gives the number as it is afterwards.
    pub async fn update(&self, sid: &str, settings: &VoiceSettings) -> Result<OwnedNumber, NumbersError> {
        let url = self.url(&["IncomingPhoneNumbers", sid])?;
        let answer: Answer = read(self.request(Method::POST, url).form(&settings.form()).send().await?).await?;
        Ok(answer.into())
    }

    /// Buys this very number. When no answer comes, it may be bought all the same.
    pub async fn buy(&self, number: &E164, settings: &VoiceSettings) -> Result<OwnedNumber, NumbersError> {
        let url = self.url(&["IncomingPhoneNumbers"])?;
        // What is blank in a new number need not be cleared.
        let settings = settings.form().into_iter().filter(|(_, value)| !value.is_empty());
        let form: Vec<(&str, &str)> = settings.chain([("PhoneNumber", number.as_str())]).collect();
        let request = self.request(Method::POST, url).form(&form).timeout(BUY_LIMIT);
        let answer: Answer = read(request.send().await?).await?;
        Ok(answer.into())
    }

    /// Gives the number back, for good. `false`: the account does not have it any more.
    pub async fn release(&self, sid: &str) -> Result<bool, NumbersError> {
        let url = self.url(&["IncomingPhoneNumbers", sid])?;
        let response = self.request(Method::DELETE, url).send().await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(fault(response).await),
        }
    }

    /// Numbers for sale.
    pub async fn search(&self, search: &Search) -> Result<Vec<AvailableNumber>, NumbersError> {
        let mut url = self.url(&["AvailablePhoneNumbers", &search.country, search.kind])?;
        url.query_pairs_mut().append_pair("VoiceEnabled", "true").append_pair("PageSize", &search.limit.to_string());
        for (name, value) in [("AreaCode", &search.area_code), ("Contains", &search.contains)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let offers: ForSale = read(self.request(Method::GET, url).send().await?).await?;
        let offers = offers.available_phone_numbers.into_iter().take(search.limit);
        Ok(offers
            .map(|offer| AvailableNumber {
                number: offer.phone_number,
                country: offer.iso_country,
                region: offer.region,
                locality: offer.locality,
                address_requirements: offer.address_requirements,
            })
            .collect())
    }

    fn request(&self, method: Method, url: reqwest::Url) -> RequestBuilder {
        let (user, token) = self.config.credentials(self.account);
        self.http.request(method, url).basic_auth(user, token).timeout(LIMIT)
    }

    /// The path's last step gets `.json`; each is one step of the path, whatever is in it.
    fn url(&self, steps: &[&str]) -> Result<reqwest::Url, NumbersError> {
        let mut url = self.config.api_url.clone();
        let account = self.account.as_str();
        if let (Ok(mut path), Some((last, steps))) = (url.path_segments_mut(), steps.split_last()) {
            path.pop_if_empty().extend(["2010-04-01", "Accounts", account]).extend(steps);
            path.push(&format!("{last}.json"));
        } else {
            return Err(NumbersError::Unreadable("address"));
        }
        Ok(url)
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, NumbersError> {
    if !response.status().is_success() {
        return Err(fault(response).await);
    }
    let bytes = response.bytes().await?;
    serde_json::from_slice(&bytes).map_err(|_| NumbersError::Unreadable("content"))
}

/// A refusal in Twilio's words; a proxy's page has none.
async fn fault(response: Response) -> NumbersError {
    let (status, retry_after) = (response.status(), retry_after(&response));
    if status == StatusCode::TOO_MANY_REQUESTS {
        return NumbersError::RateLimited { retry_after };
    }
    let fault: Fault = response.json().await.unwrap_or(Fault { code: None, message: None });
    let message = fault.message.unwrap_or_else(|| "no reason given".to_owned());
    NumbersError::Refused {
        status: status.as_u16(),
        code: fault.code,
        message: message.chars().take(MESSAGE_CHARACTERS).collect(),
        retry_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_is_absent_and_a_method_needs_a_url() {
        let answer: Answer = serde_json::from_str(
            r#"{"sid":"PN1","account_sid":"AC1","phone_number":"+15550100","voice_url":"https://h.test/v",
                "voice_method":"get","voice_fallback_url":"","voice_fallback_method":"POST","status_callback":null,
                "status_callback_method":"POST","voice_application_sid":null,"trunk_sid":""}"#,
        )
        .unwrap();
        let settings = OwnedNumber::from(answer).settings;
        let expected = VoiceSettings {
            voice_url: Some("https://h.test/v".to_owned()),
            voice_method: Some("GET".to_owned()),
            ..VoiceSettings::default()
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn what_vapi_saves_is_known_by_its_url_unless_something_comes_before_it() {
        let edge = VoiceSettings::to_edge("https://edge.test", "https://origin.test");
        assert!(!edge.is_vapis());
        let vapi = edge.saved_by_vapi("https://api.vapi.ai");
        assert!(vapi.is_vapis());
        assert_eq!(vapi.voice_fallback_url.as_deref(), Some("https://origin.test/twilio/voice"));
        assert!(!VoiceSettings { trunk_sid: Some("TK1".to_owned()), ..vapi }.is_vapis());
    }
}
