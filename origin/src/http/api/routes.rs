//! `/api/routes`: why a call goes where it goes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use shared::E164;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::explain::{self, Explanation};
use crate::http::auth::Reader;
use crate::http::extract::Params;
use crate::http::problem::Problem;

/// The path.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(explain))
}

/// A call.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Call {
    /// The number that is called.
    #[param(value_type = E164)]
    to: String,
    /// Who calls.
    #[param(value_type = Option<E164>)]
    from: Option<String>,
}

/// Explain where a call goes.
///
/// Which row of the decision table decides, on which data, and what the edge has of it.
#[utoipa::path(
    get, path = "/routes/explain", operation_id = "explainRoute", tag = "routes", params(Call),
    responses(
        (status = 200, description = "The decision and what it is made on.", body = Object),
        (status = 404, description = ""),
    )
)]
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
