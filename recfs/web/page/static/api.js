// The gateway's API, as the session's cookie lets it be asked.

import { known } from "./texts.js";

export const API = "/api/v1";
/** What no form of another site can send: the gateway refuses changes without it. */
export const HEADERS = { "X-Recfs-Request": "page" };

/** What an answer says in words: the title, in the reader's language, and detail of a problem document (RFC 9457). */
export function saying(status, text) {
  try {
    const told = JSON.parse(text);
    const kind = String(told.type ?? "").split(":").pop();
    const title = known("problem", kind);
    const words = [title === kind ? told.title : title, told.detail].filter(Boolean).join(": ");
    if (words) {
      return words;
    }
  } catch {
    // not JSON: a proxy's own page, say
  }
  return `HTTP ${status}`;
}

/** Ask; what is refused is thrown as an Error with the words for people. */
export async function ask(method, href, body) {
  const headers = { ...HEADERS, Accept: "application/json" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(href, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  if (answer.status === 401) {
    location.assign(`/login?back=${encodeURIComponent(location.pathname + location.search)}`);
  }
  if (!answer.ok) {
    throw new Error(saying(answer.status, text));
  }
  return text && answer.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : null;
}
