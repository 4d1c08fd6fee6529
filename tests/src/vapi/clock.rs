//! Times as Vapi writes them.

use time::OffsetDateTime;
use time::macros::format_description;

/// `2026-11-22T14:59:58.000Z`: UTC with milliseconds, the format of every date in the API.
pub fn iso(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC)
        .format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"))
        .expect("a date within the years that RFC 3339 can write")
}

/// Milliseconds since 1970, the format of `message.timestamp` and of times in a conversation.
pub fn epoch_ms(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).expect("a date within 292 million years")
}

/// `ms` as seconds, for `secondsFromStart` and durations.
pub(crate) fn seconds(ms: i64) -> f64 {
    // Exact for any call: f64 holds whole milliseconds up to 2^53.
    #[expect(clippy::cast_precision_loss)]
    {
        ms as f64 / 1000.0
    }
}
