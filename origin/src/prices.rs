//! What a call costs: tokens times a dated table of prices.
//!
//! The table is configuration, since prices change and are agreed upon. Built in are the prices of the models that we
//! know them of, and of those no others: what has no price makes the cost unknown, never zero. All amounts are
//! integers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::usage::{Tokens, Usage};

const BUILT_IN: &str = include_str!("prices/default.json");

/// Millionths of a micro-dollar: a price of one dollar per million tokens is a million of them per token.
type Picousd = u128;
const PICO_PER_MICRO: Picousd = 1_000_000;

/// Prices in US dollars.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriceTable {
    /// The day on which they were right, as people write it.
    pub as_of: String,
    /// Of responses, by model.
    #[serde(default)]
    models: BTreeMap<String, TokenPrices>,
    /// Of transcripts, by model.
    #[serde(default)]
    transcription: BTreeMap<String, TranscriptPrices>,
}

/// Dollars per million tokens. What is absent has no price.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TokenPrices {
    audio_in: Option<Price>,
    audio_in_cached: Option<Price>,
    audio_out: Option<Price>,
    text_in: Option<Price>,
    text_in_cached: Option<Price>,
    text_out: Option<Price>,
    image_in: Option<Price>,
    image_in_cached: Option<Price>,
}

/// Dollars per million tokens, or per minute, as the model counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TranscriptPrices {
    audio_in: Option<Price>,
    text_in: Option<Price>,
    text_out: Option<Price>,
    per_minute: Option<Price>,
}

impl TranscriptPrices {
    fn tokens(&self) -> TokenPrices {
        let Self { audio_in, text_in, text_out, per_minute: _ } = *self;
        TokenPrices { audio_in, text_in, text_out, ..TokenPrices::default() }
    }
}

/// A price in dollars, exact to the millionth.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "f64")]
struct Price {
    micro: u64,
}

impl TryFrom<f64> for Price {
    type Error = &'static str;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range that is checked")]
    fn try_from(dollars: f64) -> Result<Self, Self::Error> {
        if (0.0..1e6).contains(&dollars) { Ok(Self { micro: (dollars * 1e6).round() as u64 }) } else { Err("no price") }
    }
}

/// Where an amount comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CostSource {
    /// Tokens times prices.
    PriceTable,
    /// Vapi's own account of it.
    Vapi,
    /// Both, of a call that began here and went to Vapi.
    Both,
}

/// The cost of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// All of it, in millionths of a dollar; `None` when something in it has no price.
    pub microusd: Option<u64>,
    /// Who says so.
    pub source: CostSource,
    /// The day of the prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices_as_of: Option<String>,
    /// Its parts, as far as they have prices.
    pub items: Vec<CostItem>,
    /// What has no price.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unpriced: Vec<String>,
}

/// A part of a cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CostItem {
    /// What was paid for.
    pub what: String,
    /// In millionths of a dollar.
    pub microusd: u64,
}

impl Cost {
    /// This beside what was spent before, elsewhere.
    #[must_use]
    pub fn beside(self, before: Self) -> Self {
        let mut items = before.items;
        items.extend(self.items);
        let mut unpriced = before.unpriced;
        unpriced.extend(self.unpriced);
        Self {
            microusd: self.microusd.zip(before.microusd).map(|(one, other)| one + other),
            source: CostSource::Both,
            prices_as_of: before.prices_as_of,
            items,
            unpriced,
        }
    }
}

impl PriceTable {
    /// Reads a table.
    pub fn read(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The prices that are built in.
    pub fn built_in() -> Self {
        // A test reads it; an empty table would make every cost unknown, which is true of it.
        Self::read(BUILT_IN).unwrap_or_else(|_| Self {
            as_of: String::new(),
            models: BTreeMap::new(),
            transcription: BTreeMap::new(),
        })
    }

    /// What has been used, in money.
    pub fn cost(&self, usage: &Usage) -> Cost {
        let mut bill = Bill::default();
        for (model, tokens) in &usage.models {
            bill.tokens(model, tokens, self.models.get(model));
        }
        for (model, used) in &usage.transcription {
            let prices = self.transcription.get(model);
            bill.tokens(model, &used.tokens, prices.map(TranscriptPrices::tokens).as_ref());
            // A price per minute is a sixty-thousandth of it per millisecond.
            let price = prices.and_then(|prices| prices.per_minute).map(|price| Picousd::from(price.micro));
            let amount = price.map(|price| price * PICO_PER_MICRO * Picousd::from(used.duration_ms) / 60_000);
            bill.add(&format!("{model} minutes"), used.duration_ms, amount);
        }
        bill.total(&self.as_of)
    }
}

/// A cost in the making.
#[derive(Debug, Default)]
struct Bill {
    items: Vec<CostItem>,
    unpriced: Vec<String>,
}

impl Bill {
    fn tokens(&mut self, model: &str, used: &Tokens, prices: Option<&TokenPrices>) {
        let (read, cached) = (&used.input_token_details.all, &used.input_token_details.cached_tokens_details);
        let written = &used.output_token_details;
        let fresh = |all: u64, cached: u64| all.saturating_sub(cached);
        let price = |of: fn(&TokenPrices) -> Option<Price>| prices.and_then(of);
        let parts = [
            ("audio in", fresh(read.audio_tokens, cached.audio_tokens), price(|p| p.audio_in)),
            ("audio in, cached", cached.audio_tokens, price(|p| p.audio_in_cached)),
            ("audio out", written.audio_tokens, price(|p| p.audio_out)),
            ("text in", fresh(read.text_tokens, cached.text_tokens), price(|p| p.text_in)),
            ("text in, cached", cached.text_tokens, price(|p| p.text_in_cached)),
            // A transcript's output is not told apart; all of it is text.
            ("text out", written.text_tokens + untold(used), price(|p| p.text_out)),
            ("image in", fresh(read.image_tokens, cached.image_tokens), price(|p| p.image_in)),
            ("image in, cached", cached.image_tokens, price(|p| p.image_in_cached)),
        ];
        for (what, tokens, price) in parts {
            let amount = price.map(|price| Picousd::from(price.micro) * Picousd::from(tokens));
            self.add(&format!("{model} {what}"), tokens, amount);
        }
    }

