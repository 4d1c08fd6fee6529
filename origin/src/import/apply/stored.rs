//! What is stored, as drafts; drafts, as people may see them; and names for what cannot have its own.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use shared::AssistantId;

use super::ApplyError;
use crate::import::draft::{AgentDraft, Target, ToolDraft, canonical, merge};
use crate::store::agents::{Agent, RealtimeSettings};
use crate::store::imports::StoredTool;
use crate::store::{self, StoreError};

/// An agent as a draft, without its tools and metadata.
pub(super) fn described(agent: &Agent) -> store::Result<AgentDraft> {
    // An agent that knows nothing of OpenAI Realtime yet is not like one with settings: a voice of no name differs from
    // every voice.
    let none = || serde_json::from_value(json!({ "voice": "" }));
    let realtime: RealtimeSettings = match &agent.realtime {
        Some(settings) => settings.clone(),
        None => none().map_err(|_| StoreError::Corrupt("realtime configuration"))?,
    };
    Ok(AgentDraft {
        name: agent.name.clone(),
        instructions: agent.instructions.clone(),
        greeting: agent.greeting.clone(),
        realtime,
        metadata: Map::new(),
        tools: Vec::new(),
    })
}

/// The agent as it shall be, without tools and metadata.
pub(super) fn merge_agent(
    base: Option<&AgentDraft>,
    ours: Option<&AgentDraft>,
    theirs: &AgentDraft,
) -> serde_json::Result<AgentDraft> {
    let without_tools = |draft: &AgentDraft| AgentDraft { metadata: Map::new(), tools: Vec::new(), ..draft.clone() };
    let Some(ours) = ours else { return Ok(without_tools(theirs)) };
    let base = base.map(|base| serde_json::to_value(without_tools(base))).transpose()?;
    let theirs_bare = serde_json::to_value(without_tools(theirs))?;
    let merged = merge(base.as_ref(), &serde_json::to_value(ours)?, &theirs_bare);
    let mut merged: AgentDraft = serde_json::from_value(merged)?;
    if ours.realtime.voice.is_empty() {
        merged.realtime = theirs.realtime.clone();
    }
    Ok(merged)
}

pub(super) fn has_tool(draft: Option<&AgentDraft>, source: &str) -> bool {
    draft.is_some_and(|draft| draft.tools.iter().any(|tool| tool.source == source))
}

pub(super) fn as_draft(stored: &StoredTool) -> Result<ToolDraft, ApplyError> {
    let target = match (stored.builtin.as_deref(), &stored.target_url) {
        (Some("end_call"), _) => Target::EndCall,
        (Some("transfer_call"), _) => Target::TransferCall,
        (Some("send_dtmf"), _) => Target::SendDtmf,
        (None, Some(url)) => Target::Http { url: url.clone() },
        _ => return Err(StoreError::Corrupt("tool target").into()),
    };
    Ok(ToolDraft {
        source: stored.imported_from.clone().unwrap_or_default(),
        name: stored.name.clone(),
        description: stored.description.clone(),
        parameters: canonical(&stored.parameters),
        target,
        timeout_ms: u32::try_from(stored.timeout_ms).map_err(|_| StoreError::Corrupt("tool timeout"))?,
        settings: serde_json::from_value(canonical(&stored.settings))?,
    })
}

/// A tool with only a mark of its URL's query, which may hold a token. The mark tells when it changes.
pub(super) fn without_query(tool: &ToolDraft) -> ToolDraft {
    let mut tool = tool.clone();
    if let Target::Http { url } = &mut tool.target
        && let Some((place, query)) = url.split_once('?')
    {
        let digest = Sha256::digest(query.as_bytes());
        *url = format!("{place}?(hidden, {:02x}{:02x})", digest[0], digest[1]);
    }
    tool
}

/// An agent and its tools as people may see them.
pub(super) fn shown(
    agent: &AgentDraft,
    tools: impl Iterator<Item = Result<ToolDraft, ApplyError>>,
) -> Result<Value, ApplyError> {
    let mut shown = serde_json::to_value(agent)?;
    let mut by_name = Map::new();
    for tool in tools {
        let tool = without_query(&tool?);
        by_name.insert(tool.name.clone(), serde_json::to_value(tool)?);
    }
    shown["tools"] = by_name.into();
    Ok(shown)
}

/// A name for an agent whose own is taken.
pub(super) fn name_beside(name: &str, assistant: &AssistantId) -> String {
    let start: String = assistant.as_str().chars().take(8).collect();
    format!("{name} ({start})")
}

/// A name for a tool whose own is taken in the project, within the 64 characters that a name has.
pub(super) fn tool_name_beside(tool: &ToolDraft) -> String {
    let digest = Sha256::digest(tool.source.as_bytes());
    let ending = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let start: String = tool.name.chars().take(55).collect();
    format!("{start}-{ending:08x}")
}
