// The service as the page uses it: one question, and the key with which it is asked.

const KEY_NAME = "clicv2-api-key"; // in sessionStorage: gone with the tab
// Well beyond the service's own deadline of 10 s: what has not come by then does not come.
const PATIENCE_MS = 60_000;

export const hasKey = () => Boolean(sessionStorage.getItem(KEY_NAME));

export const keepKey = (key) => sessionStorage.setItem(KEY_NAME, key);

// The answer of POST /v1/complexity. Throws {title, detail, again, key}: whether to try again may help, and whether
// another key may.
export async function score(file, signal) {
  const asking = new AbortController();
  signal.addEventListener("abort", () => asking.abort());
  let late = false;
  const patience = setTimeout(() => { late = true; asking.abort(); }, PATIENCE_MS);
  try {
    return await answer(file, asking.signal);
  } catch (problem) {
    if (problem.title) throw problem;
    throw late
      ? { title: "The service does not answer", detail: `Nothing came for ${PATIENCE_MS / 1000} s.`, again: true }
      : { title: "The service cannot be reached", detail: "It may be restarting. Nothing was lost but this try.", again: true };
  } finally {
    clearTimeout(patience);
  }
}

async function answer(file, signal) {
  const headers = { "Content-Type": file.type || "application/octet-stream", ...authorization() };
  const response = await fetch("v1/complexity?heatmap=png", { method: "POST", body: file, headers, signal });
  const document = parsed(await response.text());
  if (response.ok && "score" in document) return document;
  if (response.ok) {
    throw { title: "That was not the service's answer", detail: "Something on the way to it answered in its place.", again: true };
  }
  const wait = response.headers.get("Retry-After");
  throw {
    title: document.title || `The service answered with ${response.status}`,
    detail: [document.detail, wait && `Try again in ${wait} s.`].filter(Boolean).join(" ") || "It said nothing more.",
    again: response.status >= 500 || [401, 408, 429].includes(response.status),
    key: response.status === 401,
  };
}

// {} for what is no JSON: whatever stands before the service may answer with a page.
function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

function authorization() {
  const key = sessionStorage.getItem(KEY_NAME);
  return key ? { Authorization: `Bearer ${key}` } : {};
}
