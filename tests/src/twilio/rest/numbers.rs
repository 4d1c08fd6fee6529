//! `AvailablePhoneNumbers` and `IncomingPhoneNumbers`.

use serde_json::{Value, json};

use super::super::exchange::{Exchange, lock};
use super::super::number::Number;
use super::{ApiError, Form, Reply};

/// Settings that hold URLs.
const URLS: [&str; 5] = ["VoiceUrl", "VoiceFallbackUrl", "StatusCallback", "SmsUrl", "SmsFallbackUrl"];
/// Longest `FriendlyName`.
const NAME_LIMIT: usize = 64;

pub(super) fn search(exchange: &Exchange, country: &str, kind: &str, form: &Form) -> Result<Reply, ApiError> {
    if country != "US" || kind != "Local" {
        return Err(ApiError::not_found(&format!("AvailablePhoneNumbers/{country}/{kind}.json")));
    }
    let contains = form.filled("Contains").unwrap_or_default();
    if contains.chars().count() == 1 {
        return Err(ApiError::new(400, 20001, "Contains needs 2 to 16 characters"));
    }
    let limit = form.get("PageSize").and_then(|size| size.parse().ok()).unwrap_or(50);
    let numbers: Vec<Value> = free(exchange)
        .filter(|number| form.filled("AreaCode").is_none_or(|area| has_area(number, area)))
        .filter(|number| matches_pattern(number, contains))
        .take(limit)
        .map(|number| {
            json!({
                "phone_number": number,
                "friendly_name": number,
                "iso_country": "US",
                "region": "CA",
                "locality": "San Francisco",
                "postal_code": "94105",
                "rate_center": null,
                "lata": "722",
                "latitude": "37.780000",
                "longitude": null,
                "address_requirements": "none",
                "beta": false,
                "capabilities": {"voice": true, "SMS": true, "MMS": true},
            })
        })
        .collect();
    let uri = format!("/2010-04-01/Accounts/{}/AvailablePhoneNumbers/US/Local.json", exchange.options.account_sid);
    Ok((200, Some(json!({"available_phone_numbers": numbers, "uri": uri}))))
}

pub(super) fn buy(exchange: &Exchange, form: &Form) -> Result<Reply, ApiError> {
    check(form)?;
    let unavailable = |number: &str| ApiError::new(400, 21422, format!("{number} is not available"));
    let e164 = match (form.filled("PhoneNumber"), form.filled("AreaCode")) {
        // The magic numbers of test credentials.
        (Some("+15005550000"), _) => return Err(unavailable("+15005550000")),
        (Some("+15005550006"), _) => "+15005550006".to_owned(),
        (Some(number), _) if number == "+15005550001" || !is_e164(number) => {
            return Err(ApiError::new(400, 21421, format!("PhoneNumber is not valid: {number}")));
        }
        (Some(number), _) => free(exchange).find(|free| free == number).ok_or_else(|| unavailable(number))?,
        (None, Some(area)) if area.len() != 3 || !area.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Err(ApiError::new(400, 21451, format!("Invalid area code: {area}")));
        }
        (None, Some(area)) => free(exchange)
            .find(|number| has_area(number, area))
            .ok_or_else(|| ApiError::new(400, 21452, format!("No phone numbers found in area code {area}")))?,
        (None, None) => {
            return Err(ApiError::new(400, 21421, "PhoneNumber or AreaCode is required"));
        }
    };
    let mut number = Number::new(&e164);
    apply(&mut number, form);
    let body = number.json(&exchange.options.account_sid);
    lock(&exchange.numbers).insert(e164, number);
    Ok((201, Some(body)))
}

pub(super) fn fetch(exchange: &Exchange, sid: &str) -> Result<Reply, ApiError> {
    let numbers = lock(&exchange.numbers);
    let number = numbers.values().find(|number| number.sid.as_str() == sid).ok_or_else(|| missing(sid))?;
    Ok((200, Some(number.json(&exchange.options.account_sid))))
}

