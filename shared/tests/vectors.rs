//! Twilio's signature vectors, on the host and in wasm (`cargo test -p shared --target wasm32-unknown-unknown`).

use serde::Deserialize;
use serde_json::Value;
use shared::twilio::form::Form;
use shared::twilio::signature::{Request, Signed, verify};
use wasm_bindgen_test::wasm_bindgen_test;

#[derive(Deserialize)]
struct Vector {
    id: String,
    token: String,
    url: String,
    params: serde_json::Map<String, Value>,
    signature: String,
    algorithm: String,
    body: Option<String>,
    #[serde(default)]
    also_accepted: Vec<String>,
}

impl Vector {
    fn all() -> Vec<Self> {
        let vectors: Vec<Self> = serde_json::from_str(include_str!("twilio_vectors.json")).expect("vectors parse");
        assert_eq!(vectors.len(), 8);
        vectors
    }

    fn form(&self) -> Form<'_> {
        self.params
            .iter()
            .flat_map(|(name, value)| match value {
                Value::Array(values) => values.iter().map(|v| (name.as_str(), v.as_str().expect("text"))).collect(),
                value => vec![(name.as_str(), value.as_str().expect("text"))],
            })
            .collect()
    }

    fn accepts(&self, token: &str, url: &str, form: &Form<'_>, signature: &str) -> bool {
        let signed = self.body.as_ref().map_or(Signed::Form(form), |body| Signed::Body(body.as_bytes()));
        let settings = format!("key=webhooks_sharedkey_01,algorithm={}", self.algorithm);
        verify(&["another", token], Request { url, signed, signature, settings: Some(&settings) })
    }
}

#[wasm_bindgen_test(unsupported = test)]
fn every_vector_is_accepted() {
    for vector in Vector::all() {
        let form = vector.form();
        assert!(vector.accepts(&vector.token, &vector.url, &form, &vector.signature), "{}", vector.id);
        for signature in &vector.also_accepted {
            assert!(vector.accepts(&vector.token, &vector.url, &form, signature), "{} without port", vector.id);
        }
    }
}

#[wasm_bindgen_test(unsupported = test)]
fn every_change_is_refused() {
    for vector in Vector::all() {
        let form = vector.form();
        assert!(!vector.accepts("wrong", &vector.url, &form, &vector.signature), "{} token", vector.id);
        assert!(!vector.accepts(&vector.token, &vector.url, &form, ""), "{} no signature", vector.id);
        assert!(
            !vector.accepts(&vector.token, &format!("{}x", vector.url), &form, &vector.signature),
            "{} url",
            vector.id
        );
        if vector.body.is_none() {
            let more: Form<'_> = form.pairs().chain([("Extra", "")]).collect();
            assert!(!vector.accepts(&vector.token, &vector.url, &more, &vector.signature), "{} blank param", vector.id);
        }
    }
}

#[wasm_bindgen_test(unsupported = test)]
fn a_changed_json_body_is_refused() {
    let mut vector = Vector::all().into_iter().find(|vector| vector.body.is_some()).expect("a JSON vector");
    let url = vector.url.clone();
    vector.body = Some("{}".to_owned());
    assert!(!vector.accepts(&vector.token, &url, &Form::default(), &vector.signature));
}

#[wasm_bindgen_test(unsupported = test)]
fn the_connection_override_fragment_is_not_signed() {
    let vector = Vector::all().into_iter().find(|vector| vector.id == "V2").expect("V2");
    let url = format!("{}#rc=2&rp=all", vector.url);
    assert!(vector.accepts(&vector.token, &url, &vector.form(), &vector.signature));
}
