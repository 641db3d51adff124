// One view of one widget: keeps the store, draws the panels that changed, and turns clicks and keys into requests.
import { h, render } from "./dom.js";
import { KEYS, verbOf } from "./keys.js";
import { mark } from "./marks.js";
import { PANELS, STAGE } from "./panels.js";
import { move, settle } from "./rove.js";
import { one, Store } from "./store.js";

/**
 * @typedef {import("./types.js").Model} Model
 * @typedef {{python: boolean, help: boolean, tab: string, reading: [string, string], dead: boolean}} Local
 */

const READING = /** @type {[string, string]} */ (["Reading line", "Point at anything, or move to it with Tab, and this line says what it is."]);
/** How long Python may take to answer a view that opens, before the view says that it shows a saved state. */
const SILENCE_MS = 4000;

/**
 * @param {Model} model
 * @param {HTMLElement} el
 * @returns {() => void}  to be called when the view goes away
 */
export function open(model, el) {
  const store = new Store();
  const panel = /** @type {string} */ (model.get("panel"));
  /** @type {Local} */
  const local = { python: false, help: false, tab: "shadow", reading: READING, dead: false };
  const root = document.createElement("div");
  root.className = panel === "bench" ? "kvmlab bench" : "kvmlab single";
  root.dataset.panel = panel;
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", panel === "bench" ? "kvmlab bench" : `kvmlab ${panel}`);
  root.tabIndex = -1;
  el.append(root);
  /** Where each panel draws. @type {Map<string, HTMLElement>} */
  const places = new Map();
  /** Panels of the stage that changed while another was shown. @type {Set<string>} */
  const stale = new Set();
  let asked = 0;

  /** @type {import("./types.js").Ask} */
  const ask = (verb, detail = {}) => {
    if (verb.startsWith("view:")) return here(verb.slice(5), detail);
    if (local.dead) return;
    asked = Math.max(asked + 1, Date.now()); // grows from view to view, so that "answered" never goes back
    root.dataset.asked = String(asked);
    model.send({ ask: verb, detail, id: asked });
  };

  /** What the view does without Python. @param {string} verb @param {Record<string, any>} detail */
  const here = (verb, detail) => {
    if (verb === "python") local.python = !local.python;
    else if (verb === "help") local.help = !local.help;
    else if (verb === "open") {
      local.tab = detail.panel;
      if (detail.address) ask("walk", { address: detail.address, access: detail.access ?? "r", user: false });
    } else if (verb === "address") {
      if (panel === "bench" && local.tab !== "paging" && local.tab !== "shadow") local.tab = "paging";
      frame();
      const field = /** @type {HTMLInputElement | null} */ (places.get(panel === "bench" ? local.tab : panel)?.querySelector('[data-role="address"]') ?? null);
      field?.focus();
      field?.select();
      return;
    } else if (verb === "breakpoint") {
      const line = document.activeElement?.closest("[data-address]") ?? root.querySelector('.code [aria-current="step"]');
      if (line && root.contains(line)) ask("breakpoint", { address: line.getAttribute("data-address") });
      return;
    }
    frame();
  };

  /** @param {string} name */
  const stateOf = (name) => {
    const state = store.panel(name);
    return name === "toolbar" ? { items: [...state.items, /** @type {[string, any]} */ (["view", { python: local.python, help: local.help, dead: local.dead }])], bytes: state.bytes } : state;
  };

  /** @param {string} name */
  const drawPanel = (name) => {
    const place = places.get(name);
    if (!place) return;
    if (STAGE.includes(name) && panel === "bench" && local.tab !== name) {
      stale.add(name);
      return;
    }
    stale.delete(name);
    PANELS[name](place, stateOf(name), ask);
  };

  /** The furniture: places for the panels, tabs, reading line. */
  const frame = () => {
    const info = store.panel("bench");
    /** @type {{name: string, control: string, lines: string[], saved: string, counts: [string, number][]} | undefined} */
    const about = one(info, "about");
    const counts = new Map(about?.counts ?? []);
    /** @param {string} name @param {string} [cls] */
    const place = (name, cls = "") => h("div", { class: `place ${cls}`, key: name, "data-place": name });
    /** @type {Record<string, string>} */
    const titles = { shadow: "Shadow", paging: "Paging", control: about?.control || "VMCS", segments: "Segments", exits: "Exits" };
    const tabs = STAGE.filter((name) => store.panel(name).items.length > 0);
    if (tabs.length && !tabs.includes(local.tab)) local.tab = tabs[0];
    const drawer = local.python
      ? h("div", { class: "py", key: "py", "data-role": "python" }, h("b", null, "Python"), h("pre", { tabindex: "0", "aria-label": "Python of the last clicks" }, (about?.lines ?? []).join("\n") || "Click something: its line of Python appears here."))
      : null;
    const help = local.help
      ? h("div", { class: "help", key: "help", "data-role": "help" }, h("h3", null, "Keys"), h("dl", null, KEYS.map(([key, , text]) => h("div", { key }, h("dt", null, h("kbd", null, key)), h("dd", null, text)))), h("p", { class: "q2" }, "Tab moves on, arrow keys move inside a table, Escape leaves the console and the field."))
      : null;
    const saved = local.dead ? h("p", { class: "saved", key: "saved", "data-role": "saved" }, mark("cr", "hw"), " This is the stop that was saved. No kernel answers: run the cell to go on.") : null;
    const reading = h("div", { class: "read", key: "read", "aria-hidden": "true", "data-role": "reading" });
    if (panel !== "bench") {
      render(root, saved, panel === "toolbar" || panel === "sentence" ? null : place("sentence", "quiet"), place(panel, "pane"), drawer, reading);
    } else {
      render(
        root,
        place("toolbar"), saved, help, place("sentence"), drawer,
        h(
          "div",
          { class: "frame", key: "frame" },
          place("world"), place("timeline"), place("code"), place("registers"),
          tabs.length
            ? h(
                "section",
                { class: "stage", key: "stage", "aria-label": "Details" },
                h("div", { class: "tabs", role: "tablist", "aria-label": "Details" },
                  tabs.map((name) => h("button", { key: name, type: "button", role: "tab", id: `${id}-t-${name}`, "aria-controls": `${id}-p-${name}`, "aria-selected": local.tab === name ? "true" : "false", tabindex: "-1", "data-tab": name, onclick: () => here("open", { panel: name }) }, titles[name], counts.get(name) ? h("span", { class: "n", "aria-label": `${counts.get(name)} changed` }, mark("changed"), String(counts.get(name))) : null))),
                tabs.map((name) => h("div", { key: name, class: "pane place", role: "tabpanel", id: `${id}-p-${name}`, "aria-labelledby": `${id}-t-${name}`, hidden: local.tab !== name, "data-place": name })),
              )
            : null,
          place("console"),
        ),
        reading,
      );
    }
    places.clear();
    for (const at of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-place]"))) places.set(at.dataset.place ?? "", at);
    if (stale.has(local.tab)) drawPanel(local.tab);
    drawPanel("toolbar");
    tell();
    settle(root);
  };
  const id = "kv" + Math.random().toString(36).slice(2, 8);

  /** @param {Set<string>} changed */
  const show = (changed) => {
    const first = places.size === 0;
    frame();
    for (const name of first ? places.keys() : changed) drawPanel(name);
    settle(root);
    const about = one(store.panel("bench"), "about");
    root.dataset.seq = String(store.seq);
    root.dataset.running = one(store.panel("toolbar"), "about")?.running ? "true" : "false";
    if (about) {
      root.setAttribute("aria-label", panel === "bench" ? about.name : `${about.name}: ${panel}`);
      root.dataset.answered = String(about.answered ?? 0);
    }
  };

  /** @param {import("./types.js").Message} message @param {DataView[]} buffers */
  const onMessage = (message, buffers) => {
    if (message.kind !== "full" && message.kind !== "delta") return;
    clearTimeout(silence);
    const revived = local.dead;
    local.dead = false;
    const changed = store.take(message, buffers ?? []);
    if (changed === null) model.send({ ask: "open", detail: {}, id: 0 });
    else if (changed.size || revived) show(changed);
  };
  const silence = setTimeout(() => {
    local.dead = true;
    frame();
  }, SILENCE_MS);

  const tell = () => {
    const line = /** @type {HTMLElement | null} */ (root.querySelector(":scope > .read"));
    if (line) render(line, h("b", null, local.reading[0]), " ", local.reading[1]);
  };
  /** @param {Event} event */
  const read = (event) => {
    const at = /** @type {Element | null} */ (event.target)?.closest?.("[data-i]");
    if (!at || !root.contains(at)) return;
    const [title, ...text] = (at.getAttribute("data-i") ?? "").split("|");
    local.reading = [title, text.join("|")];
    tell();
  };
  /** @param {Event} event */
  const tie = (event) => {
    const at = /** @type {Element | null} */ (event.target)?.closest?.("[data-l]");
    if (at) for (const other of root.querySelectorAll(`[data-l="${at.getAttribute("data-l")}"]`)) other.classList.toggle("tie", event.type === "pointerover");
  };
  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    if (event.key === "Tab" || event.key === "Escape") return;
    event.stopPropagation(); // JupyterLab would edit the notebook
    if (move(event)) return;
    const verb = verbOf(event);
    if (!verb) return;
    event.preventDefault();
    if (verb.startsWith("view:")) return here(verb.slice(5), {});
    const bar = one(store.panel("toolbar"), "about");
    if (!bar) return;
    if (bar.running ? verb === "stop" : bar.can.includes(verb)) ask(verb, verb === "step_exit" && bar.kind ? { kind: bar.kind } : {});
  };
  root.addEventListener("keydown", onKey);
  root.addEventListener("pointerover", read);
  root.addEventListener("focusin", read);
  root.addEventListener("pointerover", tie);
  root.addEventListener("pointerout", tie);
  let width = 0;
  const watch = new ResizeObserver(() => {
    if (Math.abs(root.clientWidth - width) < 8) return;
    width = root.clientWidth;
    drawPanel("timeline");
    settle(root);
  });
  watch.observe(root);

  model.on("msg:custom", onMessage);
  const snapshot = model.get("snapshot");
  if (Array.isArray(snapshot) && snapshot.length === 2) {
    // what was saved with the notebook, until Python answers
    for (const [name, items] of snapshot[1]) store.panels.set(name, { items, bytes: new Uint8Array(0) });
    const lanes = one(store.panel("bench"), "lanes");
    if (lanes) store.panel("timeline").bytes = Uint8Array.from(atob(lanes), (c) => c.charCodeAt(0));
  }
  show(new Set());
  model.send({ ask: "open", detail: {}, id: 0 });
  return () => {
    clearTimeout(silence);
    watch.disconnect();
    model.off("msg:custom", onMessage);
    root.remove();
  };
}
