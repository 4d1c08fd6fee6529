//! `/api/routes`: why a call goes where it goes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use shared::E164;

use crate::App;
use crate::explain::{self, Explanation};
use crate::http::auth::Reader;
use crate::http::extract::Params;
use crate::http::problem::Problem;

/// The query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    to: String,
    from: Option<String>,
}

/// `GET /api/routes/explain`.
pub async fn explain(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(call): Params<Call>,
) -> Result<Json<Explanation>, Problem> {
    let to = number("to", &call.to)?;
    let from = call.from.as_deref().map(|from| number("from", from)).transpose()?;
    let explained = explain::explain(&app, Some(reader.project), &to, from.as_ref()).await?;
    explained.map(Json).ok_or_else(|| Problem::not_found("number"))
}

fn number(name: &str, text: &str) -> Result<E164, Problem> {
    // A plus that was not encoded arrives as a space.
    let text = text.strip_prefix(' ').map_or_else(|| text.to_owned(), |digits| format!("+{digits}"));
    text.parse().map_err(|_| Problem::invalid(format!("{name} must be a phone number in E.164, such as +15550100.")))
}
