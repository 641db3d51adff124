// The instructions around the instruction pointer, in the mode the guest is in, with labels and breakpoints.
import { h, render, says } from "../dom.js";
import { mark } from "../marks.js";
import { many, one } from "../store.js";

/**
 * @typedef {object} Line
 * @property {"label" | "insn" | "bytes"} kind  bytes: what does not decode
 * @property {string} address @property {string} bytes @property {string} op @property {string} args
 * @property {boolean} now @property {boolean} stop  a breakpoint stands here
 * @property {string} why  one line under the current instruction
 * @property {string} source  the line of the program's text
 */

/** @param {Line} line */
const short = (line) => (line.bytes.length > 17 ? line.bytes.slice(0, 17) + " …" : line.bytes);

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  /** @type {{aside: string, empty: string, breakpoints: boolean} | undefined} */
  const head = one(state, "head");
  const lines = many(state, "line:");
  /** @type {any[]} */
  const rows = [];
  for (const [id, content] of lines) {
    /** @type {Line} */
    const line = content;
    if (line.kind === "label") {
      rows.push(h("tr", { class: "lb", role: "row", key: id }, h("td", { role: "presentation" }), h("td", { role: "gridcell", colspan: "3" }, line.op + ":")));
      continue;
    }
    const label = `${line.address}: ${line.op} ${line.args}` + (line.now ? ", current instruction" : "") + (line.stop ? ", breakpoint" : "");
    rows.push(
      h(
        "tr",
        { role: "row", key: id, class: line.now ? "now" : "", "aria-current": line.now ? "step" : null, "data-address": line.address },
        h(
          "td",
          { class: "bp", role: "gridcell" },
          head?.breakpoints && line.kind === "insn"
            ? h("button", { type: "button", tabindex: "-1", "aria-pressed": line.stop ? "true" : "false", "aria-label": `Breakpoint at ${line.address}`, ...says("Breakpoint (b)", `Runs stop before the instruction at ${line.address}. Python: vm.debug(breakpoints=[${line.address}])`), onclick: () => ask("breakpoint", { address: line.address }) }, mark("dot"))
            : null,
        ),
        h("td", { class: "ad", role: "rowheader", tabindex: "-1", "aria-label": label, ...says(`${line.address}`, [line.source && `Source: ${line.source}`, `Bytes ${line.bytes}`].filter(Boolean).join(". ") + ".") }, (line.now ? "▸" : " ") + line.address.slice(2)),
        h("td", { class: "by", role: "gridcell" }, short(line)),
        h("td", { class: "in", role: "gridcell" }, h("span", { class: "op" }, line.op), " ", line.args),
      ),
    );
    if (line.now && line.why) rows.push(h("tr", { class: "why", role: "row", key: "why" }, h("td", { role: "presentation" }), h("td", { role: "gridcell", colspan: "3" }, line.why)));
  }
  render(
    root,
    h(
      "section",
      { class: "code", role: "region", "aria-label": "Code" },
      h("h3", null, "Code", h("span", { class: "aside" }, head?.aside ?? "")),
      rows.length
        ? h("div", { class: "scroll" }, h("table", { role: "grid", "aria-label": "Instructions", "aria-readonly": "true" }, h("tbody", { role: "rowgroup" }, rows)))
        : h("p", { class: "q2 empty" }, head?.empty ?? "No code yet."),
    ),
  );
}
