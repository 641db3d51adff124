// Drawing a page walk: the address cut into its index bits, then one row per table. Paging and shadow share it.
import { h, says } from "../dom.js";
import { hex, strip } from "../hex.js";
import { mark } from "../marks.js";

/**
 * @typedef {object} Step
 * @property {string} level @property {string} table @property {number} index @property {string} entry  digits
 * @property {string} at  where the entry lies
 * @property {string | null} was
 * @property {[string, number, string, boolean, boolean][]} bits
 * @property {[boolean, string][]} checks  whether it holds, in words
 * @property {boolean} ok
 *
 * @typedef {object} Slice
 * @property {string} range @property {string} bits @property {string} name @property {string} value
 */

/** @param {[string, Slice][]} slices */
export function ruler(slices) {
  if (!slices.length) return null; // without paging no bit of the address is an index
  return h(
    "div",
    { class: "ruler", role: "img", "aria-label": slices.map(([, s]) => `bits ${s.range}: ${s.name} ${s.value}`).join("; "), style: `--k:${slices.length}` },
    slices.map(([id, s]) => h("span", { key: id, class: s.name === "sign" || s.name === "unused" ? "" : "g", "data-l": "w-" + s.name, ...says(`Bits ${s.range}, ${s.name}`, `${s.bits.replace(/ /g, "")} is ${s.value}.`) }, h("small", null, s.range), h("code", null, s.bits), h("small", null, s.name + " ", h("b", null, s.value)))),
  );
}

/** @param {string} id @param {Step} step */
export function stepRow(id, step) {
  return h(
    "li",
    { key: id, class: step.ok ? "" : "stop", "data-l": "w-" + step.level, "data-level": step.level, "data-ok": step.ok ? "true" : "false" },
    h("span", { class: "lv" }, step.level),
    h(
      "div",
      null,
      h("span", { class: "mono" }, step.at.replace(/^0x/, ""), " ", h("span", { class: "q" }, `= ${step.table} + ${step.index}×${step.entry.length / 2}`), h("span", { class: "ar" }, "→"), hex(step.entry, step.was)),
      h("span", { class: "ck" }, step.checks.map(([ok, text], i) => h("span", { key: i, class: ok ? "" : "fault" }, mark(ok ? "ok" : "fault", ok ? "" : "fault", ok ? "holds" : "fails"), " ", ok ? text : h("b", null, text), " "))),
    ),
    strip(step.bits),
  );
}

/** @param {string} title @param {{address: string, access: string, user: boolean, turn: number}} query @param {import("../types.js").Ask} ask @param {string} verb @param {string} aside */
export function form(title, query, ask, verb, aside) {
  /** @param {any} event */
  const send = (event) => {
    const box = event.target.closest(".addr");
    ask(verb, { address: box.querySelector("input").value, access: box.querySelectorAll("select")[0].value, user: box.querySelectorAll("select")[1].value === "user" });
  };
  return h(
    "div",
    { class: "addr", key: "form" },
    h("b", null, title),
    h("input", { value: query.address, turn: query.turn, "aria-label": "Guest-virtual address", spellcheck: "false", "data-role": "address", ...says("Address", "Guest-virtual, hexadecimal or a label of the program. Enter walks. Python: vm.walk(…)"), onkeydown: (/** @type {any} */ e) => { if (e.key === "Enter") send(e); } }),
    h("select", { "aria-label": "Access", value: query.access, onchange: send }, h("option", { value: "r" }, "read"), h("option", { value: "w" }, "write"), h("option", { value: "x" }, "fetch")),
    h("select", { "aria-label": "From", value: query.user ? "user" : "supervisor", onchange: send }, h("option", { value: "supervisor" }, "supervisor"), h("option", { value: "user" }, "user")),
    h("button", { type: "button", class: "plain line", "data-verb": "walk", onclick: send }, "Walk"),
    h("span", { class: "q2" }, aside),
  );
}

/** @param {[string, [string, string, string, string][]]} error  its number and, per bit: name, value, why, source */
export function errorCode([sum, rows]) {
  return h(
    "div",
    { class: "errorcode", key: "ec" },
    h("h4", null, "The error code, bit by bit"),
    h("ul", { class: "ec" }, rows.map(([name, value, why]) => h("li", { key: name, "data-error-bit": name }, h("span", null, name), h("b", { class: "v" }, value), h("span", null, why))), h("li", { class: "sum", key: "sum" }, h("span", null, "sum"), h("b", { class: "v fault", "data-role": "error-code" }, sum), h("span", null, rows.filter((r) => r[1] === "1").map((r) => r[0].replace(/^\d+ /, "")).join(" + ") || "no bit set"))),
  );
}
