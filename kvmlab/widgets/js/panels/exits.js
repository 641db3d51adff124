// The list of exits with its sentences; a click shows the state of that moment. And how often, by reason.
import { h, render, says } from "../dom.js";
import { who } from "../marks.js";
import { many, one } from "../store.js";

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  /** @type {{text: string, back: boolean, hidden: string} | undefined} */
  const head = one(state, "head");
  const rows = many(state, "exit:");
  const kinds = many(state, "kind:");
  const most = Math.max(1, ...kinds.map(([, kind]) => kind.count));
  render(
    root,
    h("p", { class: "lead" }, head?.text ?? "No exits yet."),
    rows.length
      ? h(
          "div",
          { class: "cols" },
          h(
            "div",
            { class: "scroll" },
            h(
              "table",
              { role: "grid", "aria-label": "Exits", "aria-readonly": "true" },
              h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ["exit", "position", "reason", "what happened", "handled by", "cost"].map((name) => h("th", { scope: "col", role: "columnheader", key: name }, name)))),
              h(
                "tbody",
                { role: "rowgroup" },
                rows.map(([id, exit]) =>
                  h(
                    "tr",
                    { role: "row", key: id, class: "rule" + (exit.now ? " at" : "") + (exit.ahead ? " ahead" : ""), "data-exit-row": id, "aria-current": exit.now ? "true" : null },
                    h("th", { role: "rowheader", scope: "row" }, head?.back ? h("button", { type: "button", class: "link", tabindex: "-1", "data-goto": id, "aria-label": `Go to exit ${id}`, ...says(`Exit ${id}`, `Shows the state of that moment. Python: vm.goto(${exit.goto})`), onclick: () => ask("goto_exit", { n: Number(id) }) }, `#${id}`) : `#${id}`),
                    h("td", { role: "gridcell" }, h("code", null, exit.position)),
                    h("td", { role: "gridcell", class: "nw" }, h("code", null, exit.reason), " ", exit.name),
                    h("td", { role: "gridcell", class: "tx" }, exit.what),
                    h("td", { role: "gridcell" }, who(exit.to)),
                    h("td", { role: "gridcell", class: "num" }, h("code", null, exit.cost)),
                  ),
                ),
              ),
            ),
            head?.hidden ? h("p", { class: "q" }, head.hidden) : null,
          ),
          h(
            "aside",
            { "aria-label": "Exits by reason" },
            h("h4", null, "Exits so far, by reason"),
            h("div", { class: "hist" }, kinds.map(([id, kind]) => [h("span", { key: id + "n" }, `${kind.reason} ${kind.name}`), h("i", { key: id + "b", class: kind.to === "user" ? "u" : "", style: `width:${((kind.count / most) * 100).toFixed(0)}%` }), h("b", { key: id + "c", class: "mono" }, String(kind.count))])),
            one(state, "rate") ? h("p", { class: "q2 small" }, one(state, "rate").text) : null,
          ),
        )
      : null,
  );
}
