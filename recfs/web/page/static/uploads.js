// Uploads by tus 1.0: a few at once, with pause, and going on after the page was closed or the line was cut.

import { API, HEADERS, saying } from "./api.js";
import { number, size, span, t, known } from "./texts.js";

const ENDPOINT = `${API}/uploads`;
const CHUNK = 32 * 2 ** 20;
const AT_ONCE = 2;
const RETRIES_MS = [0, 1000, 3000, 5000, 10000, 20000];
const KEPT = "tus::";
const RATE_MS = 3000;

const list = document.getElementById("uploads");
const none = document.getElementById("no-uploads");
const picker = document.getElementById("files");
const drop = document.getElementById("drop");
const form = document.getElementById("choose");
const rows = new Map();
const waiting = [];
let running = 0;

/** One line of the list, and the upload behind it. */
class Row {
  constructor(key, name) {
    this.key = key;
    this.element = document.getElementById("upload-row").content.cloneNode(true).firstElementChild;
    this.part = (selector) => this.element.querySelector(selector);
    this.part(".name").textContent = name;
    this.part("progress").setAttribute("aria-label", name);
    this.samples = [];
    this.upload = null;
    this.counted = false;
    this.element.addEventListener("click", (event) => this.act(event.target.closest("[data-act]")?.dataset.act));
    rows.set(key, this);
    list.prepend(this.element);
    none.hidden = true;
  }

  enter(state, why = "") {
    this.state = state;
    const chip = this.part(".chip");
    chip.textContent = known("state", state);
    chip.className = `chip state ${state}`;
    const shown = {
      pause: ["sending", "waiting"], resume: ["paused", "failed"], again: ["unfinished"],
      abort: ["sending", "waiting", "paused", "failed", "unfinished"], forget: ["done", "aborted"], open: ["done"],
    };
    for (const [act, states] of Object.entries(shown)) {
      this.part(`[data-act="${act}"]`).hidden = !states.includes(state);
    }
    const line = this.part(".why");
    line.textContent = why;
    line.hidden = !why;
    if (state !== "sending" && state !== "sealing") {
      this.free();
    }
  }

  free() {
    if (this.counted) {
      this.counted = false;
      running -= 1;
      next();
    }
  }

  moved(sent, total) {
    this.part("progress").value = total ? sent / total : 1;
    const now = performance.now();
    this.samples = this.samples.filter(([when]) => now - when < RATE_MS).concat([[now, sent]]);
    const [first, before] = this.samples[0];
    const rate = now > first ? ((sent - before) * 1000) / (now - first) : 0;
    const told = [`${size(sent)} / ${size(total)}`, `${number(total ? Math.floor((100 * sent) / total) : 100)} %`];
    if (rate > 0 && sent < total) {
      told.push(`${size(rate)}/${t("unit.s")}`, t("js.left", { span: span((total - sent) / rate) }));
    }
    this.part(".line .figures").textContent = told.join(" · ");
    if (total && sent >= total && this.state === "sending") {
      this.enter("sealing");
    }
  }

  async act(name) {
    if (name === "pause") {
      await this.upload.abort();
      this.leave();
      this.enter("paused");
    } else if (name === "resume") {
      this.queue();
    } else if (name === "again") {
      picker.click();
    } else if (name === "abort") {
      await this.abort();
    } else if (name === "forget") {
      this.element.remove();
      rows.delete(this.key);
      none.hidden = rows.size > 0;
    }
  }

  leave() {
    const at = waiting.indexOf(this);
    if (at >= 0) {
      waiting.splice(at, 1);
    }
  }

  async abort() {
    this.leave();
    try {
      if (this.upload) {
        await this.upload.abort(true);
      } else {
        await fetch(this.url, { method: "DELETE", headers: { ...HEADERS, "Tus-Resumable": "1.0.0" } });
      }
    } catch {
      // what the gateway does not hear of goes when its time is over
    }
    if (this.stored) {
      localStorage.removeItem(this.stored);
    }
    this.enter("aborted");
  }

  queue() {
    this.enter("waiting");
    waiting.push(this);
    next();
  }

  start() {
    this.counted = true;
    running += 1;
    this.samples = [];
    this.enter("sending");
    this.upload.start();
  }
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    waiting.shift().start();
  }
}

