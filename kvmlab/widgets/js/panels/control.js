// The VMCS or the VMCB: every field by group, what changed, what it means; and the checks of the next entry.
import { h, local, render, says } from "../dom.js";
import { hex, spoken } from "../hex.js";
import { mark } from "../marks.js";
import { many, one } from "../store.js";
import { notHere } from "./paging.js";

/**
 * @typedef {object} Field
 * @property {string} name @property {string} code  its encoding or offset
 * @property {string} group @property {string} value  digits
 * @property {string | null} was
 * @property {string} says  what the value means
 * @property {boolean} main  shown even when the group shows only what matters
 * @property {boolean} bad  a check of the next entry fails because of it
 */

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  const mine = local(root, { all: new Set() });
  const blind = one(state, "blind");
  if (blind || !state.items.length) return render(root, notHere(blind, ask));
  /** @type {{lead: string} | undefined} */
  const head = one(state, "head");
  const groups = many(state, "group:");
  /** @type {Field[]} */
  const fields = many(state, "field:").map(([name, field]) => ({ name, ...field }));
  const areas = many(state, "area:");
  /** @type {{text: string, failed: null | {id: string, rule: string, text: string}, what: string} | undefined} */
  const verdict = one(state, "verdict");

  /** @param {Field} f */
  const row = (f) =>
    h(
      "tr",
      { role: "row", key: f.name, class: f.was !== null ? "chg-row" : f.bad ? "bad-row" : "", "data-field": f.name },
      h("td", { role: "gridcell", class: "q" }, h("code", null, f.code)),
      h("th", { role: "rowheader", scope: "row", tabindex: "-1", "aria-label": `${f.name} ${spoken(f.value)}` + (f.was === null ? "" : `, changed, was ${spoken(f.was)}`), ...says(f.name, `${f.says || "No more to say about this value."} Python: vm.${one(state, "head")?.object ?? "vmcs"}["${f.name}"]`) }, f.was !== null ? mark("changed", "changed") : f.bad ? mark("fault", "fault") : null, f.name),
      h("td", { role: "gridcell", class: "nw" }, hex(f.value, f.was)),
      h("td", { role: "gridcell", class: "tx q2" }, f.says, f.was === null ? null : h("span", { class: "q wasin" }, ` was ${spoken(f.was)}`)),
    );
  render(
    root,
    h("p", { class: "lead" }, head?.lead ?? ""),
    h(
      "div",
      { class: "cols wide-r" },
      h(
        "div",
        { class: "vm" },
        groups.map(([name, group]) => {
          const mineAll = fields.filter((f) => f.group === name);
          const all = mine.all.has(name);
          const shown = all ? mineAll : mineAll.filter((f) => f.main || f.was !== null || f.bad);
          const rest = mineAll.length - shown.length;
          return h(
            "details",
            { key: name, open: group.open ? true : null, "data-group": name },
            h("summary", null, h("b", null, group.title), ` ${mineAll.length} fields`, group.changed ? h("span", { class: "n" }, ", ", mark("changed", "changed"), ` ${group.changed} changed`) : null),
            h("div", { class: "scroll" }, h("table", { role: "grid", "aria-label": group.title, "aria-readonly": "true" }, h("tbody", { role: "rowgroup" }, shown.map(row)))),
            rest || all
              ? h("button", { type: "button", class: "plain", onclick: () => { if (!mine.all.delete(name)) mine.all.add(name); draw(root, state, ask); } }, all ? "Show only what matters here" : `Show ${rest} more, unchanged`)
              : null,
          );
        }),
      ),
      areas.length || verdict
        ? h(
            "aside",
            { class: "box", "aria-label": "Checks of the next entry" },
            h("h4", null, verdict?.what ?? "Checks of the next entry"),
            h("p", { class: "small", "data-role": "checks" }, mark(verdict?.failed ? "fault" : "ok", verdict?.failed ? "fault" : ""), " ", verdict?.text ?? ""),
            verdict?.failed ? h("p", { class: "verdict", "data-role": "failed" }, h("b", null, verdict.failed.id), ": ", verdict.failed.rule, verdict.failed.text ? `. ${verdict.failed.text}` : ".") : null,
            h(
              "div",
              { class: "lamps" },
              areas.map(([area, lamps]) => [
                h("span", { class: "dt", key: area + "t", "aria-hidden": "true" }, area),
                h(
                  "div",
                  { key: area, role: "group", "data-rove": "row", "aria-label": `${area}: ${lamps.list.filter((/** @type {any} */ l) => l[1] === "p").length} hold, ${lamps.list.filter((/** @type {any} */ l) => l[1] === "f").length} fail` },
                  lamps.list.map((/** @type {[string, string, string]} */ [id, look, rule]) => {
                    const verdict = look === "p" ? "holds" : look === "f" ? "fails" : "does not apply to this entry";
                    return h("span", { key: id, class: `lamp ${look}`, role: "img", tabindex: "-1", "data-check": id, "aria-label": `${id} ${verdict}. ${rule}`, ...says(`${id}: ${verdict}`, rule) });
                  }),
                ),
              ]),
            ),
          )
        : null,
    ),
  );
}
