// Talking to the server: the token, errors in its own words, answers that come line by line.
const KEPT = "timepro-token";

export class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

export const keepToken = (token) => sessionStorage.setItem(KEPT, token);
export const forgetToken = () => sessionStorage.removeItem(KEPT);

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(KEPT);
  const headers = { ...(options.headers ?? {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let reply;
  try {
    reply = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server cannot be reached, or has closed the connection.\nIs it still running?");
  }
  if (!reply.ok) throw new Refused(reply.status, words(await reply.json().catch(() => null), reply.status));
  return reply;
}

function words(body, status) {
  const error = body?.error;
  return error?.what_to_do ? `${error.message}\n${error.why}\n${error.what_to_do}` : `The server answered with status ${status}.`;
}

export const info = async () => (await ask("/v1/events")).json();

// The events of a recording; `tell` hears of progress.
export async function events(form, tell, signal) {
  const reply = await ask("/v1/events", { method: "POST", body: form, headers: { Accept: "application/x-ndjson" }, signal });
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let found = null;
  for (;;) {
    const { done, value } = await reader.read();
    text += value ?? "";
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      const said = JSON.parse(line);
      if (said.error) throw new Refused(said.error.code, words(said, said.error.code));
      if (said.object === "progress") tell(said);
      else found = said;
    }
    if (done) break;
  }
  if (!found) throw new Refused(0, "The server closed the connection before it had answered.\nIs it still running?");
  return found;
}

export async function file(result, format) {
  const body = JSON.stringify({ file: result.file, duration: result.duration, events: result.events });
  const path = `/v1/events/file?format=${encodeURIComponent(format)}`;
  return (await ask(path, { method: "POST", body, headers: { "Content-Type": "application/json" } })).blob();
}
