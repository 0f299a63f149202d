// Texts and numbers in the page's language: the catalogue's part for scripts, with the rules of texts.py.

export const language = document.documentElement.lang;
const answer = await fetch(`/page/texts/${language}`);
const entries = answer.ok ? await answer.json() : {};
const plurals = new Intl.PluralRules(language);
const SIZES = ["b", "kib", "mib", "gib", "tib", "pib"];
const TIMES = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const NO_BREAK = "\u00a0";

/** The text of a key, with values in its braces. */
export function t(key, values = {}) {
  const entry = entries[key] ?? key;
  return entry.replace(/\{(\w+)\}/g, (braces, name) => String(values[name] ?? braces));
}

/** The text of a word of the API; one that no catalogue has is shown as it is. */
export function known(prefix, word) {
  return entries[`${prefix}.${word}`] ?? word;
}

/** The text of a key for so many. */
export function many(key, count) {
  return (entries[key]?.[plurals.select(count)] ?? key).replace("{n}", number(count));
}

export function number(value, decimals = 0) {
  return new Intl.NumberFormat(language, { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).format(value);
}

/** Bytes, as powers of 1024. */
export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < SIZES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return number(value, unit && Math.abs(value) < 100 ? 1 : 0) + NO_BREAK + t(`unit.${SIZES[unit]}`);
}

/** Seconds, in the two largest units. */
export function span(seconds) {
  let left = Math.max(Math.floor(seconds), 0);
  const parts = [];
  for (const [unit, length] of TIMES) {
    if (left >= length || (unit === "s" && !parts.length)) {
      parts.push(number(Math.floor(left / length)) + NO_BREAK + t(`unit.${unit}`));
      left %= length;
    } else if (parts.length) {
      break;
    }
  }
  return parts.slice(0, 2).join(" ");
}

/** A moment of the wall clock, in the reader's time zone. */
export function moment(date) {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(date);
}
