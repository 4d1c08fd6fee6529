//! What all calls and the REST API share: settings, numbers, calls, faults, the debugger.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::number::Number;
use super::sid::CallSid;
use super::webhook::Failure;
use super::{Callee, Fault, TwilioOptions};
use crate::gate::Gates;

/// An entry of the account's debugger: an error or a warning.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// The call it is about.
    pub call_sid: CallSid,
    /// Twilio's code; 0 for what Twilio knows and the simulator does not.
    pub code: u32,
    /// What is wrong.
    pub text: String,
    /// The URL that was asked, or that gave the document.
    pub url: String,
}

/// A request to the REST API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestRequest {
    /// `GET`, `POST`, `DELETE`.
    pub method: String,
    /// The path below the account, such as `IncomingPhoneNumbers.json`.
    pub path: String,
    /// The status of the answer, also of one that was lost.
    pub status: u16,
}

pub(crate) struct Exchange {
    pub(crate) options: TwilioOptions,
    auth_tokens: Mutex<Vec<String>>,
    /// By E.164.
    pub(crate) numbers: Mutex<BTreeMap<String, Number>>,
    pub(crate) calls: Mutex<BTreeMap<CallSid, Arc<Call>>>,
    /// Who answers when our side dials.
    pub(crate) callees: Mutex<HashMap<String, Callee>>,
    notifications: Mutex<Vec<Notification>>,
    faults: Mutex<VecDeque<Fault>>,
    /// What requests meet in turn, over and over, once no fault is waiting.
    weather: Mutex<VecDeque<Option<Fault>>>,
    pub(crate) gates: Gates,
    requests: Mutex<Vec<RestRequest>>,
    callback_copies: AtomicUsize,
    pub(crate) stopped: CancellationToken,
}

impl Exchange {
    pub(crate) fn new(options: TwilioOptions) -> Self {
        Self {
            auth_tokens: Mutex::new(options.auth_tokens.clone()),
            options,
            numbers: Mutex::default(),
            calls: Mutex::default(),
            callees: Mutex::default(),
            notifications: Mutex::default(),
            faults: Mutex::default(),
            weather: Mutex::default(),
            gates: Gates::default(),
            requests: Mutex::default(),
            callback_copies: AtomicUsize::new(1),
            stopped: CancellationToken::new(),
        }
    }

    /// The token that signs.
    pub(crate) fn primary_token(&self) -> String {
        lock(&self.auth_tokens).first().cloned().unwrap_or_default()
    }

    /// Whether these Basic credentials open this account.
    pub(crate) fn admits(&self, user: &str, password: &str) -> bool {
        let by_token =
            user == self.options.account_sid && lock(&self.auth_tokens).iter().any(|token| token == password);
        by_token || self.options.api_keys.iter().any(|(sid, secret)| sid == user && secret == password)
    }

    pub(crate) fn set_auth_tokens(&self, tokens: Vec<String>) {
        *lock(&self.auth_tokens) = tokens;
    }

    pub(crate) fn notify(&self, call_sid: &CallSid, failure: &Failure, url: &str) {
        lock(&self.notifications).push(Notification {
            call_sid: call_sid.clone(),
            code: failure.code,
            text: failure.text.clone(),
            url: url.to_owned(),
        });
    }

    pub(crate) fn notifications(&self) -> Vec<Notification> {
        lock(&self.notifications).clone()
    }

    pub(crate) fn callee(&self, number: &str) -> Callee {
        lock(&self.callees).get(number).cloned().unwrap_or_default()
    }

    pub(crate) fn add_faults(&self, fault: Fault, requests: usize) {
        lock(&self.faults).extend(std::iter::repeat_n(fault, requests));
    }

    /// The fault ordered for the request at hand. An answer is lost only where that matters: of a change.
    pub(crate) fn next_fault(&self, is_change: bool) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        match faults.front() {
            Some(Fault::LostAnswer) if !is_change => None,
            Some(_) => faults.pop_front(),
            None => {
                let mut weather = lock(&self.weather);
                let fault = weather.pop_front()?;
                weather.push_back(fault);
                fault
            }
        }
    }

    pub(crate) fn set_weather(&self, pattern: impl IntoIterator<Item = Option<Fault>>) {
        *lock(&self.weather) = pattern.into_iter().collect();
    }

    pub(crate) fn note_request(&self, request: RestRequest) {
        lock(&self.requests).push(request);
    }

    pub(crate) fn requests(&self) -> Vec<RestRequest> {
        lock(&self.requests).clone()
    }

    pub(crate) fn set_callback_copies(&self, copies: usize) {
        self.callback_copies.store(copies, Ordering::Relaxed);
    }

    pub(crate) fn callback_copies(&self) -> usize {
        self.callback_copies.load(Ordering::Relaxed)
    }

    pub(crate) fn call(&self, sid: &str) -> Option<Arc<Call>> {
        lock(&self.calls).values().find(|call| call.sid.as_str() == sid).cloned()
    }
}

/// Locks; a panic elsewhere while holding the lock has failed its test already.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
