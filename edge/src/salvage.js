// What becomes of a request when Rust panicked over it. Nothing is known of it then, not even whether its sender is
// genuine: an event is put on the queue as it came, with the headers that prove its sender, and the consumer admits it
// as it would have been admitted here. Written without Rust, which may be what is broken.

import * as glue from "./shell/glue.js";

// `salvaged.rs` has a test that these are all, and spelt as the machine spells them.
const CALLS = ["/twilio/voice", "/twilio/resume"];
const EVENTS = ["/twilio/status", "/twilio/stream-status"];
const MESSAGES = "/api/vapi/webhook";
const QUESTIONS = [
  "assistant-request",
  "tool-calls",
  "transfer-destination-request",
  "handoff-destination-request",
  "knowledge-base-request",
  "call.endpointing.request",
  "campaign.predial",
];

const MAX_BODY_BYTES = 1024 * 1024;
const MAX_MESSAGE_BYTES = 127_000;
const LIMIT_MS = 5_000;

export async function salvage(request, env, arrived, error) {
  const url = new URL(request.url);
  const answer = await rescue(url, request, env, arrived, error);
  const known = [...CALLS, ...EVENTS, MESSAGES].includes(url.pathname);
  glue.measure(env.METRICS, "panic", known ? url.pathname : "other", "", answer.status, 0);
  return answer;
}

async function rescue({ pathname, searchParams }, request, env, arrived, error) {
  const log = (decision, fault) => console.error(JSON.stringify({ webhook: pathname, decision, fault: String(fault) }));
  log("panic", error);
  if (CALLS.includes(pathname)) {
    // Once more, perhaps with another instance. If that fails too, Twilio asks the number's fallback URL.
    if (searchParams.has("attempt")) return unavailable();
    const redirect = `<Redirect method="POST">${pathname}?attempt=2</Redirect>`;
    const twiml = `<?xml version="1.0" encoding="UTF-8"?><Response><Pause length="1"/>${redirect}</Response>`;
    return glue.reply(200, "text/xml", twiml, "", "");
  }
  const message = pathname === MESSAGES;
  if (request.method !== "POST" || !(message || EVENTS.includes(pathname))) return unavailable();
  try {
    const body = arrived.body ?? (await glue.body(request, MAX_BODY_BYTES, LIMIT_MS));
    if (body === null || (message && QUESTIONS.includes(kind(body)))) return unavailable();
    const gzip = (await glue.gzip(body)).toBase64();
    const text = JSON.stringify({ head: arrived.head, arrivedAt: Date.now(), gzip });
    if (text.length > MAX_MESSAGE_BYTES) throw new Error("the event is too long for the queue");
    await glue.send(env.RETRIES, text, LIMIT_MS);
  } catch (fault) {
    log("lose", fault);
    return unavailable();
  }
  log("keep", error);
  return message ? glue.reply(200, "application/json", "{}", "", "") : glue.reply(204, "", "", "", "");
}

/** The type of a message of Vapi's; nothing for what is none, which the consumer refuses. */
function kind(body) {
  try {
    return JSON.parse(new TextDecoder().decode(body)).message.type;
  } catch {
    return undefined;
  }
}

function unavailable() {
  const problem = { type: "about:blank", title: "Something went wrong here; send it again", status: 503, code: "unavailable" };
  return glue.reply(503, "application/problem+json", JSON.stringify(problem), "retry-after", "5");
}
