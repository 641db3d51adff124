// The selector is what the guest sees; the hidden part is what the processor uses. Each row opens its hidden part.
import { h, local, render, says } from "../dom.js";
import { hex, spoken, strip } from "../hex.js";
import { mark } from "../marks.js";
import { many, one } from "../store.js";

/**
 * @typedef {object} Segment
 * @property {string} selector @property {string} base @property {string} limit @property {string} rights  digits
 * @property {Record<string, string>} was  the same before, for the parts that changed
 * @property {string} type  in words
 * @property {string} visible  the selector, taken apart
 * @property {[string, number, string, boolean, boolean][]} bits  of the access rights
 * @property {[number, number]} span  start and length, parts of 1 of the address space shown
 * @property {string} scope  what the bar spans
 * @property {string} says  one sentence
 * @property {string} refused  the rule that this hidden part breaks, empty where none
 */

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  const mine = local(root, { open: new Set() });
  const segments = many(state, "seg:");
  const tables = many(state, "table:");
  /** @type {{lead: string} | undefined} */
  const head = one(state, "head");
  const again = () => draw(root, state, ask);
  /** @param {string} name */
  const toggle = (name) => {
    if (!mine.open.delete(name)) mine.open.add(name);
    again();
  };
  /** @type {any[]} */
  const rows = [];
  for (const [name, content] of segments) {
    /** @type {Segment} */
    const s = content;
    const open = mine.open.has(name);
    const changed = Object.keys(s.was).length > 0;
    rows.push(
      h(
        "tr",
        { role: "row", key: name, class: "rule" + (changed ? " chg-row" : "") + (s.refused ? " bad-row" : ""), "data-seg": name },
        h("th", { role: "rowheader", scope: "row" }, changed ? mark("changed", "changed") : s.refused ? mark("fault", "fault") : null, name),
        h("td", { role: "gridcell" }, hex(s.selector, s.was.selector), s.was.selector === undefined ? null : h("span", { class: "wasin" }, " was ", h("code", null, s.was.selector))),
        h("td", { role: "gridcell", class: "q2" }, s.visible),
        h("td", { role: "gridcell" }, s.type),
        h("td", { role: "gridcell", class: "num" }, h("button", { type: "button", class: "link", tabindex: "-1", "aria-expanded": open ? "true" : "false", "data-open": name, "aria-label": `Hidden part of ${name}`, ...says(`Hidden part of ${name}`, s.says), onclick: () => toggle(name) }, open ? "▾ close" : "▸ hidden part")),
      ),
    );
    if (!open) continue;
    rows.push(
      h(
        "tr",
        { role: "row", key: name + ":hidden", class: "hidden", "data-hidden": name },
        h("td", { role: "presentation" }),
        h(
          "td",
          { role: "gridcell", colspan: "4" },
          h("div", { class: "parts" },
            ["base", "limit", "rights"].map((part) => {
              const value = /** @type {any} */ (s)[part];
              const was = s.was[part];
              return h("span", { key: part, class: was === undefined ? "" : "chd", "data-part": part }, h("small", null, part), hex(value, was), was === undefined ? null : h("small", { class: "wasin" }, "was " + spoken(was)));
            }),
            strip(s.bits),
          ),
          h("div", { class: "span", role: "img", "aria-label": `From base to limit, of ${s.scope}` }, s.span[1] > 0 ? h("i", { style: `left:${s.span[0] * 100}%;width:${s.span[1] * 100}%` }) : null),
          h("p", { class: "q2" }, s.says, " ", h("span", { class: "q" }, `The bar is ${s.scope}.`)),
          s.refused ? h("p", { class: "verdict" }, s.refused) : null,
        ),
      ),
    );
  }
  render(
    root,
    h("p", { class: "lead" }, head?.lead ?? ""),
    segments.length
      ? [
          h("div", { class: "scroll" }, h("table", { role: "grid", "aria-label": "Segments", "aria-readonly": "true" },
            h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ["", "selector", "taken apart", "type", ""].map((name, i) => (name ? h("th", { scope: "col", role: "columnheader", key: name }, name) : h("td", { role: "presentation", key: i }))))),
            h("tbody", { role: "rowgroup" }, rows))),
          h("p", { class: "tail" },
            h("button", { type: "button", class: "plain line", "data-open": "all", onclick: () => { if (mine.open.size) mine.open.clear(); else for (const [name] of segments) mine.open.add(name); again(); } }, mine.open.size ? "Close all hidden parts" : "Open all hidden parts")),
        ]
      : null,
    tables.map(([name, table]) =>
      h(
        "details",
        { key: name, "data-table": name },
        h("summary", null, h("b", null, name.toUpperCase()), ` base ${table.base}, limit ${table.limit}: ${table.says}`),
        table.rows.length
          ? h("div", { class: "scroll" }, h("table", { "aria-label": name },
              h("thead", null, h("tr", null, ["entry", "bytes", "what it is"].map((title) => h("th", { scope: "col", key: title }, title)))),
              h("tbody", null, table.rows.map((/** @type {[string, string, string]} */ [index, bytes, what]) => h("tr", { key: index }, h("th", { scope: "row" }, index), h("td", null, h("code", null, bytes)), h("td", null, what))))))
          : null,
      ),
    ),
  );
}
