//! An origin that takes whatever the edge signed, remembers it, and answers what each call is told to get.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::hop::{self, SignedRequest};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::world::HOP_SECRET;

/// Long enough that only what never happens reaches it.
pub(crate) const NEVER: Duration = Duration::from_mins(1);

/// A request that carried a good signature.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path_and_query: String,
    pub(crate) content_type: String,
    pub(crate) delivery: String,
    pub(crate) body: Bytes,
}

/// What the requests about a call get.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Status, media type and body.
    Answer(u16, &'static str, &'static str),
    /// Nothing, ever.
    Hang,
    /// Nothing until this is true, then 204.
    Hold(watch::Receiver<bool>),
    /// An answer that breaks off, as from a process that dies over it.
    Break,
}

#[derive(Clone)]
pub(crate) struct Origin {
    behaviours: Arc<Mutex<Vec<(String, Behaviour)>>>,
    received: watch::Sender<Vec<Received>>,
    unsigned: watch::Sender<Vec<String>>,
}

impl Origin {
    pub(crate) fn serve(listener: TcpListener) -> Self {
        let origin = Self {
            behaviours: Arc::default(),
            received: watch::Sender::new(Vec::new()),
            unsigned: watch::Sender::new(Vec::new()),
        };
        let app = Router::new().fallback(handle).layer(DefaultBodyLimit::disable()).with_state(origin.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        origin
    }

    /// From now on, what holds `id` in its body gets this. Otherwise it is 204.
    pub(crate) fn behave(&self, id: &str, behaviour: Behaviour) {
        let mut behaviours = self.behaviours.lock().unwrap_or_else(PoisonError::into_inner);
        behaviours.insert(0, (id.to_owned(), behaviour));
    }

    /// What came so far with `id` in its body, signed.
    pub(crate) fn received(&self, id: &str) -> Vec<Received> {
        about(&self.received.borrow(), id)
    }

    /// Waits until `count` requests with `id` in their body have come.
    pub(crate) async fn wait_for(&self, id: &str, count: usize) -> Vec<Received> {
        let mut received = self.received.subscribe();
        let enough = received.wait_for(|all| about(all, id).len() >= count);
        let found = tokio::time::timeout(NEVER, enough).await;
        let all = found.unwrap_or_else(|_| panic!("{count} requests about {id} never came")).expect("it is served");
        about(&all, id)
    }

    /// What came without a good signature.
    pub(crate) fn unsigned(&self) -> Vec<String> {
        self.unsigned.borrow().clone()
    }

    fn behaviour(&self, body: &str) -> Behaviour {
        let behaviours = self.behaviours.lock().unwrap_or_else(PoisonError::into_inner);
        let found = behaviours.iter().find(|(id, _)| body.contains(id));
        found.map_or(Behaviour::Answer(204, "", ""), |(_, behaviour)| behaviour.clone())
    }
}

fn about(all: &[Received], id: &str) -> Vec<Received> {
    all.iter().filter(|request| String::from_utf8_lossy(&request.body).contains(id)).cloned().collect()
}

async fn handle(State(origin): State<Origin>, parts: Parts, body: Bytes) -> Response {
    let path_and_query = parts.uri.to_string();
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let request = SignedRequest { method: parts.method.as_str(), path_and_query: &path_and_query, body: &body };
    if let Err(error) = hop::verify(HOP_SECRET, now(), &text(hop::SIGNATURE_HEADER), request) {
        origin.unsigned.send_modify(|all| all.push(format!("{path_and_query}: {error}")));
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let behaviour = origin.behaviour(&String::from_utf8_lossy(&body));
    let received = Received {
        path_and_query,
        content_type: text(header::CONTENT_TYPE.as_str()),
        delivery: text(hop::DELIVERY_HEADER),
        body,
    };
    origin.received.send_modify(|all| all.push(received));
    match behaviour {
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Hold(mut released) => {
            let _ = released.wait_for(|released| *released).await;
            StatusCode::NO_CONTENT.into_response()
        }
        Behaviour::Break => {
            let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"half")), Err("broken off")]);
            Body::from_stream(broken).into_response()
        }
        Behaviour::Answer(status, "", _) => {
            Response::builder().status(status).body(Body::empty()).expect("a status alone is a response")
        }
        Behaviour::Answer(status, media_type, body) => {
            let status = StatusCode::from_u16(status).expect("the test gives a status");
            (status, [(header::CONTENT_TYPE, media_type)], body).into_response()
        }
    }
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs()
}
