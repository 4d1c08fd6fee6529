// What the Worker needs of its runtime, for `entry.js` and for the consumer in `queue.rs`. No decision is made here.

const HEADERS = [
  "content-type",
  "content-length",
  "x-twilio-signature",
  "x-twilio-webhooks-signature-settings",
  "i-twilio-idempotency-token",
  "x-vapi-secret",
  "authorization",
  "x-signature",
  "x-timestamp",
  "cf-connecting-ip",
];

/** Method, URL, and `name:value` of each header above that is there, one a line. */
export function head(request) {
  let text = `${request.method}\n${request.url}`;
  for (const name of HEADERS) {
    const value = request.headers.get(name);
    if (value !== null) text += `\n${name}:${value}`;
  }
  return text;
}

/** The body's bytes; null when it is longer than `limit`. */
export async function body(request, limit, ms) {
  if (request.body === null) return new Uint8Array();
  // With a length the runtime reads no more than that, and the length has been checked.
  if (request.headers.has("content-length")) return new Uint8Array(await within(ms, request.arrayBuffer()));
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

/** Writes a text under a key that is gone after `seconds`. */
export function write(kv, key, text, seconds, ms) {
  return within(ms, kv.put(key, text, { expirationTtl: seconds }));
}

/** Puts one text on a queue. */
export function send(queue, text, ms) {
  return within(ms, queue.send(text, { contentType: "text" }));
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
