// An origin that takes everything that is signed and addressed, and a queue that nothing is put on.

export default {
  async fetch(request) {
    await request.arrayBuffer();
    const { headers } = request;
    const good = headers.has("tandem-signature") && headers.has("tandem-delivery");
    return new Response(good ? "{}" : null, { status: good ? 200 : 401, headers: { "content-type": "application/json" } });
  },
};
