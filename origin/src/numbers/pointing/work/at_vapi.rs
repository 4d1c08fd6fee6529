//! Has Vapi know a number whose calls are to go there.

use serde_json::json;
use shared::AccountSid;
use sqlx::Connection as _;

use super::{Now, Trouble, Worker};
use crate::config;
use crate::providers::vapi::phone_numbers::{Answering, PhoneNumbers, PhoneNumbersError, VapiNumber};
use crate::replication;
use crate::store;
use crate::store::events::{self, Actor, NewEvent};

/// The event of a number that Vapi knows from now on.
const IMPORTED: &str = "number.imported_to_vapi";
/// The event of a number that Vapi was told another assistant or server of.
const CHANGED_AT_VAPI: &str = "number.changed_at_vapi";

impl Worker<'_> {
    /// Has Vapi know the number, with the agent's assistant and our webhook; tells whether that changed anything. It may
    /// have changed the settings at Twilio, too, so these are read again.
    pub(super) async fn tell_vapi(&self, twilio: &config::Twilio, now: &mut Now) -> Result<bool, Trouble> {
        let config = self.app.config.vapi.as_ref().ok_or(Trouble::NotConfigured("Vapi"))?;
        let assistant = self.task.assistant.as_ref().ok_or(Trouble::NoAssistant)?;
        let vapi = PhoneNumbers { http: &self.app.http, config };
        let server_url = format!("{}/api/vapi/webhook", self.app.config.edge_base());
        let answering = Answering { assistant, server_url: &server_url };
        let known = match &self.task.vapi_phone_number_id {
            Some(id) => vapi.fetch(id).await?,
            None => None,
        };
        // Somebody may have imported it, or we have and the answer never came.
        let known = match known {
            Some(known) => Some(known),
            None => vapi.find(&self.task.number).await?,
        };
        if known.as_ref().is_some_and(|known| known.provider != "twilio") {
            return Err(Trouble::NotTwilios);
        }
        // Saving may point the number at Vapi, so it is not saved for nothing.
        let is_right = |known: &VapiNumber| {
            let told = known.server.as_ref().is_some_and(|server| server.url.is_some());
            known.assistant_id.as_deref() == Some(assistant.as_str()) && told
        };
        let (saved, changed) = match &known {
            Some(known) if is_right(known) => (known.clone(), false),
            known => {
                now.vapi_saved = true;
                self.note(now, &self.ours(now, None), self.task.pointing.assistant.as_ref(), true).await?;
                let saved = match known {
                    Some(known) => vapi.save(&known.id, answering).await?,
                    None => self.import(twilio, &now.owned.account, vapi, answering).await?,
                };
                (saved, true)
            }
        };
        if changed || self.task.vapi_phone_number_id.as_deref() != Some(saved.id.as_str()) {
            self.note_at_vapi(known.as_ref(), &saved).await?;
        }
        if changed {
            now.owned = self.find(twilio).await?;
        }
        Ok(changed)
    }

    async fn import(
        &self,
        twilio: &config::Twilio,
        account: &AccountSid,
        vapi: PhoneNumbers<'_>,
        answering: Answering<'_>,
    ) -> Result<VapiNumber, Trouble> {
        let (_, token) = twilio.credentials(account);
        let token = token.ok_or(Trouble::NotConfigured("the number's Twilio account"))?;
        let number = &self.task.number;
        match vapi.import(number, account, token, answering).await {
            // Perhaps because it has just been: by a request of ours that Vapi was slow with.
            Err(refused @ PhoneNumbersError::Refused { .. }) => match vapi.find(number).await? {
                Some(known) if known.provider == "twilio" => Ok(vapi.save(&known.id, answering).await?),
                _ => Err(refused.into()),
            },
            done => Ok(done?),
        }
    }

    /// Keeps Vapi's id of the number, and logs what Vapi was told of it.
    async fn note_at_vapi(&self, before: Option<&VapiNumber>, after: &VapiNumber) -> Result<(), Trouble> {
        let mut conn = self.app.db.acquire().await?;
        let mut tx = conn.begin().await?;
        if let Some(agent) = self.task.agent_id {
            store::agents::lock(&mut tx, self.task.project_id, agent).await?;
        }
        let known = self.task.vapi_phone_number_id.as_deref();
        let is_new = known != Some(after.id.as_str());
        if is_new {
            store::numbers::set_vapi_id(&mut tx, self.task.pointing.number_id, Some(&after.id)).await?;
        }
        let assistant = |number: &VapiNumber| number.assistant_id.clone();
        let event = NewEvent {
            agent_id: self.task.agent_id,
            number_id: Some(self.task.pointing.number_id),
            before: Some(json!({ "vapiPhoneNumberId": known, "assistantId": before.and_then(assistant) })),
            after: Some(json!({ "vapiPhoneNumberId": after.id, "assistantId": assistant(after) })),
            ..NewEvent::new(self.task.project_id, if is_new { IMPORTED } else { CHANGED_AT_VAPI }, &Actor::Origin)
        };
        events::append(&mut tx, &event).await?;
        if is_new {
            replication::enqueue(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
