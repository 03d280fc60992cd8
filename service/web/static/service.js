// The service as the page uses it: one question, and the key with which it is asked.

const KEY_NAME = "clicv2-api-key"; // in sessionStorage: gone with the tab
let keptKey = ""; // where the browser keeps nothing for any page: gone with this one
// Well beyond the service's own deadline of 10 s: what has not come by then does not come.
const PATIENCE_MS = 60_000;
const SLOW_MS = 5_000; // a connection that breaks sooner was not too slow

export const hasKey = () => Boolean(theKey());

export function keepKey(key) {
  keptKey = key;
  try {
    sessionStorage.setItem(KEY_NAME, key);
  } catch { /* It is known to this page at least. */ }
}

function theKey() {
  try {
    return sessionStorage.getItem(KEY_NAME) ?? keptKey;
  } catch {
    return keptKey;
  }
}

// The answer of POST /v1/complexity. `sending` is told the part of the picture that has been sent, until all of it is.
// Throws {title, detail, again, key}: whether to try again may help, and whether another key may.
export async function score(file, signal, sending) {
  const asking = new AbortController();
  signal.addEventListener("abort", () => asking.abort());
  let late = false;
  let part = 0;
  const began = performance.now();
  const patience = setTimeout(() => { late = true; asking.abort(); }, PATIENCE_MS);
  try {
    return await answer(file, asking.signal, (sent) => { part = sent; sending(sent); });
  } catch (problem) {
    if (problem.title) throw problem;
    if (!await readable(file)) {
      throw { title: "The picture cannot be read", detail: "It was moved or changed, or is a folder. Choose it again.", again: false };
    }
    if (part > 0 && part < 1 && performance.now() - began > SLOW_MS) {
      throw { title: "The picture did not get through", detail: "Your connection is slow for one of this size, and the service does not wait for long. A smaller copy has nearly the same score.", again: true };
    }
    throw late
      ? { title: "The service does not answer", detail: `Nothing came for ${PATIENCE_MS / 1000} s.`, again: true }
      : { title: "The service cannot be reached", detail: "It may be restarting. Nothing was lost but this try.", again: true };
  } finally {
    clearTimeout(patience);
  }
}

async function answer(file, signal, sending) {
  const headers = { "Content-Type": file.type || "application/octet-stream", ...authorization() };
  const response = await posted("v1/complexity?heatmap=png", file, headers, signal, sending);
  const document = parsed(response.responseText);
  const ok = response.status >= 200 && response.status < 300;
  if (ok && "score" in document) return document;
  if (ok) {
    throw { title: "That was not the service's answer", detail: "Something on the way to it answered in its place.", again: true };
  }
  const wait = response.getResponseHeader("Retry-After");
  throw {
    title: document.title || `The service answered with ${response.status}`,
    detail: [document.detail && sentence(document.detail), wait && `Try again in ${wait} s.`].filter(Boolean).join(" ") || "It said nothing more.",
    again: response.status >= 500 || [401, 408, 429].includes(response.status),
    key: response.status === 401,
  };
}

// Not fetch, which tells nobody how far it is with a large picture.
function posted(url, body, headers, signal, sending) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => sending(loaded / total);
    request.onload = () => resolve(request);
    request.onerror = request.onabort = () => reject(new Error("no answer"));
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

// A browser tells of a file that it cannot read as of a network that fails.
async function readable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

// {} for what is no JSON object: whatever stands before the service may answer with a page.
function parsed(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

// With 33,554,432 for 33554432, and an end.
function sentence(text) {
  const legible = text.replace(/(?<![\w.])\d{5,}(?![\w.])/g, (number) => Number(number).toLocaleString("en"));
  return /[.!?]$/.test(legible) ? legible : `${legible}.`;
}

function authorization() {
  const key = theKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}
