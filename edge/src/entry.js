// The Worker's entry. It does the I/O that the machine in `visit.rs` asks for, one step after another, and decides
// nothing. A synchronous call into wasm is far cheaper than a promise across its border, and when it panics, that is an
// exception here, which loses no event.

import Rust from "../build/index.js";
import * as glue from "./shell/glue.js";
import { salvage } from "./salvage.js";

// worker-build hangs whatever Rust exports on the class that it makes for the runtime. That class is not used: it costs
// two proxies a request, and would offer its methods to other Workers.
const { begin, consume, source } = Rust.prototype;

export default {
  fetch(request, env, context) {
    const arrived = { head: glue.head(request), body: null };
    const answer = serve(request, env, context, arrived).catch((error) => salvage(request, env, arrived, error));
    // A sender that hangs up ends its request here: an event that has arrived must go on.
    if (request.method === "POST") context.waitUntil(answer);
    return answer;
  },

  queue(batch, env) {
    return consume(batch, env);
  },
};

async function serve(request, env, context, arrived) {
  const visit = begin(arrived.head, env, Date.now());
  let answer;
  let step = visit.first();
  for (;;) {
    const end = step.indexOf("\n\n");
    const [verb, ...words] = step.slice(0, end).split("\n");
    const rest = step.slice(end + 2);
    switch (verb) {
      case "answer":
        visit.free();
        return glue.reply(Number(words[0]), words[1] ?? "", rest, words[2] ?? "", words[3] ?? "");
      case "body":
        try {
          arrived.body = await glue.body(request, Number(words[0]), Number(words[1]));
        } catch {
          step = visit.noBody(false);
          break;
        }
        step = arrived.body === null ? visit.noBody(true) : visit.body(arrived.body, Date.now());
        break;
      case "look": {
        let value;
        try {
          value = await glue.read(env.ROUTES, rest, Number(words[0]));
        } catch (error) {
          step = visit.notFound(String(error), Date.now());
          break;
        }
        step = visit.found(value, Date.now());
        break;
      }
      case "count": {
        let within = true;
        try {
          const from = source(request.headers.get("cf-connecting-ip") ?? "");
          within = await glue.count(env.REFUSALS, from, Number(words[0]));
        } catch {
          // A count that fails limits nobody.
        }
        step = visit.counted(within, Date.now());
        break;
      }
      case "post":
        try {
          answer = await post(words, arrived.body, env);
        } catch (error) {
          step = visit.notAnswered(String(error), Date.now());
          break;
        }
        step = visit.answered(answer.status, Date.now());
        break;
      case "announce": {
        const [contentType, ...to] = words;
        context.waitUntil(announce(visit, to, arrived.body, env));
        return glue.reply(200, contentType, rest, "", "");
      }
      case "pass-on":
        visit.free();
        return glue.relay(answer);
      case "compress": {
        let bytes;
        try {
          bytes = await glue.gzip(arrived.body);
        } catch (error) {
          step = visit.notKept(String(error), Date.now());
          break;
        }
        step = visit.compressed(bytes, Date.now());
        break;
      }
      case "keep":
        try {
          await glue.send(env.RETRIES, rest, Number(words[0]));
        } catch (error) {
          step = visit.notKept(String(error), Date.now());
          break;
        }
        step = visit.kept(Date.now());
        break;
      default:
        throw new Error(`no such step: ${verb}`);
    }
  }
}

/** Posts the request's body to the origin, signed. */
async function post([url, ms, contentType, delivery, at, signed], body, env) {
  const secret = env.EDGE_ORIGIN_SECRET.split(",").find((one) => one.trim()).trim();
  const signature = `t=${at},v1=${await glue.sign(secret, signed, body)}`;
  return glue.post(url, contentType, signature, delivery, body, Number(ms));
}

/** Tells the origin which call is coming, once its answer is on the way. */
async function announce(visit, to, body, env) {
  // A turn of the event loop, in which the answer goes out.
  await scheduler.wait(0);
  try {
    const { status } = await post(to, body, env);
    if (status !== 204) visit.notAnnounced(`the origin answered ${status}`, Date.now());
  } catch (error) {
    visit.notAnnounced(String(error), Date.now());
  } finally {
    visit.free();
  }
}
