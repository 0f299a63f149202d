// What every page has: moments in the reader's time zone, buttons that ask the API, and what is told of that.

import { ask } from "./api.js";
import { moment, t } from "./texts.js";

const TOLD_MS = 8000;
const LATER = "recfs-told";
const GIB = 2 ** 30;

/** Tell the reader something, aloud too for those who listen. */
export function tell(text, isBad = false) {
  const line = document.createElement("p");
  line.textContent = text;
  line.classList.toggle("bad", isBad);
  document.getElementById("told").append(line);
  setTimeout(() => line.remove(), TOLD_MS);
}

/** Have the reader confirm something; false where they would rather not. */
export function confirmed(text) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-text").textContent = text;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Go to a page, or load this one anew, and tell something there. */
function go(href, text) {
  if (text) {
    sessionStorage.setItem(LATER, text);
  }
  if (href) {
    location.assign(href);
  } else {
    location.reload();
  }
}

async function call(button) {
  const { call: method, href, body, ask: question, done, then } = button.dataset;
  if (question && !(await confirmed(question))) {
    return;
  }
  button.disabled = true;
  try {
    await ask(method, href, body ? JSON.parse(body) : undefined);
    go(then, done);
  } catch (error) {
    button.disabled = false;
    tell(error.message, true);
  }
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
    tell(t("js.copied"));
  } catch {
    source.select?.();
    tell(t("js.copy_by_hand"), true);
  }
}

/** Limits of a user: sizes are typed in GiB, and nothing typed means no limit. */
async function editQuota(button) {
  const dialog = document.getElementById("quota");
  const form = dialog.querySelector("form");
  const limits = JSON.parse(button.dataset.limits);
  document.getElementById("quota-user").textContent = button.dataset.quota;
  const names = Object.keys(limits);
  const factor = (name) => (name.endsWith("s") && name !== "max_bytes" ? 1 : GIB);
  const shown = (name) => (limits[name] === null ? "" : String(limits[name] / factor(name)));
  for (const name of names) {
    form.elements[name].value = shown(name);
  }
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "yes") {
    return;
  }
  const wanted = {};
  for (const name of names) {
    const text = form.elements[name].value.trim().replace(",", ".");
    if (text !== shown(name)) {
      wanted[name] = text === "" ? "unlimited" : Math.round(Number(text) * factor(name));
    }
  }
  try {
    await ask("PUT", button.dataset.href, wanted);
    go("", t("js.saved"));
  } catch (error) {
    tell(error.message, true);
  }
}

for (const part of document.querySelectorAll(".needs-script")) {
  part.hidden = false;
}
for (const time of document.querySelectorAll("time[data-moment]")) {
  time.title = time.textContent;
  time.textContent = moment(new Date(time.dateTime));
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.call) {
    call(button);
  } else if (button?.dataset.copy) {
    copy(button);
  } else if (button?.dataset.quota) {
    editQuota(button);
  }
});
/** Show something that is told once, to be copied. */
function give(id, text) {
  const field = document.getElementById(id);
  field.parentElement.hidden = false;
  field.value = text;
  field.focus();
  field.select();
}

async function share(form) {
  const wanted = { ...JSON.parse(form.dataset.body), expires_s: Number(form.elements.lasts.value) };
  const link = await ask("POST", form.dataset.href, wanted);
  give("shared-link", new URL(link.url, location.href).href);
}

async function grant(form) {
  const { name, role, users, days } = form.elements;
  const made = await ask("POST", form.dataset.href, {
    name: name.value.trim(), role: role.value, users: users.value.split(/[\s,]+/).filter(Boolean),
    expires_s: days.value ? Number(days.value) * 86400 : null,
  });
  give("granted-token", made.token);
}

const FORMS = { share, grant };
document.addEventListener("submit", async (event) => {
  const act = FORMS[event.target.id];
  if (!act) {
    return;
  }
  event.preventDefault();
  try {
    await act(event.target);
  } catch (error) {
    tell(error.message, true);
  }
});
const later = sessionStorage.getItem(LATER);
if (later) {
  sessionStorage.removeItem(LATER);
  tell(later);
}

