// Numbers as people compare them: groups of four digits, quiet leading zeros, underlined what differs from before.
import { h, says } from "./dom.js";

/**
 * Cuts a number into runs of digits of one look. Pure, so that it can be tested by itself.
 *
 * @param {string} digits  the number, padded to its width
 * @param {string} [was]  the number before, padded likewise
 * @returns {{text: string, look: "" | "zero" | "new"}[][]}  groups of four digits, each a list of runs
 */
export function runs(digits, was = digits) {
  const old = was.padStart(digits.length, "0").slice(-digits.length);
  let quiet = /^0*/.exec(digits)?.[0].length ?? 0;
  if (quiet === digits.length) quiet -= 1;
  /** @type {{text: string, look: "" | "zero" | "new"}[][]} */
  const groups = [];
  const first = digits.length % 4 || 4;
  for (let from = 0, to = first; from < digits.length; from = to, to += 4) {
    /** @type {{text: string, look: "" | "zero" | "new"}[]} */
    const group = [];
    for (let i = from; i < to; i++) {
      const look = digits[i] !== old[i] ? "new" : i < quiet ? "zero" : "";
      const last = group[group.length - 1];
      if (last && last.look === look) last.text += digits[i];
      else group.push({ text: digits[i], look });
    }
    groups.push(group);
  }
  return groups;
}

/**
 * @param {string} digits
 * @param {string | null} [was]
 */
export function hex(digits, was) {
  return h(
    "span",
    { class: "hex" },
    runs(digits, was ?? digits).map((group) =>
      h("i", null, group.map((run) => (run.look === "new" ? h("u", null, run.text) : run.look === "zero" ? h("s", null, run.text) : run.text))),
    ),
  );
}

/** @param {string} digits  without leading zeros, as spoken */
export const spoken = (digits) => "0x" + digits.replace(/^0+(?=.)/, "");

/**
 * A strip of named bits: the name over the bit.
 *
 * @param {[string, number, string, boolean, boolean][]} bits  name, value, what it says, whether it changed, whether it failed
 */
export function strip(bits) {
  return h(
    "span",
    { class: "bits", role: "img", "aria-label": bits.map(([name, on]) => `${name} ${on}`).join(", ") },
    bits.map(([name, on, text, changed, failed]) =>
      h(
        "span",
        { key: name, class: "b" + (on ? " on" : "") + (changed ? " chg" : "") + (failed ? " bad" : ""), ...says(`${name} = ${on}` + (changed ? ", changed" : "") + (failed ? ", the check that failed" : ""), text) },
        h("b", null, name),
        h("em", null, String(on)),
      ),
    ),
  );
}