pub(super) fn update(exchange: &Exchange, sid: &str, form: &Form) -> Result<Reply, ApiError> {
    check(form)?;
    let mut numbers = lock(&exchange.numbers);
    let number = numbers.values_mut().find(|number| number.sid.as_str() == sid).ok_or_else(|| missing(sid))?;
    apply(number, form);
    Ok((200, Some(number.json(&exchange.options.account_sid))))
}

pub(super) fn release(exchange: &Exchange, sid: &str) -> Result<Reply, ApiError> {
    let mut numbers = lock(&exchange.numbers);
    let before = numbers.len();
    numbers.retain(|_, number| number.sid.as_str() != sid);
    if numbers.len() == before { Err(missing(sid)) } else { Ok((204, None)) }
}

pub(super) fn list(exchange: &Exchange, form: &Form) -> Reply {
    let size = |name, default: usize| form.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (page, page_size) = (size("Page", 0), size("PageSize", 50).clamp(1, 1000));
    let numbers = lock(&exchange.numbers);
    let wanted: Vec<&Number> = numbers
        .values()
        .filter(|number| form.filled("PhoneNumber").is_none_or(|pattern| matches_pattern(&number.e164, pattern)))
        .filter(|number| form.filled("FriendlyName").is_none_or(|name| number.setting("FriendlyName") == Some(name)))
        .collect();
    let start = page * page_size;
    let items: Vec<Value> =
        wanted.iter().skip(start).take(page_size).map(|number| number.json(&exchange.options.account_sid)).collect();
    let path = format!("/2010-04-01/Accounts/{}/IncomingPhoneNumbers.json", exchange.options.account_sid);
    let filters: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form.0.iter().filter(|(name, _)| name != "Page" && name != "PageSize"))
        .finish();
    let uri = |page: usize| {
        let separator = if filters.is_empty() { "" } else { "&" };
        format!("{path}?{filters}{separator}PageSize={page_size}&Page={page}")
    };
    let more = start + items.len() < wanted.len();
    let body = json!({
        "page": page,
        "page_size": page_size,
        "start": start,
        "end": (start + items.len()).saturating_sub(1),
        "uri": uri(page),
        "first_page_uri": uri(0),
        "next_page_uri": more.then(|| uri(page + 1)),
        "previous_page_uri": page.checked_sub(1).map(uri),
        "incoming_phone_numbers": items,
    });
    (200, Some(body))
}

fn check(form: &Form) -> Result<(), ApiError> {
    for name in URLS {
        form.check_url(name, 21402)?;
    }
    if form.get("FriendlyName").is_some_and(|name| name.chars().count() > NAME_LIMIT) {
        return Err(ApiError::new(400, 20001, format!("FriendlyName is longer than {NAME_LIMIT} characters")));
    }
    Ok(())
}

fn apply(number: &mut Number, form: &Form) {
    for (name, value) in &form.0 {
        number.set(name, value);
    }
}

fn missing(sid: &str) -> ApiError {
    ApiError::not_found(&format!("IncomingPhoneNumbers/{sid}.json"))
}

fn free(exchange: &Exchange) -> impl Iterator<Item = String> {
    let taken: Vec<String> = lock(&exchange.numbers).keys().cloned().collect();
    exchange.options.inventory.clone().into_iter().filter(move |number| !taken.contains(number))
}

fn has_area(number: &str, area: &str) -> bool {
    number.strip_prefix("+1").is_some_and(|rest| rest.starts_with(area))
}

/// `*` stands for any one digit; the rest occurs somewhere in the number.
fn matches_pattern(number: &str, pattern: &str) -> bool {
    let pattern = pattern.as_bytes();
    pattern.is_empty()
        || number
            .as_bytes()
            .windows(pattern.len())
            .any(|part| part.iter().zip(pattern).all(|(digit, wanted)| *wanted == b'*' || digit == wanted))
}

fn is_e164(number: &str) -> bool {
    number
        .strip_prefix('+')
        .is_some_and(|digits| (8..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
