// An origin that takes everything that is signed and addressed and lets itself be told of calls, and a queue that nothing is put on.

export default {
  async fetch(request) {
    await request.arrayBuffer();
    const { headers } = request;
    const good = headers.has("tandem-signature") && headers.has("tandem-delivery");
    if (good && request.url.endsWith("/twilio/expected")) return new Response(null, { status: 204 });
    return new Response(good ? "{}" : null, { status: good ? 200 : 401, headers: { "content-type": "application/json" } });
  },
};
