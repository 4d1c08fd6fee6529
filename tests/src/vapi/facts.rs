//! What every server message says about its call: `call`, `phoneNumber`, `customer`, `assistant`.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::clock::{epoch_ms, iso};

/// The organisation that owns everything in this simulator.
pub const ORG_ID: &str = "45ae8a0c-8f7c-452f-8f27-dc0ee69b7acc";

/// `call.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Someone called one of the organisation's numbers.
    Inbound,
    /// Vapi placed the call, or `POST /call` made it without saying otherwise.
    Outbound,
    /// A browser; has no number and no customer.
    Web,
}

impl CallKind {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inboundPhoneCall",
            Self::Outbound => "outboundPhoneCall",
            Self::Web => "webCall",
        }
    }
}

/// The number of the organisation that a call runs over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberFacts {
    /// Vapi's id of the number.
    pub id: String,
    /// E.164.
    pub number: String,
    /// The Twilio account it was imported from.
    pub account_sid: String,
}

/// The facts of one call, fixed when it is created.
#[derive(Debug, Clone)]
pub struct Facts {
    /// `call.id`.
    pub call_id: String,
    /// `call.createdAt`.
    pub created_at: OffsetDateTime,
    /// `call.type`.
    pub kind: CallKind,
    /// `call.assistantId`; absent before an assistant-request is answered, for transient assistants and for squads.
    pub assistant_id: Option<String>,
    /// The assistant as saved, or the transient one.
    pub assistant: Option<Value>,
    /// The number called, or the caller id of an outbound call.
    pub number: Option<NumberFacts>,
    /// The other party, E.164; absent when withheld.
    pub customer: Option<String>,
    /// Twilio's id of the call. With the provider bypass Vapi learns it only from the media stream.
    pub call_sid: Option<String>,
    /// What `POST /call` named it.
    pub name: Option<String>,
}

impl Facts {
    /// A fresh inbound call that has rung at `number` just now, for tests that send single messages.
    pub fn inbound(assistant_id: &str, number: &str, customer: &str) -> Self {
        Self {
            call_id: Uuid::new_v4().to_string(),
            created_at: OffsetDateTime::now_utc(),
            kind: CallKind::Inbound,
            assistant_id: Some(assistant_id.to_owned()),
            assistant: Some(json!({"id": assistant_id, "orgId": ORG_ID, "name": "Receptionist"})),
            number: Some(NumberFacts {
                id: Uuid::new_v4().to_string(),
                number: number.to_owned(),
                account_sid: format!("AC{:032x}", 0),
            }),
            customer: Some(customer.to_owned()),
            call_sid: Some(format!("CA{}", Uuid::new_v4().simple())),
            name: None,
        }
    }

    /// The same call, created at another time.
    #[must_use]
    pub fn created_at(mut self, at: OffsetDateTime) -> Self {
        self.created_at = at;
        self
    }

    /// The same call before it has an assistant: what an assistant-request is about.
    #[must_use]
    pub fn without_assistant(mut self) -> Self {
        self.assistant_id = None;
        self.assistant = None;
        self
    }

    /// `message.call`. Its `status` is that of the call's creation, even in an end-of-call-report:
    /// real deliveries do the same, and `message.status` is the one to read.
    pub fn call(&self) -> Value {
        let created = iso(self.created_at);
        let mut call = object(json!({
            "id": self.call_id,
            "orgId": ORG_ID,
            "createdAt": created,
            "updatedAt": created,
            "type": self.kind.as_str(),
            "status": match self.kind { CallKind::Inbound => "ringing", _ => "queued" },
            "monitor": {
                "listenUrl": format!("wss://monitor.vapi.test/{}/listen", self.call_id),
                "controlUrl": format!("https://monitor.vapi.test/{}/control", self.call_id),
            },
        }));
        if let Some(number) = &self.number {
            call.insert("phoneCallProvider".into(), "twilio".into());
            call.insert("phoneCallTransport".into(), "pstn".into());
            call.insert("phoneNumberId".into(), number.id.clone().into());
            let mut transport = object(json!({
                "provider": "twilio", "conversationType": "voice", "accountSid": number.account_sid,
            }));
            if let Some(sid) = &self.call_sid {
                call.insert("phoneCallProviderId".into(), sid.clone().into());
                transport.insert("callSid".into(), sid.clone().into());
            }
            call.insert("transport".into(), transport.into());
        }
        if let Some(id) = &self.assistant_id {
            call.insert("assistantId".into(), id.clone().into());
        } else if let Some(assistant) = &self.assistant {
            call.insert("assistant".into(), assistant.clone());
        }
        if let Some(name) = &self.name {
            call.insert("name".into(), name.clone().into());
        }
        if let Some(customer) = self.customer() {
            call.insert("customer".into(), customer);
        }
        call.into()
    }

    /// `message.phoneNumber`.
    pub fn phone_number(&self) -> Option<Value> {
        let number = self.number.as_ref()?;
        Some(json!({
            "provider": "twilio",
            "id": number.id,
            "orgId": ORG_ID,
            "number": number.number,
            "name": "Main",
            "status": "active",
            "twilioAccountSid": number.account_sid,
            "createdAt": "2026-10-01T09:00:00.000Z",
            "updatedAt": "2026-10-01T09:00:00.000Z",
        }))
    }

    /// `message.customer`.
    pub fn customer(&self) -> Option<Value> {
        self.customer.as_ref().map(|number| json!({"number": number}))
    }

    /// A message of type `kind` about this call with its own `fields`, in the envelope that is posted.
    pub(crate) fn message(&self, kind: &str, at: OffsetDateTime, fields: Value) -> Value {
        let mut message = object(json!({"timestamp": epoch_ms(at), "type": kind}));
        message.extend(object(fields));
        message.insert("call".into(), self.call());
        for (key, value) in
            [("phoneNumber", self.phone_number()), ("customer", self.customer()), ("assistant", self.assistant.clone())]
        {
            if let Some(value) = value {
                message.insert(key.into(), value);
            }
        }
        json!({"message": message})
    }
}

/// The members of a JSON object; of anything else, none.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
