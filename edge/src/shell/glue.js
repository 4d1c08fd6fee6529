// What the Worker needs of its runtime, for `entry.js` and for the consumer in `queue.rs`. No decision is made here.

const encoder = new TextEncoder();

const TWILIO_HEADERS = [
  "content-type",
  "content-length",
  "x-twilio-signature",
  "x-twilio-webhooks-signature-settings",
  "i-twilio-idempotency-token",
];
const OTHER_HEADERS = ["content-type", "content-length", "x-vapi-secret", "authorization", "x-signature", "x-timestamp"];

/** Method, URL, and `name:value` of each header that is there and that its sender's webhooks are judged by, one a line. */
export function head(request) {
  const { method, url, headers } = request;
  let text = `${method}\n${url}`;
  for (const name of url.includes("/twilio/") ? TWILIO_HEADERS : OTHER_HEADERS) {
    const value = headers.get(name);
    if (value !== null) text += `\n${name}:${value}`;
  }
  return text;
}

/** The body's bytes; null when it is longer than `limit`.
 *
 * One with a length, which has been checked, is read without a time limit of ours. It is a few kilobytes that are there
 * already; an unfinished one holds nothing but its own request, which the runtime ends with the connection; and a timer
 * costs as much as the signature. */
export async function body(request, limit, ms) {
  if (request.body === null) return new Uint8Array();
  if (request.headers.has("content-length")) return new Uint8Array(await request.arrayBuffer());
  return within(ms, bounded(request.body, limit));
}

async function bounded(stream, limit) {
  const chunks = [];
  let length = 0;
  for await (const chunk of stream) {
    length += chunk.length;
    if (length > limit) return null;
    chunks.push(chunk);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** A variable or secret, if it is a text. */
export function variable(env, name) {
  return typeof env[name] === "string" ? env[name] : undefined;
}

/** A binding, or undefined. */
export function binding(env, name) {
  return env[name];
}

/** The text under a key, or null. */
export function read(kv, key, ms) {
  return within(ms, kv.get(key));
}

/** Counts against a key; false when that is over the limit. Without the binding there is no limit. */
export async function count(limiter, key, ms) {
  if (limiter === undefined) return true;
  return (await within(ms, limiter.limit({ key }))).success;
}

/** Counts a request; see `metric.rs`. Without the binding nothing is counted. */
export function measure(dataset, decision, webhook, reason, status, ms) {
  try {
    dataset?.writeDataPoint({ indexes: [decision], blobs: [webhook, reason], doubles: [status, ms] });
  } catch {
    // No answer depends on it.
  }
}

/** Writes a text under a key that is gone after `seconds`. */
export function write(kv, key, text, seconds, ms) {
  return within(ms, kv.put(key, text, { expirationTtl: seconds }));
}

/** Puts one text on a queue. */
export function send(queue, text, ms) {
  return within(ms, queue.send(text, { contentType: "text" }));
}

const keys = new Map();

/** The hex HMAC-SHA256 of a text and a body. The runtime's own is four times as fast as one in wasm, on long bodies. */
export async function sign(secret, text, body) {
  let key = keys.get(secret);
  if (key === undefined) {
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    key = await crypto.subtle.importKey("raw", encoder.encode(secret), algorithm, false, ["sign"]);
    keys.set(secret, key);
  }
  const head = encoder.encode(text);
  const signed = new Uint8Array(head.length + body.length);
  signed.set(head);
  signed.set(body, head.length);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, signed)).toHex();
}

/** Posts a signed body; the time limit covers the answer's body too. */
export async function post(url, contentType, signature, delivery, body, ms) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": contentType, "tandem-signature": signature, "tandem-delivery": delivery },
    body,
    redirect: "manual",
    signal: AbortSignal.timeout(ms),
  });
  return { status: response.status, type: response.headers.get("content-type") ?? "", body: await response.arrayBuffer() };
}

/** An answer of our own. An empty content type means no body, an empty header name no further header. */
export function reply(status, contentType, body, headerName, headerValue) {
  const headers = {};
  if (contentType !== "") headers["content-type"] = contentType;
  if (headerName !== "") headers[headerName] = headerValue;
  return new Response(contentType === "" ? null : body, { status, headers });
}

/** The answer that `post` got. */
export function relay(answer) {
  return reply(answer.status, answer.type, answer.body, "", "");
}

/** Settles a message of a queue: it comes again after a while. */
export function retry(message, delaySeconds) {
  message.retry({ delaySeconds });
}

/** Compresses bytes. */
export function gzip(bytes) {
  return through(bytes, new CompressionStream("gzip"));
}

/** Undoes `gzip`. */
export function gunzip(bytes) {
  return through(bytes, new DecompressionStream("gzip"));
}

async function through(bytes, transform) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(transform)).arrayBuffer());
}

/** The promise's outcome, or a failure once so many milliseconds have gone. One promise and two closures: `Promise.race`
 * in a `finally` costs several times as much. */
function within(ms, promise) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("timed out")), ms);
    promise.then(
      (value) => {
        clearTimeout(timer);
        resolve(value);
      },
      (error) => {
        clearTimeout(timer);
        reject(error);
      },
    );
  });
}
