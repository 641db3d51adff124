// Moving in time: back, forward, to the next exit, to user space; and what a long run is doing.
import { h, render, says } from "../dom.js";
import { icon } from "../marks.js";
import { one } from "../store.js";

/**
 * @typedef {object} About
 * @property {string[]} can  what Python can do on this VM now; a button whose verb is not here is not drawn
 * @property {string} position  "58" or, inside a handler, "58.3"
 * @property {string} what  "instructions", or why there is no count
 * @property {null | {what: string, instructions: string, exits: string, rate: string, part: number | null}} running
 * @property {[string, string][]} kinds  of exits: name for Python, words for people
 * @property {string} kind  the one chosen
 */

/** Button by verb: label, icon before, icon after, key to press, aria-keyshortcuts, title, explanation. @type {Record<string, [string, string, string, string, string, string, string]>} */
const BUTTONS = {
  step_exit_back: ["Exit", "prev", "", "N", "Shift+N", "Previous exit", "Goes back to the exit before this one. Python: vm.goto(position)"],
  step_event_back: ["Phase", "phaseback", "", "E", "Shift+E", "Previous phase", "Goes back to the event before this one. Python: vm.step_event_back()"],
  step_back: ["Step", "back", "", "S", "Shift+S", "Step back", "Undoes one instruction. Python: vm.step_back()"],
  step: ["Step", "", "step", "s", "S", "Step", "Runs one guest instruction; exits on the way are handled. Python: vm.step()"],
  step_event: ["Phase", "", "phase", "e", "E", "Next phase", "Goes to the next event inside an entry, an exit or a decision of the hypervisor. Python: vm.step_event()"],
  step_exit: ["Next exit", "", "next", "n", "N", "Next exit", "Runs until the processor leaves the guest and the exit is dealt with. Python: vm.step_exit(handled=True)"],
  run: ["To user space", "user", "", "r", "R", "Run to user space", "Runs until KVM_RUN returns: exits that the hypervisor handles alone do not stop it. Python: vm.run()"],
  reset: ["Reset", "reset", "", "", "", "Reset", "Power-on state of the processor; memory stays as it is, and time goes on. Python: vm.reset()"],
};

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  /** @type {About | undefined} */
  const about = one(state, "about");
  if (!about) return render(root);
  /** @type {{python: boolean, help: boolean, dead: boolean}} */
  const view = one(state, "view") ?? { python: false, help: false, dead: false };
  const busy = about.running !== null || view.dead;
  const can = new Set(about.can);

  /** @param {string} verb @param {string} [cls] */
  const button = (verb, cls = "") => {
    if (!can.has(verb)) return null;
    const [label, before, after, key, shortcut, title, text] = BUTTONS[verb];
    return h(
      "button",
      {
        key: verb, class: cls, type: "button", "data-verb": verb, "aria-label": title, "aria-keyshortcuts": shortcut || null, "aria-disabled": busy ? "true" : null,
        ...says(title + (key ? ` (${key})` : ""), text),
        onclick: () => busy || ask(verb, verb === "step_exit" && about.kind ? { kind: about.kind } : {}),
      },
      before ? icon(before) : null, label, after ? icon(after) : null, key ? h("kbd", { "aria-hidden": "true" }, key) : null,
    );
  };
  /** @param {string} label @param {...any} kids */
  const group = (label, ...kids) => (kids.some(Boolean) ? h("span", { class: "seg", role: "group", "aria-label": label, key: label }, kids) : null);

  const kinds = can.has("step_exit") && about.kinds.length
    ? h(
        "select",
        { "aria-label": "Kind of exit to run to", key: "kind", ...says("Kind of exit", "Next exit then skips every other kind. Python: vm.step_exit(kind=…, handled=True)"), value: about.kind, onchange: (/** @type {any} */ event) => { about.kind = event.target.value; /* a click may come before the answer */ ask("kind", { kind: about.kind }); } },
        h("option", { value: "" }, "of any kind"),
        about.kinds.map(([name, words]) => h("option", { value: name, key: name }, words)),
      )
    : null;

  const count = about.running
    ? null
    : h(
        "span",
        { class: "count", key: "count", "data-role": "position", ...says("Position", "Guest instructions completed since the start. Time is this count, so a run always repeats exactly. Python: vm.position") },
        h("b", null, about.position), " ", about.what,
      );
  const progress = about.running
    ? h(
        "span",
        { class: "running", key: "running" },
        h("span", { class: "work", role: "progressbar", "aria-label": about.running.what, "aria-valuetext": `${about.running.instructions} instructions, ${about.running.exits} exits`, "aria-valuenow": about.running.part === null ? null : Math.round(about.running.part * 100), "aria-valuemin": "0", "aria-valuemax": "100" },
          h("i", about.running.part === null ? { class: "any" } : { style: `width:${(about.running.part * 100).toFixed(1)}%` })),
        h("span", { class: "q2" }, h("b", null, about.running.instructions), " instructions, ", h("b", null, about.running.exits), " exits", about.running.rate ? `, ${about.running.rate}` : ""),
        h("button", { class: "halt", type: "button", "data-verb": "stop", "aria-keyshortcuts": "Period", ...says("Stop (.)", "Stops the guest at the next instruction border. Python: vm.stop()"), onclick: () => ask("stop") }, icon("stop"), "Stop", h("kbd", { "aria-hidden": "true" }, ".")),
      )
    : null;

  render(
    root,
    h(
      "div",
      { class: "bar", role: "toolbar", "aria-label": "Move in time" },
      group("Go back", button("step_exit_back"), button("step_event_back"), button("step_back")),
      group("Go forward", button("step"), button("step_event"), button("step_exit", "go"), kinds),
      group("Run", button("run")),
      can.has("reset") ? button("reset", "plain") : null,
      progress, count,
      h(
        "span",
        { class: "tools", key: "tools" },
        h("button", { type: "button", class: "plain", "data-verb": "python", "aria-pressed": view.python ? "true" : "false", ...says("Python", "Shows the line of Python for every click."), onclick: () => ask("view:python") }, "Python"),
        h("button", { type: "button", class: "plain", "data-verb": "help", "aria-pressed": view.help ? "true" : "false", "aria-keyshortcuts": "Shift+?", ...says("Keys (?)", "Lists the keys."), onclick: () => ask("view:help") }, "Keys", h("kbd", { "aria-hidden": "true" }, "?")),
      ),
    ),
  );
}
