// Uses the simulated REST API through npm's twilio: node twilio_rest.cjs API_URL ACCOUNT_SID AUTH_TOKEN.
// Exit 1 with the first thing that is not as the SDK has it.
const assert = require("node:assert/strict");
const twilio = require("twilio");

const [apiUrl, accountSid, authToken] = process.argv.slice(2);

// The SDK knows only api.twilio.com: its own HTTP client, sent elsewhere.
const http = new twilio.RequestClient();
const elsewhere = {
  request: (options) => http.request({ ...options, uri: options.uri.replace("https://api.twilio.com", apiUrl) }),
};
const client = twilio(accountSid, authToken, { httpClient: elsewhere });

async function main() {
  const [found] = await client.availablePhoneNumbers("US").local.list({ areaCode: 415, limit: 1 });
  assert.match(found.phoneNumber, /^\+1415/);
  assert.equal(found.capabilities.voice, true);

  const voiceUrl = "https://edge.tandem.test/voice";
  const bought = await client.incomingPhoneNumbers.create({ phoneNumber: found.phoneNumber, voiceUrl });
  assert.match(bought.sid, /^PN[0-9a-f]{32}$/);
  assert.equal(bought.voiceUrl, voiceUrl);
  assert.ok(bought.dateCreated instanceof Date && !Number.isNaN(bought.dateCreated.getTime()));
  const updated = await client.incomingPhoneNumbers(bought.sid).update({ statusCallback: `${voiceUrl}/status` });
  assert.equal(updated.statusCallback, `${voiceUrl}/status`);
  const listed = await client.incomingPhoneNumbers.list({ pageSize: 1 });
  assert.equal(listed.length, 2);

  const call = await client.calls.create({ to: "+15550177", from: bought.phoneNumber, url: voiceUrl });
  assert.match(call.sid, /^CA[0-9a-f]{32}$/);
  assert.ok(["queued", "ringing", "in-progress"].includes(call.status), call.status);
  const ended = await client.calls(call.sid).update({ status: "completed" });
  assert.equal(ended.sid, call.sid);
  assert.equal(await client.incomingPhoneNumbers(bought.sid).remove(), true);
  await assert.rejects(client.incomingPhoneNumbers(bought.sid).fetch(), (error) => {
    assert.equal(error.code, 20404);
    assert.equal(error.status, 404);
    return true;
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