    /// `amount` is `None` where there is no price.
    fn add(&mut self, what: &str, used: u64, amount: Option<Picousd>) {
        if used == 0 {
            return;
        }
        match amount {
            Some(amount) => {
                let rounded = (amount + PICO_PER_MICRO / 2) / PICO_PER_MICRO;
                let microusd = u64::try_from(rounded).unwrap_or(u64::MAX);
                self.items.push(CostItem { what: what.to_owned(), microusd });
            }
            None => self.unpriced.push(what.to_owned()),
        }
    }

    fn total(self, as_of: &str) -> Cost {
        let total = self.items.iter().map(|item| item.microusd).sum();
        Cost {
            microusd: self.unpriced.is_empty().then_some(total),
            source: CostSource::PriceTable,
            prices_as_of: Some(as_of.to_owned()),
            items: self.items,
            unpriced: self.unpriced,
        }
    }
}

/// Output of which the modality is not told.
fn untold(used: &Tokens) -> u64 {
    let told = &used.output_token_details;
    used.output_tokens.saturating_sub(told.text_tokens + told.audio_tokens)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn used() -> Usage {
        let mut usage = Usage::default();
        usage.add_response(
            "gpt-realtime-2.1",
            &json!({
                "total_tokens": 1800, "input_tokens": 1600, "output_tokens": 200,
                "input_token_details": {
                    "text_tokens": 600, "audio_tokens": 1000, "cached_tokens": 1203,
                    "cached_tokens_details": {"text_tokens": 500, "audio_tokens": 703},
                },
                "output_token_details": {"text_tokens": 50, "audio_tokens": 150},
            }),
        );
        usage
    }

    #[test]
    fn the_built_in_prices_are_read() {
        let table = PriceTable::read(BUILT_IN).unwrap();
        assert_eq!(table.models.len(), 2);
        assert_eq!(table.models["gpt-realtime-2.1-mini"].text_in_cached.unwrap().micro, 60_000);
    }

    #[test]
    fn tokens_times_prices() {
        let cost = PriceTable::built_in().cost(&used());
        let items: Vec<_> = cost.items.iter().map(|item| (item.what.as_str(), item.microusd)).collect();
        assert_eq!(
            items,
            [
                ("gpt-realtime-2.1 audio in", 297 * 32),
                // 281.2, to the nearest.
                ("gpt-realtime-2.1 audio in, cached", 281),
                ("gpt-realtime-2.1 audio out", 150 * 64),
                ("gpt-realtime-2.1 text in", 100 * 4),
                ("gpt-realtime-2.1 text in, cached", 200),
                ("gpt-realtime-2.1 text out", 50 * 24),
            ]
        );
        assert_eq!(cost.microusd, Some(297 * 32 + 281 + 9600 + 400 + 200 + 1200));
        assert_eq!(cost.source, CostSource::PriceTable);
    }

    #[test]
    fn what_has_no_price_makes_the_cost_unknown() {
        let mut usage = used();
        usage.add_transcript("gpt-transcribe", &json!({"type": "duration", "seconds": 90}));
        let cost = PriceTable::built_in().cost(&usage);
        assert_eq!((cost.microusd, cost.unpriced), (None, vec!["gpt-transcribe minutes".to_owned()]));
        assert_eq!(cost.items.len(), 6);

        let table =
            PriceTable::read(r#"{"asOf": "2027-01-01", "transcription": {"gpt-transcribe": {"perMinute": 0.006}}}"#);
        let cost = table.unwrap().cost(&usage);
        assert_eq!(cost.items, [CostItem { what: "gpt-transcribe minutes".to_owned(), microusd: 9000 }]);
        assert_eq!(cost.unpriced.len(), 6);
    }

    #[test]
    fn nothing_used_costs_nothing_and_nonsense_is_no_price() {
        assert_eq!(PriceTable::built_in().cost(&Usage::default()).microusd, Some(0));
        for bad in [
            r#"{"asOf": "x", "models": {"a": {"audioin": 1}}}"#,
            r#"{"asOf": "x", "models": {"a": {"audioIn": -1}}}"#,
            "{}",
        ] {
            PriceTable::read(bad).unwrap_err();
        }
    }
}
