//! The API's description, OpenAPI 3.1: made out of the handlers, and completed with what all of them have in common.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement};

use crate::http::problem::Code;

const ABOUT: &str = "The control plane of Tandem: agents, tools, numbers, calls, and which voice system runs them.

**Keys.** Every request carries an API key, `Authorization: Bearer tdm_…`. A key belongs to one project and has a role, \
`read` or `write`. What another project owns is 404.

**Lists** give the newest first, a page at a time. `nextCursor` of a page is `cursor` of the next; rows that are added \
meanwhile shift nothing.

**Making something once.** A `POST` may carry an `Idempotency-Key`. The same request with the same key takes effect \
once and gets the same answer, with `Idempotency-Replayed: true`, for 24 hours; what is shown only once is not in it. \
Errors are not kept.

**Changing.** `PATCH` is JSON Merge Patch (RFC 7396): what is named is set, `null` removes it, what is not named stays, \
lists are replaced as a whole. `If-Match` with an `ETag` that was read makes sure that nobody's change is lost. Secrets \
are shown as `********`; what is sent back so stays as it is.

**Limits.** Each key has so many requests, see the headers `RateLimit-Policy` and `RateLimit`; a body has at most 256 \
KiB, and no text a NUL character.

**Errors** are problem details (RFC 9457), `application/problem+json`. Programs tell them apart by `code`; `requestId` \
is the answer's `x-request-id`, and in the log.";

/// What the handlers' descriptions are added to.
pub fn base() -> OpenApi {
    let key = Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("tdm_…").build();
    let tag = |name: &str, about: &str| TagBuilder::new().name(name).description(Some(about)).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Tandem")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(format!("{ABOUT}\n\n{}", codes())))
                .build(),
        )
        .components(Some(ComponentsBuilder::new().security_scheme("apiKey", SecurityScheme::Http(key)).build()))
        .security(Some([SecurityRequirement::new("apiKey", [""; 0])]))
        .tags(Some([
            tag("projects", "Tenants: everything else belongs to one."),
            tag("agents", "Voice assistants, and which system runs their calls."),
            tag("tools", "Functions that agents may call."),
            tag("numbers", "Phone numbers, and who answers them."),
            tag("calls", "What happened on the phone."),
            tag("events", "The audit log."),
            tag("keys", "API keys of the project."),
            tag("rollouts", "Batches of switches, stage by stage, that can be rolled back exactly."),
            tag("routes", "Why a call goes where it goes."),
        ]))
        .build()
}

/// All codes, for people.
fn codes() -> String {
    let mut text = String::from("| code | status | meaning |\n| --- | --- | --- |\n");
    for code in Code::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {} | {} |", code.as_str(), code.status().as_u16(), code.meaning());
    }
    text
}

/// Every operation of a description: path, method in lower case, the operation.
pub fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let item = item.as_object().into_iter().flatten();
        item.filter(|(_, operation)| operation.is_object())
            .map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Adds what every operation has without saying so.
pub fn complete(described: &OpenApi) -> Value {
    let mut document = serde_json::to_value(described).unwrap_or_default();
    let mut statuses = BTreeSet::new();
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, item) in paths {
            let has_tag = item["get"]["responses"]["200"]["headers"]["ETag"].is_object();
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                if let Value::Object(operation) = operation {
                    statuses.extend(complete_operation(path, method, has_tag, operation));
                }
            }
        }
    }
    close_bodies(&mut document);
    let responses: Map<String, Value> =
        statuses.into_iter().map(|status| (response_name(status), problem_response(status))).collect();
    document["components"]["responses"] = Value::Object(responses);
    document["components"]["schemas"]["Problem"] = problem_schema();
    document["components"]["headers"] = headers();
    document["components"]["parameters"]["IdempotencyKey"] = json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes sure that the request takes effect once: a text of your own, the same on every retry.",
        "schema": { "type": "string", "pattern": "^[!-~]{1,255}$" },
    });
    document["components"]["parameters"]["IfMatch"] = json!({
        "name": "If-Match",
        "in": "header",
        "description": "The ETag that was read. Without it whatever is there is changed.",
        "schema": { "type": "string" },
    });
    document
}

