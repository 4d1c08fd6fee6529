//! What the Worker needs of the Workers runtime, as Rust sees `glue.js`.

use worker::js_sys::{Array, Error, Uint8Array};
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::wasm_bindgen::{JsCast, JsValue};
// The attribute's code names these crates, worker-build's other ones than cargo's. They come with `worker`, in the
// versions that it was built with.
#[allow(unused_imports)]
use worker::{js_sys, wasm_bindgen, wasm_bindgen_futures};

use crate::metric::Point;

#[wasm_bindgen(module = "/src/shell/glue.js")]
extern "C" {
    /// A variable or secret, if it is a text.
    pub(crate) fn variable(env: &JsValue, name: &str) -> Option<String>;

    /// A binding, or `undefined`.
    pub(crate) fn binding(env: &JsValue, name: &str) -> JsValue;

    fn measure(dataset: &JsValue, decision: &str, webhook: &str, reason: &str, status: u16, ms: f64);

    #[wasm_bindgen(catch, js_name = write)]
    async fn js_write(kv: &JsValue, key: &str, text: &str, seconds: u32, ms: u32) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(catch, js_name = post)]
    async fn js_post(
        url: &str,
        content_type: &str,
        signature: &str,
        delivery: &str,
        body: &JsValue,
        ms: u32,
    ) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(catch, js_name = gunzip)]
    async fn js_gunzip(bytes: &Uint8Array) -> Result<JsValue, JsValue>;

    /// Settles a message: it comes again after a while.
    #[wasm_bindgen(catch)]
    pub(crate) fn retry(message: &Message, delay_seconds: u32) -> Result<(), JsValue>;

    /// What the origin answered.
    pub(crate) type Answer;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn status(this: &Answer) -> u16;
}

// By hand, because `worker` knows no `attempts`, and its queue handler turns every error into a panic.
#[wasm_bindgen]
extern "C" {
    /// Messages of one queue.
    pub type Batch;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn queue(this: &Batch) -> String;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn messages(this: &Batch) -> Array;

    /// One of them.
    pub(crate) type Message;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn id(this: &Message) -> String;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn attempts(this: &Message) -> u32;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn body(this: &Message) -> JsValue;
    /// Settles the message: it is done.
    #[wasm_bindgen(method, catch)]
    pub(crate) fn ack(this: &Message) -> Result<(), JsValue>;
}

/// What went wrong in the runtime, in its words.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) String);

impl From<JsValue> for Fault {
    fn from(thrown: JsValue) -> Self {
        Self(thrown.dyn_ref::<Error>().map_or_else(|| "unknown".to_owned(), |error| error.message().into()))
    }
}

/// Writes a data point.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of one request")]
pub(crate) fn count(dataset: &JsValue, point: Point) {
    let Point { decision, webhook, reason, status, ms } = point;
    measure(dataset, decision, webhook, reason, status, ms as f64);
}

/// Writes a text under a key of a store, for so many seconds.
pub(crate) async fn write(kv: &JsValue, key: &str, text: &str, seconds: u32, ms: u32) -> Result<(), Fault> {
    js_write(kv, key, text, seconds, ms).await?;
    Ok(())
}

/// Posts a body, which is bytes or a text, to the origin.
pub(crate) async fn post(
    request: &crate::forward::OriginRequest,
    content_type: &str,
    delivery: &str,
    body: &JsValue,
    ms: u32,
) -> Result<Answer, Fault> {
    let answer = js_post(&request.url, content_type, &request.signature, delivery, body, ms).await?;
    Ok(answer.unchecked_into())
}

/// Decompresses bytes.
pub(crate) async fn gunzip(bytes: &[u8]) -> Result<Uint8Array, Fault> {
    Ok(js_gunzip(&Uint8Array::from(bytes)).await?.unchecked_into())
}
