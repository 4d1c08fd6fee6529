//! Tools as their owners describe them: made, changed and deleted, with an event each.
//!
//! A target's query, which may hold a key, and the secret are shown masked. What is masked and sent back means: as it is.

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{AgentId, ProjectId, ToolId};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::agents::masked::MASK;
use crate::store::StoreError;
use crate::store::events::{self, Actor, NewEvent};
use crate::store::tools::Builtin;
use crate::store::tools::records::{self, ToolRecord};
use crate::store::tools::settings::ToolSettings;
use crate::tools::Client;

const MOST_DESCRIPTION: usize = 10_000;
const MOST_SECRET: usize = 500;
const DEFAULT_TIMEOUT_MS: i32 = 10_000;

/// What a tool's owner says of it: either one of ours, `builtin`, or a server, `targetUrl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolFields {
    /// Unique in the project.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub name: String,
    /// What the model knows it as, if not by its name.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub function_name: Option<String>,
    /// What it does and when to call it, for the model.
    #[serde(default)]
    #[schema(max_length = 10_000)]
    pub description: String,
    /// JSON Schema of the arguments, of type `object`.
    #[serde(default = "no_parameters")]
    #[schema(value_type = Object)]
    pub parameters: Value,
    /// One of ours.
    #[serde(default)]
    pub builtin: Option<Builtin>,
    /// Or else a server's URL, on the public internet. Its query is not shown again.
    #[serde(default)]
    pub target_url: Option<String>,
    /// Signs the requests to that server. Without one it gets a new one, which is shown in this answer only.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 500)]
    pub secret: Option<String>,
    /// How long it may take.
    #[serde(default = "default_timeout_ms")]
    #[schema(minimum = 100, maximum = 60_000)]
    pub timeout_ms: i32,
    /// How it runs besides.
    #[serde(default)]
    pub settings: ToolSettings,
}

fn no_parameters() -> Value {
    json!({ "type": "object", "properties": {} })
}

fn default_timeout_ms() -> i32 {
    DEFAULT_TIMEOUT_MS
}

/// Why a tool was not made, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// What is said of it cannot be used; all faults, each with its field's name first.
    #[error("the tool is not valid: {}", .0.join("; "))]
    Invalid(Vec<String>),
    /// Another tool of the project has the name.
    #[error("the name is taken")]
    NameTaken,
    /// Agents have it.
    #[error("{} agents have the tool", .0.len())]
    InUse(Vec<AgentId>),
    /// The database.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ToolError {
    fn from(error: StoreError) -> Self {
        if error.constraint() == Some("tools_name_unique") { Self::NameTaken } else { Self::Store(error) }
    }
}

