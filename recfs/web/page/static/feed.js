// What happens meanwhile, as the gateway tells it: the newest first.

import { API } from "./api.js";
import { known, t } from "./texts.js";

const MOST = 100;
const list = document.getElementById("feed");
const state = document.getElementById("feed-state");
const clock = new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: "medium" });

function show(event) {
  const told = JSON.parse(event.data);
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.dateTime = told.time;
  time.textContent = clock.format(new Date(told.time));
  const kind = document.createElement("span");
  kind.textContent = known("js.event", told.event);
  const path = document.createElement("span");
  path.textContent = told.path ?? "";
  line.append(time, kind, path);
  list.querySelector(".muted")?.remove();
  list.prepend(line);
  while (list.children.length > MOST) {
    list.lastElementChild.remove();
  }
}

const KINDS = [
  "committed", "incomplete", "overwritten", "renamed", "removed", "uploaded", "evicted", "fetched", "restored", "expired",
  "revived", "corrupt", "repaired", "adopted", "quota_reached", "probed", "broken",
];
const source = new EventSource(`${API}/events`);
for (const kind of KINDS) {
  source.addEventListener(kind, show);
}
source.addEventListener("message", show);
source.addEventListener("open", () => {
  state.textContent = t("js.live");
  state.className = "chip live";
});
source.addEventListener("error", () => {
  state.textContent = t(source.readyState === EventSource.CLOSED ? "js.no_feed" : "js.reconnecting");
  state.className = "chip";
});