/// Gives the statuses of the problems that the operation may end in. `has_tag`: what is read at the path has a tag, so
/// that a change there can name it.
fn complete_operation(path: &str, method: &str, has_tag: bool, operation: &mut Map<String, Value>) -> BTreeSet<u16> {
    let has_body = operation.contains_key("requestBody");
    let is_public = operation.get("security").and_then(Value::as_array).is_some_and(Vec::is_empty);
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    let mut refer = |name: &str| {
        if let Some(parameters) = parameters.as_array_mut() {
            parameters.push(json!({ "$ref": format!("#/components/parameters/{name}") }));
        }
    };
    let mut statuses = BTreeSet::from([400, 503]);
    if !is_public {
        statuses.extend([401, 429]);
    }
    if path.contains('{') {
        statuses.insert(404);
    }
    if method != "get" {
        statuses.insert(403);
    }
    if has_body {
        statuses.extend([413, 415, 422]);
    }
    if method == "post" {
        refer("IdempotencyKey");
        statuses.extend([409, 422]);
    }
    if has_tag && matches!(method, "put" | "patch" | "delete") {
        refer("IfMatch");
        statuses.insert(412);
    }
    if let Some(responses) = operation.entry("responses").or_insert_with(|| json!({})).as_object_mut() {
        // What a handler says of a status stays beside what is common.
        statuses
            .extend(responses.keys().filter_map(|status| status.parse::<u16>().ok()).filter(|status| *status >= 400));
        for status in &statuses {
            responses.insert(
                status.to_string(),
                json!({ "$ref": format!("#/components/responses/{}", response_name(*status)) }),
            );
        }
        for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with('2')) {
            response["headers"]["x-request-id"] = json!({ "$ref": "#/components/headers/RequestId" });
            response["headers"]["RateLimit-Policy"] = json!({ "$ref": "#/components/headers/RateLimitPolicy" });
            response["headers"]["RateLimit"] = json!({ "$ref": "#/components/headers/RateLimit" });
        }
    }
    statuses
}

/// Says of what is sent that it holds nothing unknown, at whatever depth.
fn close_bodies(document: &mut Value) {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            _ => {}
        }
    }
    fn close(schema: &mut Value) {
        match schema {
            Value::Array(items) => items.iter_mut().for_each(close),
            Value::Object(members) => {
                if members.get("properties").is_some_and(Value::is_object) {
                    members.entry("additionalProperties").or_insert(Value::Bool(false));
                }
                members.values_mut().for_each(close);
            }
            _ => {}
        }
    }
    let mut open = Vec::new();
    for (_, _, operation) in operations(document) {
        references(&operation["requestBody"], &mut open);
    }
    let mut closed = BTreeSet::new();
    while let Some(reference) = open.pop() {
        if let Some(schema) = reference.strip_prefix('#').and_then(|pointer| document.pointer_mut(pointer))
            && closed.insert(reference.clone())
        {
            close(schema);
            references(schema, &mut open);
        }
    }
}

fn response_name(status: u16) -> String {
    format!("Problem{status}")
}

fn problem_response(status: u16) -> Value {
    let codes = Code::ALL.iter().filter(|code| code.status().as_u16() == status);
    let description: Vec<String> = codes.map(|code| format!("`{}`: {}", code.as_str(), code.meaning())).collect();
    let mut headers = json!({ "x-request-id": { "$ref": "#/components/headers/RequestId" } });
    if matches!(status, 429 | 503) {
        headers["Retry-After"] = json!({ "$ref": "#/components/headers/RetryAfter" });
    }
    json!({
        "description": description.join("\n\n"),
        "headers": headers,
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    })
}

fn problem_schema() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "description": "What went wrong. Some codes have members of their own.",
        "required": ["type", "title", "status", "code", "detail", "requestId"],
        "properties": {
            "type": { "type": "string", "description": "`urn:tandem:problem:` and the code." },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "code": { "type": "string", "enum": codes },
            "detail": { "type": "string", "description": "A sentence for people." },
            "requestId": { "type": ["string", "null"] },
            "faults": { "type": "array", "items": { "type": "string" } },
            "missing": { "type": "array", "items": { "type": "string" } },
        },
    })
}

fn headers() -> Value {
    let header = |about: &str, kind: &str| json!({ "description": about, "schema": { "type": kind } });
    json!({
        "RequestId": header("Names the request; the sender's own if it sent a sensible one.", "string"),
        "RateLimitPolicy": header("How many requests the key has: quota `q` in a window of `w` seconds.", "string"),
        "RateLimit": header("How many are left, `r`, and in how many seconds there are more, `t`.", "string"),
        "RetryAfter": header("In how many seconds to try again.", "integer"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::described;
    use super::*;

    /// What is checked in; `make openapi` writes it.
    const CHECKED_IN: &str = include_str!("../../../openapi.json");

    #[test]
    fn the_description_is_the_one_that_is_checked_in() {
        let checked_in: Value = serde_json::from_str(CHECKED_IN).unwrap();
        assert!(described().1 == checked_in, "the API has changed: if that is meant, run `make openapi`");
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_a_tag() {
        let document = described().1;
        let mut names = HashSet::new();
        for (path, method, operation) in operations(&document) {
            let name = operation["operationId"].as_str().unwrap_or_default();
            assert!(!name.is_empty() && names.insert(name), "{method} {path} is called {name:?}");
            assert!(operation["tags"][0].is_string(), "{method} {path} has no tag");
            assert!(operation["summary"].is_string(), "{method} {path} says nothing of itself");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(document: &Value, value: &Value) {
            match value {
                Value::Array(items) => items.iter().for_each(|item| check(document, item)),
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    }
                    members.values().for_each(|member| check(document, member));
                }
                _ => {}
            }
        }
        let document = described().1;
        check(&document, &document);
    }
}