impl ToolFields {
    /// What is said of a tool now; secrets are masked.
    pub fn of(tool: &ToolRecord) -> Self {
        Self {
            name: tool.name.clone(),
            function_name: tool.function_name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
            builtin: tool.builtin,
            target_url: tool.target_url.as_deref().map(masked_url),
            secret: tool.target_url.as_ref().map(|_| MASK.to_owned()),
            timeout_ms: tool.timeout_ms,
            settings: tool.settings.clone(),
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |is: bool, text: &str| {
            if is {
                faults.push(text.to_owned());
            }
        };
        let is_name = |name: &str| {
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        fault(!is_name(&self.name), "name must be of letters, digits, - and _, 64 at most");
        let function_name = self.function_name.as_deref().unwrap_or("none");
        fault(!is_name(function_name), "functionName must be of letters, digits, - and _, 64 at most");
        let is_long = self.description.chars().count() > MOST_DESCRIPTION;
        fault(is_long, "description must be of 10000 characters at most");
        fault(self.parameters["type"] != "object", "parameters must be a JSON Schema of type object");
        fault(self.builtin.is_some() == self.target_url.is_some(), "either builtin or targetUrl must be given");
        fault(self.builtin.is_some() && self.secret.is_some(), "secret is for tools with a targetUrl");
        let secret = self.secret.as_deref().unwrap_or("none");
        fault(!(1..=MOST_SECRET).contains(&secret.chars().count()), "secret must be of 1 to 500 characters");
        fault(!(100..=60_000).contains(&self.timeout_ms), "timeoutMs must be 100 to 60000");
        faults
    }

    /// The tool that is meant, `known` as it is stored.
    fn record(
        &self,
        project_id: ProjectId,
        id: ToolId,
        known: Option<&ToolRecord>,
        client: &Client,
        new_secret: &SecretString,
    ) -> Result<ToolRecord, ToolError> {
        let mut faults = self.faults();
        let known_url = known.and_then(|known| known.target_url.as_deref());
        let target_url = self.target_url.as_deref().map(|url| match known_url {
            Some(known) if masked_url(known) == url => known.to_owned(),
            _ => {
                faults.extend(url_fault(url, client));
                url.to_owned()
            }
        });
        let secret = target_url.as_ref().map(|_| match self.secret.as_deref() {
            None => new_secret.clone(),
            Some(MASK) => known.and_then(|known| known.secret.clone()).unwrap_or_else(|| {
                faults.push("secret is masked, and not known".to_owned());
                new_secret.clone()
            }),
            Some(secret) => SecretString::from(secret),
        });
        if !faults.is_empty() {
            return Err(ToolError::Invalid(faults));
        }
        Ok(ToolRecord {
            id,
            project_id,
            name: self.name.clone(),
            function_name: self.function_name.clone(),
            description: self.description.clone(),
            parameters: self.parameters.clone(),
            builtin: self.builtin,
            target_url,
            secret,
            timeout_ms: self.timeout_ms,
            settings: self.settings.clone(),
            revision: known.map_or(1, |known| known.revision),
        })
    }
}

fn url_fault(url: &str, client: &Client) -> Option<String> {
    let fault = match Url::parse(url) {
        Err(_) => "targetUrl must be a URL",
        Ok(_) if url.contains(MASK) => "targetUrl is masked, and not known",
        Ok(url) if !url.username().is_empty() || url.password().is_some() => "targetUrl must not hold a password",
        Ok(url) if !client.permits(&url) => "targetUrl must be http or https, and not a private address",
        Ok(_) => return None,
    };
    Some(fault.to_owned())
}

/// A target without what may be secret in it: its query, and a password from before these were refused.
fn masked_url(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return MASK.to_owned() };
    if url.query().is_some() {
        url.set_query(Some(MASK));
    }
    // Both fail only where there is nothing to hide.
    if url.set_password(None).and_then(|()| url.set_username("")).is_err() {
        return MASK.to_owned();
    }
    url.into()
}

/// A tool that was made or changed.
#[derive(Debug)]
pub struct Kept {
    /// As it is now.
    pub tool: ToolRecord,
    /// Its secret, where that was made here and its owner does not know it yet.
    pub new_secret: Option<SecretString>,
}

/// Makes a tool. `new_secret` is random.
pub async fn create(
    conn: &mut PgConnection,
    project: ProjectId,
    fields: &ToolFields,
    client: &Client,
    new_secret: SecretString,
    actor: &Actor,
) -> Result<Kept, ToolError> {
    let id = ToolId(Uuid::now_v7());
    let tool = fields.record(project, id, None, client, &new_secret)?;
    records::insert(conn, &tool).await?;
    log(conn, (None, Some(&tool)), actor).await?;
    Ok(kept(tool, fields, new_secret))
}

/// Describes a locked tool anew. The same again changes and logs nothing.
pub async fn change(
    conn: &mut PgConnection,
    known: &ToolRecord,
    fields: &ToolFields,
    client: &Client,
    new_secret: SecretString,
    actor: &Actor,
) -> Result<Kept, ToolError> {
    let tool = fields.record(known.project_id, known.id, Some(known), client, &new_secret)?;
    let is_same_secret = exposed(&tool) == exposed(known);
    if is_same_secret && tool.target_url == known.target_url && ToolFields::of(&tool) == ToolFields::of(known) {
        return Ok(Kept { tool: known.clone(), new_secret: None });
    }
    let function_name = tool.function_name.as_ref().unwrap_or(&tool.name);
    if records::is_name_met(conn, tool.id, function_name).await? {
        let fault = format!("functionName: an agent has another tool that the model knows as {function_name}");
        return Err(ToolError::Invalid(vec![fault]));
    }
    records::update(conn, &tool).await?;
    log(conn, (Some(known), Some(&tool)), actor).await?;
    let now = records::get(conn, tool.project_id, tool.id).await?.ok_or(StoreError::Corrupt("tool"))?;
    Ok(kept(now, fields, new_secret))
}

/// Deletes a locked tool that no agent has.
pub async fn delete(conn: &mut PgConnection, tool: &ToolRecord, actor: &Actor) -> Result<(), ToolError> {
    let agents = records::agents_of(conn, tool.id).await?;
    if !agents.is_empty() {
        return Err(ToolError::InUse(agents));
    }
    records::delete(conn, tool.id).await?;
    Ok(log(conn, (Some(tool), None), actor).await?)
}

fn kept(tool: ToolRecord, fields: &ToolFields, new_secret: SecretString) -> Kept {
    let is_new = fields.secret.is_none() && tool.target_url.is_some();
    Kept { tool, new_secret: is_new.then_some(new_secret) }
}

fn exposed(tool: &ToolRecord) -> Option<&str> {
    tool.secret.as_ref().map(ExposeSecret::expose_secret)
}

/// Logs that a tool was made, changed or deleted.
pub(crate) async fn log(
    conn: &mut PgConnection,
    (before, after): (Option<&ToolRecord>, Option<&ToolRecord>),
    actor: &Actor,
) -> Result<(), StoreError> {
    let kind = match (before, after) {
        (None, _) => "tool.created",
        (Some(_), Some(_)) => "tool.changed",
        (Some(_), None) => "tool.deleted",
    };
    let Some(tool) = after.or(before) else { return Ok(()) };
    let state = |tool: &ToolRecord| serde_json::to_value(ToolFields::of(tool)).ok();
    // That a secret changed is worth knowing, and cannot be seen from the masks.
    let changes_secret = before.zip(after).is_some_and(|(before, after)| exposed(before) != exposed(after));
    let event = NewEvent {
        before: before.and_then(state),
        after: after.and_then(state),
        details: json!({ "toolId": tool.id, "newSecret": changes_secret }),
        ..NewEvent::new(tool.project_id, kind, actor)
    };
    events::append(conn, &event).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(more: &Value) -> ToolFields {
        let mut fields = json!({ "name": "lookup" });
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(fields).unwrap()
    }

    fn record(fields: &ToolFields, known: Option<&ToolRecord>) -> Result<ToolRecord, ToolError> {
        let client = Client::new(false).unwrap();
        fields.record(ProjectId(Uuid::nil()), ToolId(Uuid::nil()), known, &client, &"random".into())
    }

    fn faults(more: &Value) -> Vec<String> {
        match record(&fields(more), None) {
            Err(ToolError::Invalid(faults)) => faults,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_shown_can_be_sent_back() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = "https://tools.example.com/x?key=swordfish";
        let known = record(&fields(&json!({ "targetUrl": url, "secret": "hush" })), None).unwrap();
        let shown = ToolFields::of(&known);
        let text = serde_json::to_string(&shown).unwrap();
        assert!(!text.contains("swordfish") && !text.contains("hush"), "{text}");
        let same = record(&shown, Some(&known)).unwrap();
        assert_eq!((same.target_url.as_deref(), exposed(&same)), (Some(url), Some("hush")));
        let elsewhere = ToolFields { target_url: Some(format!("https://evil.example.com/x?{MASK}")), ..shown.clone() };
        assert!(record(&elsewhere, Some(&known)).is_err(), "a query does not move to another server");
        let renewed = record(&ToolFields { secret: None, ..shown }, Some(&known)).unwrap();
        assert_eq!(exposed(&renewed), Some("random"));
    }

    #[test]
    fn what_cannot_be_called_is_refused() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for url in [
            "http://127.0.0.1/",
            "https://[::1]/",
            "http://169.254.169.254/",
            "ftp://example.com",
            "no",
            "https://a:b@example.com",
        ] {
            assert_eq!(faults(&json!({ "targetUrl": url })).len(), 1, "{url}");
        }
        assert_eq!(faults(&json!({})).len(), 1);
        assert_eq!(faults(&json!({ "builtin": "end_call", "targetUrl": "https://example.com" })).len(), 1);
        assert_eq!(faults(&json!({ "builtin": "end_call", "timeoutMs": 1, "parameters": {} })).len(), 2);
    }
}
