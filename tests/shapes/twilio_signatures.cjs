// Holds signed requests against npm's twilio: node twilio_signatures.cjs FILE, one request a line:
// {"authToken", "url", "params": [[name, value], …], "signature"}. Exit 1 with the first that it refuses.
const { readFileSync } = require("node:fs");
const { validateRequest } = require("twilio");

for (const line of readFileSync(process.argv[2], "utf8").split("\n").filter(Boolean)) {
  const { authToken, url, params, signature } = JSON.parse(line);
  const form = {};
  for (const [name, value] of params) {
    form[name] = name in form ? [form[name], value].flat() : value;
  }
  if (!validateRequest(authToken, signature, url, form)) {
    console.error(`refused: ${line}`);
    process.exit(1);
  }
}