function keyOf(file, user, recording) {
  return ["recfs", user, recording, file.name, file.size, file.lastModified].join("-");
}

function failed(row, error) {
  const response = error.originalResponse;
  row.enter("failed", response ? saying(response.getStatus(), response.getBody()) : t("js.cut"));
}

async function add(file) {
  const user = form.elements.user.value;
  const typed = form.elements.recording.value.trim();
  const before = typed ? undefined : unfinishedLike(file, user);
  const recording = typed || before?.recording || crypto.randomUUID();
  const key = keyOf(file, user, recording);
  const old = rows.get(key);
  if (old && !["unfinished", "failed", "aborted"].includes(old.state)) {
    return;
  }
  old?.element.remove();
  const row = new Row(key, file.name);
  row.upload = new tus.Upload(file, {
    endpoint: ENDPOINT, chunkSize: CHUNK, retryDelays: RETRIES_MS, headers: HEADERS, removeFingerprintOnSuccess: true,
    metadata: { filename: file.name, filetype: file.type, user, recording },
    fingerprint: () => Promise.resolve(key),
    onProgress: (sent, total) => row.moved(sent, total),
    onError: (error) => failed(row, error),
    onSuccess: () => {
      row.moved(file.size, file.size);
      const link = row.part('[data-act="open"]');
      link.href = `/recordings/${encodeURIComponent(user)}/${encodeURIComponent(recording)}`;
      row.enter("done");
    },
  });
  const [previous] = await row.upload.findPreviousUploads();
  if (previous) {
    row.stored = previous.urlStorageKey;
    row.upload.resumeFromPreviousUpload(previous);
  }
  row.moved(0, file.size);
  row.queue();
}

/** What this browser began and did not end: [key in localStorage, what tus keeps there]. */
function kept() {
  return Object.keys(localStorage).filter((key) => key.startsWith(`${KEPT}recfs-`)).map((key) => {
    try {
      return [key, JSON.parse(localStorage.getItem(key))];
    } catch {
      return [key, null];
    }
  }).filter(([, each]) => each?.uploadUrl && each.metadata);
}

function unfinishedLike(file, user) {
  const wanted = (key, each) => key.slice(KEPT.length).startsWith(keyOf(file, user, each.metadata.recording));
  return kept().find(([key, each]) => each.metadata.user === user && wanted(key, each))?.[1].metadata;
}

/** Show what was not ended, as far as the gateway still has it. Asked for as a list: HEAD would stop whoever sends. */
async function unfinished() {
  // Notes of users whom this reader does not write for are somebody else's who uses this browser: they stay.
  for (const user of [...form.elements.user.options].map((option) => option.value)) {
    const own = kept().filter(([, each]) => each.metadata.user === user);
    const answer = own.length ? await fetch(`${ENDPOINT}?user=${encodeURIComponent(user)}`) : null;
    if (!answer?.ok) {
      continue;
    }
    const begun = new Map((await answer.json()).items.map((item) => [item.upload_href, item]));
    for (const [key, each] of own) {
      const item = begun.get(new URL(each.uploadUrl, location.href).pathname);
      if (!item) {
        localStorage.removeItem(key);
        continue;
      }
      const row = new Row(key.slice(KEPT.length, key.lastIndexOf("::")), each.metadata.filename);
      row.url = each.uploadUrl;
      row.stored = key;
      row.moved(item.offset ?? 0, each.size);
      row.enter("unfinished", t("js.choose_again"));
    }
  }
}

if (form) {
  picker.addEventListener("change", async () => {
    if (!form.reportValidity()) {
      picker.value = "";
      return;
    }
    const chosen = [...picker.files];
    picker.value = "";
    for (const file of chosen) {
      await add(file);
    }
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    });
  }
  drop.addEventListener("drop", async (event) => {
    if (form.reportValidity()) {
      for (const file of [...event.dataTransfer.files]) {
        await add(file);
      }
    }
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("online", () => {
    for (const row of rows.values()) {
      if (row.state === "failed") {
        row.queue();
      }
    }
  });
  addEventListener("beforeunload", (event) => {
    if (running || waiting.length) {
      event.preventDefault();
    }
  });
  await unfinished();
}
