// The peer with Hono, as its documentation writes Workers.

import { Hono } from "hono";
import { Refusal, vapi, voice } from "./logic.js";

const app = new Hono();

const answer = (c, { status, type, body }) => c.body(body, status, { "content-type": type });

const expectType = (type) => async (c, next) => {
  if (!(c.req.header("content-type") ?? "").startsWith(type)) throw new Refusal(415, "unsupported_media_type");
  await next();
};

app.post("/twilio/voice", expectType("application/x-www-form-urlencoded"), async (c) => {
  const request = { body: () => c.req.text(), signature: c.req.header("x-twilio-signature"), contentType: c.req.header("content-type"), delivery: c.req.header("i-twilio-idempotency-token"), length: c.req.header("content-length") };
  return answer(c, await voice(request, c.env, c.executionCtx));
});

app.post("/api/vapi/webhook", expectType("application/json"), async (c) => {
  const { req } = c;
  const request = { body: () => req.arrayBuffer(), secret: req.header("x-vapi-secret"), contentType: req.header("content-type"), length: req.header("content-length") };
  return answer(c, await vapi(request, c.env));
});

app.notFound((c) => answer(c, new Refusal(404, "not_found").answer()));
app.onError((error, c) => answer(c, error instanceof Refusal ? error.answer() : new Refusal(503, "unavailable").answer()));

export default {
  fetch(request, env, context) {
    const response = app.fetch(request, env, context);
    context.waitUntil(response);
    return response;
  },
};
