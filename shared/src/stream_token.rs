//! The token that lets one Twilio media stream in: minted into the TwiML, presented as a custom parameter.
//!
//! `v1.<callSid>.<agentId>.<expiry unix seconds>.<signature>`, the signature being base64url without padding of
//! HMAC-SHA256(secret, `stream.v1.<callSid>.<agentId>.<expiry>`). That it is used only once is the origin's to keep.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::hmac::{Algorithm, equal, mac};
use crate::{AgentId, CallSid};

/// How long a token lets a stream in, in seconds.
pub const LIFETIME_SECONDS: u64 = 120;

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamGrant {
    /// The call whose stream this is.
    pub call_sid: CallSid,
    /// The agent that answers it.
    pub agent_id: AgentId,
    /// Unix seconds; the token is worthless from then on.
    pub expires_at: u64,
}

impl StreamGrant {
    /// The grant for a call that arrives at `now`, in unix seconds.
    pub fn new(call_sid: CallSid, agent_id: AgentId, now: u64) -> Self {
        Self { call_sid, agent_id, expires_at: now + LIFETIME_SECONDS }
    }

    fn claims(&self) -> String {
        format!("v1.{}.{}.{}", self.call_sid, self.agent_id, self.expires_at)
    }

    /// The token.
    pub fn mint(&self, secret: &str) -> String {
        let claims = self.claims();
        let signature = URL_SAFE_NO_PAD.encode(signature(secret, &claims));
        format!("{claims}.{signature}")
    }
}

fn signature(secret: &str, claims: &str) -> Vec<u8> {
    mac(Algorithm::Sha256, secret.as_bytes(), &[b"stream.", claims.as_bytes()])
}

/// Why a token lets nothing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not five parts of the right kinds.
    #[error("the stream token is malformed")]
    Malformed,
    /// Signed by somebody else, or changed.
    #[error("the stream token's signature does not match")]
    Mismatch,
    /// Older than its lifetime.
    #[error("the stream token has expired")]
    Expired,
    /// Made for another call.
    #[error("the stream token belongs to another call")]
    OtherCall,
}

/// Checks a token presented by the stream of `call_sid` at `now`, in unix seconds.
pub fn verify(secret: &str, now: u64, token: &str, call_sid: &CallSid) -> Result<StreamGrant, TokenError> {
    let (claims, presented) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let presented = URL_SAFE_NO_PAD.decode(presented).map_err(|_| TokenError::Malformed)?;
    let mut parts = claims.split('.');
    let (Some("v1"), Some(call), Some(agent), Some(expiry), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    if !equal(&signature(secret, claims), &presented) {
        return Err(TokenError::Mismatch);
    }
    let grant = StreamGrant {
        call_sid: call.parse().map_err(|_| TokenError::Malformed)?,
        agent_id: agent.parse().map_err(|_| TokenError::Malformed)?,
        expires_at: expiry.parse().map_err(|_| TokenError::Malformed)?,
    };
    if now >= grant.expires_at {
        return Err(TokenError::Expired);
    }
    if grant.call_sid != *call_sid {
        return Err(TokenError::OtherCall);
    }
    Ok(grant)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_000_000;

    fn grant() -> StreamGrant {
        let agent = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        StreamGrant::new("CA0123".parse().unwrap(), agent, NOW)
    }

    #[test]
    fn shape_and_round_trip() {
        let token = grant().mint("secret");
        let expected = format!(
            "v1.CA0123.01890a5d-ac96-774b-bcce-b302099a8057.{}.{}",
            NOW + 120,
            URL_SAFE_NO_PAD.encode(mac(
                Algorithm::Sha256,
                b"secret",
                &[b"stream.v1.CA0123.01890a5d-ac96-774b-bcce-b302099a8057.1795000120"]
            ))
        );
        assert_eq!(token, expected);
        assert_eq!(verify("secret", NOW + 119, &token, &grant().call_sid), Ok(grant()));
    }

    #[test]
    fn refusals() {
        let token = grant().mint("secret");
        let call = grant().call_sid;
        assert_eq!(verify("secret", NOW + 120, &token, &call), Err(TokenError::Expired));
        assert_eq!(verify("secret", NOW, &token, &"CA9".parse().unwrap()), Err(TokenError::OtherCall));
        assert_eq!(verify("other", NOW, &token, &call), Err(TokenError::Mismatch));
        let later = token.replace("1795000120", "1795999999");
        assert_eq!(verify("secret", NOW, &later, &call), Err(TokenError::Mismatch));
        for bad in ["", "v1", "v1.a.b.c.d.e", "v2.CA0123.x.1.AAAA", &token[1..], &format!("{token}=")] {
            assert_eq!(verify("secret", NOW, bad, &call), Err(TokenError::Malformed), "{bad}");
        }
    }
}
