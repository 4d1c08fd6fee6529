//! Lists, a page at a time, the newest first.
//!
//! A cursor names the last row of a page, and the next page is what came before that row. So rows that are added
//! meanwhile shift nothing: none is seen twice, none is passed over.

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error as _};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

const DEFAULT: i64 = 50;
const MOST: i64 = 200;

/// How many rows a page may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(i64);

impl Limit {
    /// How many rows to look for: one more than the page holds tells whether there is another page.
    pub fn to_fetch(limit: Option<Self>) -> i64 {
        limit.unwrap_or(Self(DEFAULT)).0 + 1
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            limit @ 1..=MOST => Ok(Self(limit)),
            _ => Err(D::Error::custom(format_args!("limit must be between 1 and {MOST}"))),
        }
    }
}

impl PartialSchema for Limit {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(MOST))
            .default(Some(DEFAULT.into()))
            .into()
    }
}

impl ToSchema for Limit {}

/// Where a page begins: after the row of this key. Described as its key, where a list takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor<K>(K);

impl<K> Cursor<K> {
    /// The key of the last row of the page before.
    pub fn key(self) -> K {
        self.0
    }
}

impl<'de, K: FromStr> Deserialize<'de> for Cursor<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?.parse().ok();
        key.map(Self).ok_or_else(|| D::Error::custom("cursor must be a nextCursor of this list"))
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    items: Vec<T>,
    /// Send it as `cursor` for the next page. `null`: there is none.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page out of the rows that were found, of which there may be one more than the page holds.
    pub fn new<R, K: Display>(
        mut rows: Vec<R>,
        limit: Option<Limit>,
        key: impl Fn(&R) -> K,
        show: impl FnMut(R) -> T,
    ) -> Self {
        let next_cursor = cut(&mut rows, limit, key);
        Self { items: rows.into_iter().map(show).collect(), next_cursor }
    }

    /// A page whose rows were [`cut`] before they were made into what is shown.
    pub fn of(items: Vec<T>, next_cursor: Option<String>) -> Self {
        Self { items, next_cursor }
    }
}

/// Takes the row too many away and gives the cursor of the next page, if there is one.
pub fn cut<R, K: Display>(rows: &mut Vec<R>, limit: Option<Limit>, key: impl Fn(&R) -> K) -> Option<String> {
    let holds = usize::try_from(Limit::to_fetch(limit) - 1).unwrap_or(usize::MAX);
    let has_more = rows.len() > holds;
    rows.truncate(holds);
    rows.last().filter(|_| has_more).map(|last| key(last).to_string())
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;
    use serde::de::value::Error;

    use super::*;

    fn page(rows: i64, limit: i64) -> Page<i64> {
        Page::new((0..rows).collect(), Some(Limit(limit)), |row| *row, |row| row)
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        assert_eq!((page(3, 3).items.len(), page(3, 3).next_cursor), (3, None));
        assert_eq!(page(0, 3).next_cursor, None);
        let page = page(4, 3);
        assert_eq!(page.items, [0, 1, 2]);
        let cursor: Result<Cursor<i64>, Error> = Cursor::deserialize(page.next_cursor.unwrap().into_deserializer());
        assert_eq!(cursor.unwrap().key(), 2);
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "!", "1.5", &"1".repeat(400)] {
            let cursor: Result<Cursor<i64>, Error> = Cursor::deserialize(text.to_owned().into_deserializer());
            assert!(cursor.is_err(), "{text}");
        }
    }
}
