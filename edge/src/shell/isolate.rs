//! What an isolate reads once and keeps: settings and bindings. Requests share it; nothing of a request is kept here.

use std::cell::OnceCell;
use std::rc::Rc;

use worker::wasm_bindgen::JsValue;
use worker::{Env, console_error};

use super::runtime;
use crate::log::Line;
use crate::metric::Point;
use crate::settings::Settings;

/// Settings and bindings.
pub(crate) struct Isolate {
    pub(crate) settings: Rc<Settings>,
    /// The route replica, and the dead letters.
    pub(crate) routes: JsValue,
}

thread_local! {
    static ISOLATE: OnceCell<Option<Rc<Isolate>>> = const { OnceCell::new() };
    static VERSION: OnceCell<Rc<str>> = const { OnceCell::new() };
    static METRICS: OnceCell<Option<JsValue>> = const { OnceCell::new() };
}

impl Isolate {
    /// What this isolate works with; `None` when the Worker is not set up completely, which is logged once.
    pub(crate) fn of(env: &Env) -> Option<Rc<Self>> {
        ISOLATE.with(|isolate| isolate.get_or_init(|| Self::read(env).map(Rc::new)).clone())
    }

    fn read(env: &Env) -> Option<Self> {
        let settings = Settings::read(|name| runtime::variable(env, name));
        let routes = runtime::binding(env, "ROUTES");
        let retries = runtime::binding(env, "RETRIES");
        let unbound = [("ROUTES", &routes), ("RETRIES", &retries)]
            .into_iter()
            .filter(|(_, binding)| !binding.is_object())
            .map(|(name, _)| format!("{name} is not bound"));
        let (settings, mut faults) = match settings {
            Ok(settings) => (Some(settings), Vec::new()),
            Err(faults) => (None, faults),
        };
        faults.extend(unbound);
        if !faults.is_empty() {
            let fault = faults.join("; ");
            console_error!("{}", Line { decision: "misconfigured", fault: Some(&fault), ..Line::default() }.render());
            return None;
        }
        Some(Self { settings: Rc::new(settings?), routes })
    }
}

/// Looks for the dataset that requests are counted in. Without one nothing is.
pub(crate) fn find_metrics(env: &Env) {
    METRICS.with(|metrics| {
        metrics.get_or_init(|| Some(runtime::binding(env, "METRICS")).filter(JsValue::is_object));
    });
}

/// Counts a request.
pub(crate) fn measure(point: Point) {
    METRICS.with(|metrics| {
        if let Some(Some(dataset)) = metrics.get() {
            runtime::count(dataset, point);
        }
    });
}

/// The id of the deployed version, or that of the code when there is none.
pub(crate) fn version(env: &Env) -> Rc<str> {
    let read = || {
        let metadata = runtime::binding(env, "VERSION");
        let deployed = if metadata.is_object() { runtime::variable(&metadata, "id") } else { None };
        deployed.filter(|id| !id.is_empty()).map_or_else(|| Rc::from(env!("CARGO_PKG_VERSION")), Rc::from)
    };
    VERSION.with(|version| version.get_or_init(read).clone())
}
