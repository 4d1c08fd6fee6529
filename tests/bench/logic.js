// What the compiled Worker does with two webhooks, written by hand in JavaScript as one would for speed: keys imported
// once, no parsing twice, a time limit on everything that is awaited, one line of log. `plain.js` and `hono.js` put it
// behind a path.

const encoder = new TextEncoder();
const MAX_BODY_BYTES = 1024 * 1024;
const REPLICA_LIMIT_MS = 1_000;
const EVENT_LIMIT_MS = 3_000;
const ANNOUNCE_LIMIT_MS = 2_000;

export class Refusal extends Error {
  constructor(status, code) {
    super(code);
    this.status = status;
  }

  answer() {
    const problem = { type: "about:blank", title: this.message, status: this.status, code: this.message };
    return { status: this.status, type: "application/problem+json", body: JSON.stringify(problem) };
  }
}

let keys;

function load(env) {
  const key = (secret, hash, usage) => crypto.subtle.importKey("raw", encoder.encode(secret), { name: "HMAC", hash }, false, [usage]);
  keys ??= Promise.all([key(env.TWILIO_AUTH_TOKEN, "SHA-1", "verify"), key(env.EDGE_ORIGIN_SECRET, "SHA-256", "sign")]);
  return keys;
}

export async function voice({ body, signature, contentType, delivery, length }, env, context) {
  const started = Date.now();
  if (!signature) throw new Refusal(403, "signature_invalid");
  if (Number(length) > MAX_BODY_BYTES) throw new Refusal(413, "body_too_large");
  const text = await body();
  const pairs = [...new URLSearchParams(text)];
  const form = new Map(pairs);
  let signed = `${env.EDGE_URL}/twilio/voice`;
  for (const [name, value] of pairs.sort(([a], [b]) => (a < b ? -1 : 1))) signed += name + value;
  const [twilio, hop] = await load(env);
  const genuine = await crypto.subtle.verify("HMAC", twilio, bytes(signature), encoder.encode(signed));
  if (!genuine) throw new Refusal(403, "signature_invalid");
  const callSid = form.get("CallSid");
  if (!/^CA[0-9a-zA-Z]{1,62}$/.test(callSid ?? "")) throw new Refusal(400, "malformed_form");
  const number = form.get("To");
  const route = await within(REPLICA_LIMIT_MS, env.ROUTES.get(`number:${number}`, "json"));
  if (route?.number !== number) throw new Refusal(503, "unavailable");
  if (route.numberSystemType !== "openai-realtime" || route.agentSystemType !== "openai-realtime") throw new Refusal(503, "unavailable");
  const claims = `v1.${callSid}.${route.agentId}.${Math.floor(Date.now() / 1000) + 120}`;
  const mac = await crypto.subtle.sign("HMAC", hop, encoder.encode(`stream.${claims}`));
  const token = `${claims}.${new Uint8Array(mac).toBase64({ alphabet: "base64url", omitPadding: true })}`;
  console.log(JSON.stringify({ webhook: "/twilio/voice", decision: "bridge", call: callSid, agent: route.agentId, replica: "hit", status: 200, ms: Date.now() - started }));
  context.waitUntil(announce(env, contentType, `twilio:${delivery}`, encoder.encode(text)));
  return {
    status: 200,
    type: "text/xml",
    body:
      `<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="${xml(env.MEDIA_URL)}" statusCallback="${xml(env.EDGE_URL)}/twilio/stream-status" statusCallbackMethod="POST">` +
      `<Parameter name="token" value="${xml(token)}"/></Stream></Connect><Redirect method="POST">${xml(env.EDGE_URL)}/twilio/resume</Redirect></Response>`,
  };
}

export async function vapi({ body, secret, contentType, length }, env) {
  const started = Date.now();
  if (!equal(secret ?? "", env.VAPI_SERVER_SECRET)) throw new Refusal(401, "unauthorized");
  if (Number(length) > MAX_BODY_BYTES) throw new Refusal(413, "body_too_large");
  const raw = await body();
  let message;
  try {
    ({ message } = JSON.parse(new TextDecoder().decode(raw)));
  } catch {
    throw new Refusal(400, "malformed_message");
  }
  if (typeof message?.type !== "string") throw new Refusal(400, "malformed_message");
  const { id, assistantId } = message.call ?? {};
  const route = await within(REPLICA_LIMIT_MS, env.ROUTES.get(`assistant:${assistantId}`, "json"));
  if (route?.agentSystemType !== "vapi") throw new Refusal(503, "unavailable");
  const facts = [message.timestamp, message.role ?? "", message.transcriptType ?? "", message.transcript ?? ""];
  const digest = await crypto.subtle.digest("SHA-256", encoder.encode(facts.join("\n")));
  const delivery = `vapi:${id}:${message.type}:${new Uint8Array(digest).toHex().slice(0, 16)}`;
  const response = await post(env, "/api/vapi/webhook", contentType, delivery, new Uint8Array(raw), EVENT_LIMIT_MS);
  if (!response.ok) throw new Refusal(503, "unavailable");
  console.log(JSON.stringify({ webhook: "/api/vapi/webhook", decision: "process", call: id, agent: route.agentId, replica: "hit", origin: response.status, status: 200, ms: Date.now() - started }));
  return { status: 200, type: "application/json", body: "{}" };
}

async function announce(env, contentType, delivery, raw) {
  await scheduler.wait(0);
  try {
    const { status } = await post(env, "/twilio/expected", contentType, delivery, raw, ANNOUNCE_LIMIT_MS);
    if (status !== 204) console.log(JSON.stringify({ webhook: "/twilio/voice", decision: "not_announced", status }));
  } catch (error) {
    console.log(JSON.stringify({ webhook: "/twilio/voice", decision: "not_announced", fault: String(error) }));
  }
}

async function post(env, path, contentType, delivery, raw, ms) {
  const [, hop] = await load(env);
  const now = Math.floor(Date.now() / 1000);
  const head = encoder.encode(`${now}.POST.${path}.`);
  const signed = new Uint8Array(head.length + raw.length);
  signed.set(head);
  signed.set(raw, head.length);
  const mac = await crypto.subtle.sign("HMAC", hop, signed);
  const response = await fetch(`${env.ORIGIN_URL}${path}`, {
    method: "POST",
    headers: { "content-type": contentType, "tandem-signature": `t=${now},v1=${new Uint8Array(mac).toHex()}`, "tandem-delivery": delivery },
    body: raw,
    redirect: "manual",
    signal: AbortSignal.timeout(ms),
  });
  await response.arrayBuffer();
  return response;
}

function bytes(base64) {
  try {
    return Uint8Array.fromBase64(base64);
  } catch {
    throw new Refusal(403, "signature_invalid");
  }
}

function equal(left, right) {
  const [a, b] = [encoder.encode(left), encoder.encode(right)];
  return a.length === b.length && crypto.subtle.timingSafeEqual(a, b);
}

function xml(text) {
  return text.replace(/[&<"]/g, (character) => ({ "&": "&amp;", "<": "&lt;", '"': "&quot;" })[character]);
}

async function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("timed out")), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
