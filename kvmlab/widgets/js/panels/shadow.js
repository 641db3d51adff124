// The guest's tables and those the processor really walks, side by side, for one address; and all shadow pages.
import { h, render, says } from "../dom.js";
import { hex, strip } from "../hex.js";
import { mark } from "../marks.js";
import { many, one } from "../store.js";
import { notHere } from "./paging.js";
import { form } from "./walk.js";

/** @param {any} card @param {"g" | "s"} side */
function cardOf(card, side) {
  return h(
    "div",
    { class: "card " + side + (card.ok === false ? " ends" : ""), "data-card": side + ":" + card.level, ...says(card.title, card.says) },
    h("div", { class: "hd" }, h("b", null, card.name), h("span", { class: "mono" }, card.where), card.aside ? h("span", null, card.aside) : null, card.locked ? h("span", { class: "who locked" }, mark("locked"), "read-only") : card.present ? h("span", null, card.present) : null),
    h(
      "div",
      { class: "e" + (card.fresh ? " new" : "") + (card.gone ? " gone" : "") },
      h("span", { class: "ix" }, `[${card.index}]`), hex(card.entry, card.was), strip(card.bits),
      card.fresh ? h("span", { class: "tag" }, mark("changed"), card.fresh) : null,
    ),
  );
}

/** @param {boolean} both */
const link = (both) =>
  h("svg", { class: "lk", viewBox: "0 0 56 22", "aria-hidden": "true", preserveAspectRatio: "none" }, both ? [h("path", { d: "M0 11H46" }), h("path", { class: "hd", d: "M46 6 56 11 46 16z" })] : null);

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  /** @type {any} */
  const query = one(state, "query");
  const blind = one(state, "blind");
  if (blind || !query) return render(root, notHere(blind, ask));
  const pairs = many(state, "pair:");
  const pages = many(state, "page:");
  /** @type {{text: string, used: number, total: number, fills: number, zaps: number} | undefined} */
  const use = one(state, "use");
  const chain = many(state, "chain:");
  const notes = many(state, "note:");
  const events = many(state, "event:");
  render(
    root,
    form("Address", query, ask, "walk", query.aside),
    query.wrong ? h("p", { class: "verdict", key: "wrong", "data-role": "wrong" }, query.wrong) : null,
    chain.length
      ? h("p", { class: "chain", key: "chain" }, chain.map(([id, link]) => [link.by ? h("i", { key: id + "by" }, link.by + " →") : null, h("span", { key: id, class: link.who, "data-chain": id, ...says(link.name, link.says) }, h("small", null, link.name), h("code", null, link.value))]), h("em", null, one(state, "verdict")?.text ?? ""))
      : null,
    h(
      "div",
      { class: "cols" },
      h(
        "div",
        null,
        h("div", { class: "pairs" }, h("h4", { key: "gh" }, "Guest tables: virtual → guest-physical"), h("span", { key: "sp" }), h("h4", { key: "sh" }, "Shadow tables: virtual → host-physical"),
          pairs.map(([id, pair]) => [
            pair.guest ? h("div", { key: id + "g", class: "cell" }, cardOf(pair.guest, "g")) : h("div", { key: id + "g", class: "cell none" }, pair.noguest),
            h("div", { key: id + "l", class: "cell" }, link(Boolean(pair.guest && pair.shadow))),
            pair.shadow ? h("div", { key: id + "s", class: "cell" }, cardOf(pair.shadow, "s")) : h("div", { key: id + "s", class: "cell none" }, pair.noshadow),
          ])),
        h("h4", { class: "gap", key: "evh" }, "Since the last stop"),
        events.length
          ? h("ul", { class: "events", "data-role": "shadow-events" }, events.map(([id, event]) => h("li", { key: id, class: event.kind, "data-event": event.kind }, mark(event.mark, event.mark === "fill" || event.mark === "fillro" || event.mark === "zap" ? "hv" : event.mark), " ", event.text)))
          : h("p", { class: "q2", "data-role": "shadow-events" }, "No entry made, none thrown away."),
      ),
      h(
        "aside",
        { "aria-label": "Shadow pages" },
        h("h4", null, use?.text ?? "Shadow pages"),
        use ? h("div", { class: "gauge", role: "img", "aria-label": use.text }, h("i", { style: `width:${((use.used / Math.max(1, use.total)) * 100).toFixed(1)}%` })) : null,
        pages.length
          ? h("div", { class: "scroll tall" }, h("table", { role: "grid", "aria-label": "Shadow pages", "aria-readonly": "true" },
              h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ["gfn", "role", "page", "present"].map((name) => h("th", { key: name, scope: "col", role: "columnheader", class: name === "present" ? "num" : "" }, name)))),
              h("tbody", { role: "rowgroup" }, pages.map(([id, page]) =>
                h("tr", { role: "row", key: id, class: page.fresh || page.gone ? "chg-row" : "", "data-page": id },
                  h("th", { role: "rowheader", scope: "row", tabindex: "-1", ...says(page.title, page.says) }, page.gfn),
                  h("td", { role: "gridcell" }, h("code", null, page.role)), h("td", { role: "gridcell" }, page.name),
                  h("td", { role: "gridcell", class: "num" }, page.fresh ? mark("changed", "changed", "changed") : null, " ", page.present))))))
          : h("p", { class: "q2" }, "No shadow pages yet."),
        notes.map(([id, note]) => [h("h4", { key: id + "h", class: "gap" }, note.title), h("p", { key: id, class: "small", "data-note": id }, note.mark ? mark(note.mark, note.mark === "ok" ? "" : note.mark) : null, " ", note.text)]),
      ),
    ),
  );
}
