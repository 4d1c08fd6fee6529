// A KV namespace as workerd asks one: every number has a bridged route, every assistant is on Vapi, nothing else is there.

const agentId = "01890a5d-ac96-774b-bcce-b302099a8057";

export default {
  fetch(request) {
    const { pathname } = new URL(request.url);
    const key = decodeURIComponent(pathname.slice(1));
    const [kind, id] = key.split(":");
    if (kind === "number") {
      const system = "openai-realtime";
      return json({ revision: 1, number: id, numberSystemType: system, agentId, agentSystemType: system, vapiHandover: "none", fallbackNumber: null });
    }
    if (kind === "assistant") return json({ revision: 1, agentId, agentSystemType: "vapi", switchedAt: null });
    return new Response(null, { status: 404 });
  },
};

function json(value) {
  return new Response(JSON.stringify(value));
}
