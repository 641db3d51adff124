// What the guest wrote to its port, and a line to type to it.
import { h, local, render, says } from "../dom.js";
import { one } from "../store.js";

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  const mine = local(root, { seen: "" });
  /** @type {{text: string, cut: boolean, ports: string, input: boolean} | undefined} */
  const out = one(state, "out");
  const text = out?.text ?? "";
  render(
    root,
    h(
      "section",
      { class: "con", role: "region", "aria-label": "Console" },
      h("h3", null, "Console ", h("span", { class: "q" }, out?.ports ?? "")),
      h("pre", { tabindex: "0", "aria-label": "Console output", "data-role": "console", ...says("Console", "What the guest wrote to its port. Python: vm.console") }, out?.cut ? "… " : null, text || h("span", { class: "q" }, out ? "nothing written yet" : "not attached")),
      out?.input
        ? h("input", {
            "aria-label": "Type to the guest", placeholder: "type to the guest, Enter sends",
            onkeydown: (/** @type {any} */ event) => {
              if (event.key === "Enter") {
                ask("type", { text: event.target.value + "\n" });
                event.target.value = "";
              } else if (event.key === "Escape") event.target.blur();
            },
          })
        : null,
    ),
  );
  if (text !== mine.seen) {
    mine.seen = text;
    const pre = root.querySelector("pre");
    if (pre) pre.scrollTop = pre.scrollHeight;
  }
}
