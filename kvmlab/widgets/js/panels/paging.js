// The guest's own tables: a tree that opens on demand, and the walk of an address, bit by bit.
import { h, render, says } from "../dom.js";
import { mark } from "../marks.js";
import { many, one } from "../store.js";
import { errorCode, form, ruler, stepRow } from "./walk.js";

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  /** @type {{address: string, access: string, user: boolean, aside: string, wrong: string, turn: number} | undefined} */
  const query = one(state, "query");
  /** @type {{ok: boolean, text: string, title: string, error: any} | undefined} */
  const result = one(state, "result");
  /** @type {{text: string, button: boolean} | undefined} */
  const blind = one(state, "blind");
  if (blind || !query) return render(root, notHere(blind, ask));
  const nodes = many(state, "node:");
  render(
    root,
    h(
      "div",
      { class: "cols lead-l" },
      h(
        "div",
        null,
        h("h4", null, "The guest’s tables, from its CR3"),
        nodes.length
          ? h(
              "ul",
              { class: "tree", role: "tree", "aria-label": "Guest page tables" },
              nodes.map(([path, node]) =>
                h(
                  "li",
                  {
                    key: path, role: "treeitem", tabindex: "-1", "aria-level": String(node.depth + 1), "aria-expanded": node.leaf ? null : node.open ? "true" : "false", "aria-label": `${node.label} ${node.text}` + (node.changed ? ", changed" : ""), style: `--d:${node.depth}`, class: (node.on ? "on" : "") + (node.changed ? " hit" : ""), "data-node": path, ...says(node.label, node.says),
                    onclick: () => ask(node.leaf ? "walk" : "tree", node.leaf ? { address: node.gva, access: query.access, user: query.user } : { path, open: !node.open }),
                    onkeydown: (/** @type {any} */ e) => {
                      if (e.key === "Enter" || e.key === " ") ask(node.leaf ? "walk" : "tree", node.leaf ? { address: node.gva, access: query.access, user: query.user } : { path, open: !node.open });
                      else if (!node.leaf && ((e.key === "ArrowRight" && !node.open) || (e.key === "ArrowLeft" && node.open))) ask("tree", { path, open: e.key === "ArrowRight" });
                      else return;
                      e.preventDefault();
                      e.stopPropagation();
                    },
                  },
                  h("span", { class: "nd" }, node.leaf ? "·" : node.open ? "▾" : "▸", " ", node.label, node.locked ? mark("locked", "locked", "read-only in the shadow") : null, node.changed ? mark("changed", "changed") : null, h("span", { class: "q" }, node.text)),
                ),
              ),
            )
          : h("p", { class: "q2" }, one(state, "notree")?.text ?? "No tables."),
      ),
      h(
        "div",
        null,
        form("Walk", query, ask, "walk", query.aside),
        query.wrong ? h("p", { class: "verdict", key: "wrong", "data-role": "wrong" }, query.wrong) : null,
        ruler(many(state, "slice:")),
        h("ol", { class: "walk", "data-role": "walk", "aria-label": "The walk, table by table" }, many(state, "step:").map(([id, step]) => stepRow(id, step)),
          result ? h("li", { class: "res" + (result.ok ? "" : " stop"), key: "res", "data-role": "walk-result" }, h("span", { class: "lv" }, result.title), h("span", null, result.text)) : null),
        result?.error ? errorCode(result.error) : null,
      ),
    ),
  );
}

/**
 * What stands where this engine cannot look.
 *
 * @param {{text: string, button: boolean} | undefined} blind
 * @param {import("../types.js").Ask} ask
 */
export function notHere(blind, ask) {
  return h(
    "div",
    { class: "blind", "data-role": "blind" },
    h("p", { class: "q2" }, blind?.text ?? "Nothing to show yet."),
    blind?.button ? h("button", { type: "button", class: "plain line", "data-verb": "soft", ...says("Continue on the soft engine", "A new VM on the soft engine with the same memory and state. Python: vm = vm.on(\"soft\")"), onclick: () => ask("soft") }, "Continue this guest on the soft engine") : null,
  );
}
