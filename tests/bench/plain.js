// The peer without a framework.

import { Refusal, vapi, voice } from "./logic.js";

export default {
  fetch(request, env, context) {
    const answer = serve(request, env, context);
    context.waitUntil(answer);
    return answer;
  },
};

async function serve(request, env, context) {
  let answer;
  try {
    answer = await route(request, env, context);
  } catch (error) {
    answer = error instanceof Refusal ? error.answer() : new Refusal(503, "unavailable").answer();
  }
  return new Response(answer.body, { status: answer.status, headers: { "content-type": answer.type } });
}

function route(request, env, context) {
  const { pathname } = new URL(request.url);
  const { headers } = request;
  const contentType = headers.get("content-type") ?? "";
  const length = headers.get("content-length");
  if (pathname === "/twilio/voice") {
    expect(request.method === "POST", 405, "method_not_allowed");
    expect(contentType.startsWith("application/x-www-form-urlencoded"), 415, "unsupported_media_type");
    const delivery = headers.get("i-twilio-idempotency-token");
    return voice({ body: () => request.text(), signature: headers.get("x-twilio-signature"), contentType, delivery, length }, env, context);
  }
  if (pathname === "/api/vapi/webhook") {
    expect(request.method === "POST", 405, "method_not_allowed");
    expect(contentType.startsWith("application/json"), 415, "unsupported_media_type");
    return vapi({ body: () => request.arrayBuffer(), secret: headers.get("x-vapi-secret"), contentType, length }, env);
  }
  throw new Refusal(404, "not_found");
}

function expect(condition, status, code) {
  if (!condition) throw new Refusal(status, code);
}
