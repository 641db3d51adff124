// What just happened and why: first one sentence, then the steps behind it, each of which opens the panel that proves it.
import { h, render, says } from "../dom.js";
import { mark } from "../marks.js";
import { many, one } from "../store.js";
import { phrase } from "../words.js";

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  /** @type {{text: string, cut: number} | undefined} */
  const say = one(state, "say");
  /** @type {{title: string, text: string, trace: string} | undefined} */
  const error = one(state, "error");
  const steps = many(state, "step:");
  const text = say ? say.text : "Nothing is loaded yet.";
  const cut = say ? say.cut : 0;
  render(
    root,
    h(
      "div",
      { class: "say" },
      h("p", { role: "status", "aria-live": "polite", "aria-atomic": "true", "data-role": "sentence" }, cut ? h("b", { key: "head" }, text.slice(0, cut)) : null, phrase(text.slice(cut))),
      error
        ? h(
            "div",
            { class: "error", role: "alert", key: "error", "data-role": "error" },
            mark("fault", "fault"),
            h("div", null, h("b", null, error.title), " ", error.text, error.trace ? h("details", null, h("summary", null, "Where"), h("pre", { tabindex: "0", "aria-label": "Traceback" }, error.trace)) : null),
            h("button", { type: "button", class: "plain", onclick: () => ask("dismiss") }, "Dismiss"),
          )
        : null,
      steps.length
        ? h(
            "ol",
            { class: "story", key: "story", style: `--k:${steps.length}`, "aria-label": "What happened in this stop, in order" },
            steps.map(([id, step], i) =>
              h(
                "li",
                { key: id },
                h(
                  "button",
                  { type: "button", class: step.who, "data-step": id, "aria-current": step.current ? "step" : null, ...says(`${i + 1}. ${step.title}`, step.says), onclick: () => step.panel && ask("view:open", { panel: step.panel, address: step.address ?? null }) },
                  mark(step.mark), h("b", null, step.title), h("span", null, step.text),
                ),
              ),
            ),
          )
        : null,
    ),
  );
}
