// Made by kvmlab/widgets/bundle.py from the modules under kvmlab/widgets/js: change those.

// ---- dom.js
const $m0 = (() => {
const SVG = "http://www.w3.org/2000/svg";


const drawn = new WeakMap();

function flat(kids, into = []) {
  for (const kid of kids) {
    if (kid === null || kid === undefined || kid === false || kid === "") continue;
    if (Array.isArray(kid)) flat(kid, into);
    else if (typeof kid === "object") into.push(kid);
    else into.push({ tag: "#", attrs: {}, kids: [], text: String(kid), key: undefined, el: null });
  }
  return into;
}

function h(tag, attrs, ...kids) {
  const { key, ...rest } = attrs ?? {};
  return { tag, attrs: rest, kids: flat(kids), text: "", key: key === undefined ? undefined : String(key), el: null };
}

function set(el, name, value) {
  if (name.startsWith("on")) {
    /** @type {any} */ (el)[name] = value ?? null;
  } else if (name === "value" || name === "checked" || name === "hidden") {
    /** @type {any} */ (el)[name] = value ?? (name === "value" ? "" : false);
  } else if (name === "turn") {
    return;
  } else if (value === null || value === undefined || value === false) {
    el.removeAttribute(name);
  } else {
    el.setAttribute(name, value === true ? "" : String(value));
  }
}

function create(node, svg) {
  if (node.tag === "#") return (node.el = document.createTextNode(node.text));
  const inside = svg || node.tag === "svg";
  const el = inside ? document.createElementNS(SVG, node.tag) : document.createElement(node.tag);
  const { value, ...attrs } = node.attrs;
  for (const name in attrs) set(el, name, attrs[name]);
  for (const kid of node.kids) el.append(create(kid, inside));
  if (value !== undefined) set(el, "value", value); // after the options of a select exist
  return (node.el = el);
}

function update(old, next) {
  const el = /** @type {Element} */ (old.el);
  next.el = el;
  if (next.tag === "#") {
    if (old.text !== next.text) /** @type {any} */ (el).data = next.text;
    return;
  }
  for (const name in old.attrs) if (!(name in next.attrs)) set(el, name, undefined);
  patch(el, old.kids, next.kids);
  const again = old.attrs.turn !== next.attrs.turn;
  for (const name in next.attrs) {
    if (old.attrs[name] !== next.attrs[name] || (again && name === "value")) set(el, name, next.attrs[name]);
  }
}

function patch(parent, old, next) {
  const keyed = new Map();
  const loose = [];
  for (const node of old) {
    if (node.key === undefined) loose.push(node);
    else keyed.set(node.key, node);
  }
  let at = 0;
  const pairs = next.map((node) => {
    let match;
    if (node.key !== undefined) {
      match = keyed.get(node.key);
      if (match && match.tag === node.tag) keyed.delete(node.key);
      else match = undefined;
    } else if (at < loose.length && loose[at].tag === node.tag) match = loose[at++];
    return /** @type {const} */ ([node, match]);
  });
  for (const node of [...keyed.values(), ...loose.slice(at)]) /** @type {ChildNode} */ (node.el).remove();
  const svg = parent.namespaceURI === SVG;
  let cursor = parent.firstChild;
  for (const [node, match] of pairs) {
    if (match) update(match, node);
    const el = match ? /** @type {Node} */ (node.el) : create(node, svg);
    if (el === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(el, cursor);
  }
}

function render(root, ...kids) {
  const next = flat(kids);
  const focused = /** @type {Document} */ (root.getRootNode()).activeElement;
  patch(root, drawn.get(root) ?? [], next);
  drawn.set(root, next);
  if (focused instanceof HTMLElement && focused !== document.activeElement && root.contains(focused)) {
    focused.focus({ preventScroll: true });
  }
}

const locals = new WeakMap();

function local(root, initial) {
  let mine = locals.get(root);
  if (!mine) locals.set(root, (mine = { ...initial }));
  return /** @type {T} */ (mine);
}

const says = (title, text) => ({ "data-i": title + "|" + text });
return { h, render, local, says };
})();

// ---- keys.js
const $m1 = (() => {
const KEYS = [
  ["s", "step", "step one instruction"],
  ["S", "step_back", "step back"],
  ["e", "step_event", "next phase of an entry, an exit or a decision"],
  ["E", "step_event_back", "previous phase"],
  ["n", "step_exit", "run to the next exit"],
  ["N", "step_exit_back", "back to the exit before"],
  ["r", "run", "run to user space"],
  [".", "stop", "stop a running guest"],
  ["b", "view:breakpoint", "breakpoint on the line in focus, else on the current one"],
  ["g", "view:address", "go to the address field"],
  ["[", "earlier", "one exit earlier on the timeline"],
  ["]", "later", "one exit later on the timeline"],
  ["?", "view:help", "this list"],
];

const TEXT = 'input:not([type="range"]), textarea, select, [contenteditable="true"]';

function verbOf(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return "";
  const target = /** @type {Element | null} */ (event.target);
  if (target?.closest(TEXT) || target?.closest(".con")) return "";
  return KEYS.find(([key]) => key === event.key)?.[1] ?? "";
}
return { KEYS, verbOf };
})();

// ---- marks.js
const $m2 = (() => {
const { h } = $m0;

const SHAPES = {
  guest: [["circle", { cx: "6", cy: "6", r: "4.2", fill: "none", stroke: "currentColor", "stroke-width": "1.8" }]],
  hv: [line("M2 2v8M10 2v8M2 6h8", 1.8)],
  user: [line("M2.2 1.5v5a3.8 3.8 0 0 0 7.6 0v-5", 1.8)],
  hw: [solid("M7.2.8 2.4 7h3.2L4.8 11.2 9.6 5H6.4z")],
  fault: [line("M2.2 2.2l7.6 7.6M9.8 2.2 2.2 9.8", 2)],
  changed: [solid("M6 1.4 11 10.4H1z")],
  dirty: [solid("M6 1 11 6 6 11 1 6z")],
  locked: [line("M3.6 5.2V3.9a2.4 2.4 0 0 1 4.8 0v1.3", 1.5), solid("M2.2 5.2h7.6v5.6H2.2z")],
  fill: [solid("M1.6 1.6h8.8v8.8H1.6z")],
  fillro: [line("M2 2h8v8H2z", 1.6)],
  zap: [line("M2 2h8v8H2zM2 10 10 2", 1.4)],
  ok: [line("M2 6.4 4.8 9.2 10 2.8", 1.8)],
  cr: [line("M9.5 3.2A4 4 0 1 0 9.5 8.8", 1.8)],
  irq: [line("M6 1v6M2.5 4.5 6 8l3.5-3.5M2 11h8", 1.7)],
  dot: [["circle", { cx: "6", cy: "6", r: "4.5", fill: "currentColor" }]],
};

const ICONS = {
  prev: "M6.5 3 2.5 7l4 4M12 3 8 7l4 4",
  back: "M9 3 5 7l4 4",
  step: "M5 3l4 4-4 4",
  next: "M7.5 3l4 4-4 4M2 3l4 4-4 4",
  user: "M3 11h8M7 9V2M4 5l3-3 3 3",
  reset: "M3.2 4.8A4.6 4.6 0 1 1 2.4 8M3 2v3h3",
  stop: "M3.5 3.5h7v7h-7z",
  phase: "M3 7h4M9.5 4.5 12 7l-2.5 2.5M3 4v6",
  phaseback: "M11 7H7M4.5 4.5 2 7l2.5 2.5M11 4v6",
};

function line(d, width) {
  return ["path", { d, fill: "none", stroke: "currentColor", "stroke-width": String(width) }];
}

function solid(d) {
  return ["path", { d, fill: "currentColor" }];
}

function mark(kind, cls = "", label = "") {
  const shapes = SHAPES[kind] ?? SHAPES.dot;
  return h(
    "svg",
    { class: `m m-${kind} ${cls}`, viewBox: "0 0 12 12", ...(label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" }) },
    shapes.map(([tag, attrs]) => h(tag, attrs)),
  );
}

function icon(kind) {
  return h(
    "svg",
    { viewBox: "0 0 14 14", "aria-hidden": "true" },
    h("path", { d: ICONS[kind], fill: "none", stroke: "currentColor", "stroke-width": "1.7", "stroke-linejoin": "round", "stroke-linecap": "round" }),
  );
}

const WHO = { guest: "guest", hv: "hypervisor", user: "user space", hw: "processor" };

function who(kind, text = WHO[kind]) {
  return h("span", { class: `who ${kind}` }, mark(kind), text);
}
return { mark, icon, WHO, who };
})();

// ---- store.js
const $m3 = (() => {
class Store {
  constructor() {
    this.panels = new Map();
    this.seq = -1;
  }

  panel(name) {
    return this.panels.get(name) ?? { items: [], bytes: new Uint8Array(0) };
  }

  take(message, buffers) {
    if (message.kind === "full") {
      if (message.seq < this.seq) return new Set(); // an answer overtaken by what came after it
      const changed = new Set([...this.panels.keys(), ...message.panels.map(([name]) => name)]);
      this.seq = message.seq;
      this.panels = new Map(message.panels.map(([name, items]) => [name, { items, bytes: new Uint8Array(0) }]));
      for (const [name, index] of message.bytes) this.panel(name).bytes = bytesOf(buffers[index]);
      return changed;
    }
    if (message.seq <= this.seq) return new Set(); // a full snapshot has it already
    if (message.seq !== this.seq + 1) return null;
    this.seq = message.seq;
    const changed = new Set();
    for (const [name, items, order] of message.changes) {
      this.panels.set(name, { items: merge(this.panel(name).items, items, order), bytes: this.panel(name).bytes });
      changed.add(name);
    }
    for (const [name, offset, index] of message.bytes) {
      const { items, bytes } = this.panel(name);
      const more = bytesOf(buffers[index]);
      const joined = new Uint8Array(offset + more.length);
      joined.set(bytes.subarray(0, offset));
      joined.set(more, offset);
      this.panels.set(name, { items, bytes: joined });
      changed.add(name);
    }
    return changed;
  }
}

const bytesOf = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

function merge(old, changed, order) {
  const contents = new Map(old);
  for (const [id, content] of changed) contents.set(id, content);
  return (order ?? old.map(([id]) => id)).map((id) => [id, contents.get(id)]);
}

function one(state, id) {
  for (const item of state.items) if (item[0] === id) return item[1];
  return undefined;
}

function many(state, prefix) {
  const found = [];
  for (const [id, content] of state.items) if (id.startsWith(prefix)) found.push([id.slice(prefix.length), content]);
  return found;
}
return { Store, merge, one, many };
})();

// ---- panels/code.js
const $m4 = (() => {
const { h, render, says } = $m0;
const { mark } = $m2;
const { many, one } = $m3;


const short = (line) => (line.bytes.length > 17 ? line.bytes.slice(0, 17) + " …" : line.bytes);

function draw(root, state, ask) {
  const head = one(state, "head");
  const lines = many(state, "line:");
  const rows = [];
  for (const [id, content] of lines) {
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
return { draw };
})();

// ---- panels/console.js
const $m5 = (() => {
const { h, local, render, says } = $m0;
const { one } = $m3;

function draw(root, state, ask) {
  const mine = local(root, { seen: "" });
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
return { draw };
})();

// ---- hex.js
const $m6 = (() => {
const { h, says } = $m0;

function runs(digits, was = digits) {
  const old = was.padStart(digits.length, "0").slice(-digits.length);
  let quiet = /^0*/.exec(digits)?.[0].length ?? 0;
  if (quiet === digits.length) quiet -= 1;
  const groups = [];
  const first = digits.length % 4 || 4;
  for (let from = 0, to = first; from < digits.length; from = to, to += 4) {
    const group = [];
    for (let i = from; i < to; i++) {
      const look = digits[i] !== old[i] ? "new" : i < quiet ? "zero" : "";
      const last = group[group.length - 1];
      if (last && last.look === look) last.text += digits[i];
      else group.push({ text: digits[i], look });
    }
    groups.push(group);
  }
  return groups;
}

function hex(digits, was) {
  return h(
    "span",
    { class: "hex" },
    runs(digits, was ?? digits).map((group) =>
      h("i", null, group.map((run) => (run.look === "new" ? h("u", null, run.text) : run.look === "zero" ? h("s", null, run.text) : run.text))),
    ),
  );
}

const spoken = (digits) => "0x" + digits.replace(/^0+(?=.)/, "");

function strip(bits) {
  return h(
    "span",
    { class: "bits", role: "img", "aria-label": bits.map(([name, on]) => `${name} ${on}`).join(", ") },
    bits.map(([name, on, text, changed, failed]) =>
      h(
        "span",
        { key: name, class: "b" + (on ? " on" : "") + (changed ? " chg" : "") + (failed ? " bad" : ""), ...says(`${name} = ${on}` + (changed ? ", changed" : "") + (failed ? ", the check that failed" : ""), text) },
        h("b", null, name),
        h("em", null, String(on)),
      ),
    ),
  );
}
return { runs, hex, spoken, strip };
})();

// ---- panels/walk.js
const $m7 = (() => {
const { h, says } = $m0;
const { hex, strip } = $m6;
const { mark } = $m2;


function ruler(slices) {
  if (!slices.length) return null; // without paging no bit of the address is an index
  return h(
    "div",
    { class: "ruler", role: "img", "aria-label": slices.map(([, s]) => `bits ${s.range}: ${s.name} ${s.value}`).join("; "), style: `--k:${slices.length}` },
    slices.map(([id, s]) => h("span", { key: id, class: s.name === "sign" || s.name === "unused" ? "" : "g", "data-l": "w-" + s.name, ...says(`Bits ${s.range}, ${s.name}`, `${s.bits.replace(/ /g, "")} is ${s.value}.`) }, h("small", null, s.range), h("code", null, s.bits), h("small", null, s.name + " ", h("b", null, s.value)))),
  );
}

function stepRow(id, step) {
  return h(
    "li",
    { key: id, class: step.ok ? "" : "stop", "data-l": "w-" + step.level, "data-level": step.level, "data-ok": step.ok ? "true" : "false" },
    h("span", { class: "lv" }, step.level),
    h(
      "div",
      null,
      h("span", { class: "mono" }, step.at.replace(/^0x/, ""), " ", h("span", { class: "q" }, `= ${step.table} + ${step.index}×${step.entry.length / 2}`), h("span", { class: "ar" }, "→"), hex(step.entry, step.was)),
      h("span", { class: "ck" }, step.checks.map(([ok, text], i) => h("span", { key: i, class: ok ? "" : "fault" }, mark(ok ? "ok" : "fault", ok ? "" : "fault", ok ? "holds" : "fails"), " ", ok ? text : h("b", null, text), " "))),
    ),
    strip(step.bits),
  );
}

function form(title, query, ask, verb, aside) {
  const send = (event) => {
    const box = event.target.closest(".addr");
    ask(verb, { address: box.querySelector("input").value, access: box.querySelectorAll("select")[0].value, user: box.querySelectorAll("select")[1].value === "user" });
  };
  return h(
    "div",
    { class: "addr", key: "form" },
    h("b", null, title),
    h("input", { value: query.address, turn: query.turn, "aria-label": "Guest-virtual address", spellcheck: "false", "data-role": "address", ...says("Address", "Guest-virtual, hexadecimal or a label of the program. Enter walks. Python: vm.walk(…)"), onkeydown: (/** @type {any} */ e) => { if (e.key === "Enter") send(e); } }),
    h("select", { "aria-label": "Access", value: query.access, onchange: send }, h("option", { value: "r" }, "read"), h("option", { value: "w" }, "write"), h("option", { value: "x" }, "fetch")),
    h("select", { "aria-label": "From", value: query.user ? "user" : "supervisor", onchange: send }, h("option", { value: "supervisor" }, "supervisor"), h("option", { value: "user" }, "user")),
    h("button", { type: "button", class: "plain line", "data-verb": "walk", onclick: send }, "Walk"),
    h("span", { class: "q2" }, aside),
  );
}

function errorCode([sum, rows]) {
  return h(
    "div",
    { class: "errorcode", key: "ec" },
    h("h4", null, "The error code, bit by bit"),
    h("ul", { class: "ec" }, rows.map(([name, value, why]) => h("li", { key: name, "data-error-bit": name }, h("span", null, name), h("b", { class: "v" }, value), h("span", null, why))), h("li", { class: "sum", key: "sum" }, h("span", null, "sum"), h("b", { class: "v fault", "data-role": "error-code" }, sum), h("span", null, rows.filter((r) => r[1] === "1").map((r) => r[0].replace(/^\d+ /, "")).join(" + ") || "no bit set"))),
  );
}
return { ruler, stepRow, form, errorCode };
})();

// ---- panels/paging.js
const $m8 = (() => {
const { h, render, says } = $m0;
const { mark } = $m2;
const { many, one } = $m3;
const { errorCode, form, ruler, stepRow } = $m7;

function draw(root, state, ask) {
  const query = one(state, "query");
  const result = one(state, "result");
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

function notHere(blind, ask) {
  return h(
    "div",
    { class: "blind", "data-role": "blind" },
    h("p", { class: "q2" }, blind?.text ?? "Nothing to show yet."),
    blind?.button ? h("button", { type: "button", class: "plain line", "data-verb": "soft", ...says("Continue on the soft engine", "A new VM on the soft engine with the same memory and state. Python: vm = vm.on(\"soft\")"), onclick: () => ask("soft") }, "Continue this guest on the soft engine") : null,
  );
}
return { draw, notHere };
})();

// ---- panels/control.js
const $m9 = (() => {
const { h, local, render, says } = $m0;
const { hex, spoken } = $m6;
const { mark } = $m2;
const { many, one } = $m3;
const { notHere } = $m8;


function draw(root, state, ask) {
  const mine = local(root, { all: new Set() });
  const blind = one(state, "blind");
  if (blind || !state.items.length) return render(root, notHere(blind, ask));
  const head = one(state, "head");
  const groups = many(state, "group:");
  const fields = many(state, "field:").map(([name, field]) => ({ name, ...field }));
  const areas = many(state, "area:");
  const verdict = one(state, "verdict");

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
return { draw };
})();

// ---- panels/exits.js
const $m10 = (() => {
const { h, render, says } = $m0;
const { who } = $m2;
const { many, one } = $m3;

function draw(root, state, ask) {
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
return { draw };
})();

// ---- panels/registers.js
const $m11 = (() => {
const { h, local, render, says } = $m0;
const { hex, spoken } = $m6;
const { mark } = $m2;
const { many, one } = $m3;


function draw(root, state, ask) {
  const mine = local(root, { editing: "", wrong: "" });
  const head = one(state, "head");
  const general = many(state, "gpr:");
  const control = many(state, "cr:");
  const all = [...general, ...control];
  const again = () => draw(root, state, ask);

  const editor = (name, r) =>
    h("input", {
      class: "edit", key: "edit", value: r.value, "aria-label": `New value of ${name}, hexadecimal`, "aria-invalid": mine.wrong ? "true" : null, spellcheck: "false", size: String(r.value.length + 1),
      ...says(`New value of ${name}`, mine.wrong || "Hexadecimal. Enter sets it, Escape leaves it as it is."),
      onkeydown: (/** @type {any} */ event) => {
        if (event.key === "Enter") {
          event.stopPropagation(); // the cell around it would open the editor again
          const text = event.target.value.trim().replace(/[\s_]/g, "").replace(/^0x/i, "");
          if (!/^[0-9a-f]+$/i.test(text) || text.length > r.value.length) {
            mine.wrong = `${name} holds ${r.value.length} hexadecimal digits.`;
            return again();
          }
          mine.editing = mine.wrong = "";
          ask("set", { name, value: text });
          again();
          cell(root, name)?.focus();
        } else if (event.key === "Escape") {
          mine.editing = mine.wrong = "";
          event.stopPropagation();
          again();
          cell(root, name)?.focus();
        }
      },
    });
  const value = (name, r) => {
    const label = `${name} ${spoken(r.value)}` + (r.was === null ? "" : `, changed, was ${spoken(r.was)}`);
    const open = () => {
      if (!r.edit) return;
      mine.editing = name;
      again();
      const input = /** @type {HTMLInputElement | null} */ (root.querySelector("input.edit"));
      input?.focus();
      input?.select();
    };
    return h(
      "span",
      { role: "gridcell", key: "v", class: "val", tabindex: "-1", "data-reg": name, "aria-label": label, "aria-readonly": r.edit ? null : "true", ...says(name + (r.was === null ? "" : ", changed"), r.says + (r.edit ? ` Enter or double click edits it: vm.set(${name}=…)` : "")), ondblclick: open, onkeydown: (/** @type {any} */ e) => { if (e.key === "Enter") { e.preventDefault(); open(); } } },
      mine.editing === name ? editor(name, r) : hex(r.value, r.was),
    );
  };
  const column = (list, cls) =>
    h(
      "div",
      { class: cls, role: "rowgroup", key: cls },
      list.map(([name, r]) =>
        h(
          "div",
          { role: "row", key: name, class: "r" + (r.was === null ? "" : " ch") },
          h("span", { class: "sign", role: "presentation", key: "s" }, r.was === null ? null : mark("changed")),
          h("span", { class: "nm", role: "rowheader", key: "n" }, name),
          value(name, r),
          r.was === null ? null : h("span", { class: "was", role: "presentation", key: "w", "aria-hidden": "true" }, h("span", null, "was"), hex(r.was)),
        ),
      ),
    );
  const half = Math.ceil(general.length / 2);
  const first = general.slice(0, half), second = general.slice(half);
  const flags = one(state, "flags");
  render(
    root,
    h(
      "section",
      { class: "regs", role: "region", "aria-label": "Registers" },
      h("h3", null, "Registers", h("span", { class: "aside", "data-role": "changed-count" }, head?.changed ? mark("changed", "changed") : null, head?.changed ? " " : null, head?.aside ?? "")),
      all.length ? h("div", { class: "rg", role: "grid", "aria-label": "General registers" }, column(first, "colx a"), column(second, "colx b")) : h("p", { class: "q2 empty" }, "No processor state yet."),
      flags
        ? h(
            "p",
            { class: "fl", "aria-label": `rflags ${spoken(flags.value)}` },
            h("span", { class: "name" }, flags.was === null ? null : mark("changed", "changed"), "rflags ", h("b", { "data-reg": "rflags" }, spoken(flags.value)), flags.was === null ? null : h("small", null, ` was ${spoken(flags.was)}`)),
            flags.bits.map(([name, on, text, changed]) =>
              h("span", { key: name, class: "f" + (on ? " on" : "") + (changed ? " chg" : ""), "data-flag": name, ...says(`${name} = ${on}` + (changed ? ", changed" : ""), text) }, changed ? mark("changed") : null, name, h("span", { class: changed ? "" : "sr" }, ` ${on}`)),
            ),
          )
        : null,
      control.length
        ? h(
            "div",
            { class: "cr", role: "grid", "aria-label": "Control registers" },
            control.map(([name, r]) =>
              h("div", { role: "row", key: name, class: "r" + (r.was === null ? "" : " ch") }, h("span", { class: "nm", role: "rowheader" }, r.was === null ? null : mark("changed"), name), value(name, r), h("span", { class: "q", role: "gridcell" }, r.names, r.was === null ? null : ` was ${spoken(r.was)}`)),
            ),
          )
        : null,
    ),
  );
}

const cell = (root, name) => root.querySelector(`[data-reg="${name}"]`);
return { draw };
})();

// ---- panels/segments.js
const $m12 = (() => {
const { h, local, render, says } = $m0;
const { hex, spoken, strip } = $m6;
const { mark } = $m2;
const { many, one } = $m3;


function draw(root, state, ask) {
  const mine = local(root, { open: new Set() });
  const segments = many(state, "seg:");
  const tables = many(state, "table:");
  const head = one(state, "head");
  const again = () => draw(root, state, ask);
  const toggle = (name) => {
    if (!mine.open.delete(name)) mine.open.add(name);
    again();
  };
  const rows = [];
  for (const [name, content] of segments) {
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
return { draw };
})();

// ---- words.js
const $m13 = (() => {
const { h, says } = $m0;

const TERMS = {
  "shadow tables": ["", "Shadow tables", "Page tables that the hypervisor keeps beside those of the guest. The processor walks only these; the guest never sees them."],
  "hypervisor": ["hv", "Hypervisor", "The kernel part, KVM. The processor comes here at every VM exit."],
  "user space": ["user", "User space", "The program that called KVM_RUN, for example QEMU or this notebook. It sees an exit only when KVM_RUN returns."],
  "guest": ["guest", "Guest", "The program inside the virtual machine. It believes that it owns the processor."],
  "processor": ["hw", "Processor", "The silicon: it enters and leaves the guest, and checks the rules on the way."],
};
const SPLIT = /(`[^`]+`|shadow tables|hypervisor|[Uu]ser space|\bguest\b(?!-)|\bprocessor\b|#?\b0x[0-9a-f]+\b|#\d+|[a-z]+(?:_[a-z0-9]+)+)/g;

function pieces(text) {
  const seen = new Set();
  const out = [];
  text.split(SPLIT).forEach((part, i) => {
    if (part === "") return;
    const word = part.toLowerCase();
    if (i % 2 === 0) out.push({ text: part, kind: "" }); // between two matches
    else if (part.startsWith("`")) out.push({ text: part.slice(1, -1), kind: "code" });
    else if (word in TERMS) {
      out.push({ text: part, kind: seen.has(word) ? "" : "term" });
      seen.add(word);
    } else out.push({ text: part, kind: "code" });
  });
  return out;
}

function phrase(text, plain = false) {
  return pieces(text).map(({ text, kind }) => {
    if (kind === "code") return h("code", null, text);
    if (kind === "" || plain) return text;
    const [cls, title, explanation] = TERMS[text.toLowerCase()];
    return h("b", { class: `term ${cls}`, tabindex: "0", ...says(title, explanation) }, text);
  });
}
return { pieces, phrase };
})();

// ---- panels/sentence.js
const $m14 = (() => {
const { h, render, says } = $m0;
const { mark } = $m2;
const { many, one } = $m3;
const { phrase } = $m13;

function draw(root, state, ask) {
  const say = one(state, "say");
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
return { draw };
})();

// ---- panels/shadow.js
const $m15 = (() => {
const { h, render, says } = $m0;
const { hex, strip } = $m6;
const { mark } = $m2;
const { many, one } = $m3;
const { notHere } = $m8;
const { form } = $m7;

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

const link = (both) =>
  h("svg", { class: "lk", viewBox: "0 0 56 22", "aria-hidden": "true", preserveAspectRatio: "none" }, both ? [h("path", { d: "M0 11H46" }), h("path", { class: "hd", d: "M46 6 56 11 46 16z" })] : null);

function draw(root, state, ask) {
  const query = one(state, "query");
  const blind = one(state, "blind");
  if (blind || !query) return render(root, notHere(blind, ask));
  const pairs = many(state, "pair:");
  const pages = many(state, "page:");
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
return { draw };
})();

// ---- panels/timeline.js
const $m16 = (() => {
const { h, render, says } = $m0;
const { mark } = $m2;
const { one } = $m3;

const RECORD = 8;

const LANES = [
  [1, "shadow fills", "fill", "hv", "A writable shadow entry was made."],
  [2, "read-only fills", "fillro", "hv", "A read-only shadow entry was made: the guest page is not dirty yet, or holds a page table."],
  [8, "zaps", "zap", "hv", "Shadow entries were thrown away."],
  [3, "table writes", "locked", "locked", "The guest stored into one of its own page tables; the hypervisor emulated the store."],
  [4, "CR access", "cr", "hw", "The guest read or wrote a control register that the hypervisor controls."],
  [5, "dirty marks", "dirty", "dirty", "A page became writable in the shadow, so the dirty log marks it: once per page, not per store."],
  [6, "guest faults", "fault", "fault", "The hypervisor handed a fault to the guest."],
  [7, "interrupts", "irq", "hw", "An interrupt was injected into the guest."],
];


function exitsOf(bytes, first) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: Math.floor(bytes.byteLength / RECORD) }, (_, i) => ({
    n: first + i,
    cost: view.getUint32(i * RECORD, true),
    reason: view.getUint16(i * RECORD + 4, true),
    marks: view.getUint16(i * RECORD + 6, true),
  }));
}

function bins(exits, columns, now) {
  const past = exits.filter((e) => e.n < now), future = exits.filter((e) => e.n > now), here = exits.filter((e) => e.n === now);
  const room = Math.max(2, columns - here.length);
  const size = Math.max(1, Math.ceil((past.length + future.length) / room));
  const cut = (list, ahead) => {
    const out = [];
    for (let to = list.length; to > 0; to -= size) out.unshift({ exits: list.slice(Math.max(0, to - size), to), now: false, ahead });
    return out;
  };
  return [...cut(past, false), ...here.map((e) => ({ exits: [e], now: true, ahead: false })), ...cut(future, true)];
}

function draw(root, state, ask) {
  const head = one(state, "head");
  const exits = head ? exitsOf(state.bytes, head.first) : [];
  const title = h("h3", null, "Exits", h("span", { class: "aside" }, head?.aside ?? ""));
  if (!head || !exits.length) {
    return render(root, h("section", { class: "time", role: "region", "aria-label": "Timeline of exits" }, title, h("p", { class: "q2 empty" }, head?.what ?? "No exits yet.")));
  }
  const names = new Map(head.names);
  const columns = Math.max(4, Math.floor(((root.clientWidth || 600) - 136) / 30));
  const shown = bins(exits, columns, head.now);
  const look = (bin) => (bin.now ? " now" : bin.ahead ? " fut" : "");
  const range = (bin) => (bin.exits.length === 1 ? `#${bin.exits[0].n}` : `${bin.exits[0].n}+`);
  const label = (bin) => {
    const first = bin.exits[0], last = bin.exits[bin.exits.length - 1];
    return bin.exits.length === 1 ? `exit ${first.n}, ${names.get(first.reason) ?? "reason " + first.reason}` : `exits ${first.n} to ${last.n}`;
  };
  const cells = [h("span", { class: "lab", key: "l:exit" }, "exit")];
  shown.forEach((bin, i) =>
    cells.push(
      h(
        "button",
        { key: `h${i}`, type: "button", tabindex: "-1", "data-exit": String(bin.exits[0].n), class: "hd" + look(bin), "aria-current": bin.now ? "true" : null, "aria-disabled": head.back ? null : "true", "aria-label": "Go to " + label(bin), ...says(label(bin).replace("exit", "Exit"), `${bin.exits[0].marks & 1 ? "It went to user space." : "The hypervisor handled it."} Click goes there: vm.goto(…)`), onclick: () => head.back && ask("goto_exit", { n: bin.exits[0].n }) },
        range(bin),
      ),
    ),
  );
  const lane = (name, text, draw, sign = null) => {
    cells.push(h("span", { class: "lab lane", key: "l:" + name, ...says(name[0].toUpperCase() + name.slice(1), text) }, sign, name));
    shown.forEach((bin, i) => cells.push(h("span", { class: "lane" + look(bin), key: name + i }, draw(bin))));
  };
  lane("reason", "The exit reason by its number; the list of exits has the names.", (bin) =>
    bin.exits.length === 1 ? h("span", { class: "rs" + (bin.exits[0].marks & 1 ? " user" : "") }, head.hex ? bin.exits[0].reason.toString(16) + "h" : String(bin.exits[0].reason)) : h("span", { class: "rs q" }, `×${bin.exits.length}`));
  lane("handled by", "H: the hypervisor dealt with it alone. U: KVM_RUN returned to user space.", (bin) => {
    const up = bin.exits.filter((e) => e.marks & 1).length;
    if (bin.exits.length === 1) return up ? mark("user", "user", "user space") : mark("hv", "hv", "hypervisor");
    return up ? [mark("user", "user", "user space"), String(up)] : mark("hv", "hv", "hypervisor");
  });
  const absent = [];
  for (const [bit, name, sign, colour, text] of LANES) {
    if (!exits.some((e) => (e.marks >> bit) & 1)) {
      absent.push(name);
      continue;
    }
    lane(name, text, (bin) => {
      const n = bin.exits.filter((e) => (e.marks >> bit) & 1).length;
      return n ? [mark(sign, colour, name), bin.exits.length > 1 ? String(n) : null] : null;
    }, mark(sign, colour));
  }
  const top = Math.max(1, ...shown.map((bin) => bin.exits.reduce((sum, e) => sum + e.cost, 0)));
  lane("instructions", "Guest instructions completed since the exit before.", (bin) => {
    const cost = bin.exits.reduce((sum, e) => sum + e.cost, 0);
    return [h("span", { class: "cost" }, cost > 9999 ? `${Math.round(cost / 1000)}k` : String(cost)), h("i", { class: "pile", style: `height:${Math.round((12 * Math.log1p(cost)) / Math.log1p(top))}px` })];
  });
  const last = exits[exits.length - 1].n;
  render(
    root,
    h(
      "section",
      { class: "time", role: "region", "aria-label": "Timeline of exits" },
      title,
      h("div", { class: "tl", style: `--n:${shown.length}`, role: "group", "data-rove": "row", "aria-label": `Timeline, ${head.total} exits` }, cells),
      head.back
        ? h(
            "label",
            { class: "slide", key: "slide", style: `--n:${shown.length}` },
            h("span", null, "go to"),
            h("input", { type: "range", "aria-label": "Go to exit", min: String(head.first), max: String(last), value: String(head.now || head.first), "aria-valuetext": head.now ? label(shown.find((b) => b.now) ?? shown[0]) : "before the first exit shown", ...says("Slider", "Drag, or use the keys [ and ], to go to any exit, backwards too. Python: vm.goto(position)"), onchange: (/** @type {any} */ e) => ask("goto_exit", { n: Number(e.target.value) }) }),
          )
        : null,
      absent.length ? h("p", { class: "legend" }, `None so far: ${absent.join(", ")}.`) : null,
    ),
  );
}
return { exitsOf, bins, draw };
})();

// ---- panels/toolbar.js
const $m17 = (() => {
const { h, render, says } = $m0;
const { icon } = $m2;
const { one } = $m3;


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

function draw(root, state, ask) {
  const about = one(state, "about");
  if (!about) return render(root);
  const view = one(state, "view") ?? { python: false, help: false, dead: false };
  const busy = about.running !== null || view.dead;
  const can = new Set(about.can);

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
  const group = (label, ...kids) => (kids.some(Boolean) ? h("span", { class: "seg", role: "group", "aria-label": label, key: label }, kids) : null);

  const kinds = can.has("step_exit") && about.kinds.length
    ? h(
        "select",
        { "aria-label": "Kind of exit to run to", key: "kind", ...says("Kind of exit", "Next exit then skips every other kind. Python: vm.step_exit(kind=…, handled=True)"), value: about.kind, onchange: (/** @type {any} */ event) => ask("kind", { kind: event.target.value }) },
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
return { draw };
})();

// ---- panels/world.js
const $m18 = (() => {
const { h, render, says } = $m0;
const { one } = $m3;


const short = (n) => (typeof n === "number" && n > 99999 ? `${Math.round(n / 1000)}k` : String(n));

function draw(root, state) {
  const w = one(state, "world");
  if (!w) return render(root, h("section", { class: "world", role: "region", "aria-label": "World switch" }, h("h3", null, "World switch")));

  const where = { ioctl: [31, 60], return: [60, 31], entry: [93, 122], exit: [122, 93] };
  const arrow = (way, x, word, n) => {
    const [from, to] = where[way];
    const bad = way === "entry" && w.refused;
    const look = bad ? "bad" : w.lit === way ? "lit" : w.next === way ? "next" : "calm";
    const down = to > from;
    const tip = look === "calm" ? 5 : 7;
    const text = look === "lit" ? (String(short(n)).length < 4 ? ", just taken" : ", now") : look === "bad" ? " refused" : look === "next" ? " next" : "";
    const end = down ? to - tip : to + tip;
    return h(
      "g",
      { class: look, key: way, "data-way": way },
      h("path", { d: `M${x} ${from}V${end}`, class: "shaft" }),
      bad ? h("path", { class: "shaft", d: `M${x - 6} ${to - 12}l12 10m0 -10l-12 10` }) : h("path", { class: "tip", d: `M${x - tip * 0.62} ${end}h${tip * 1.24}l${-tip * 0.62} ${down ? tip : -tip}z` }),
      h("text", { x: down ? x - 9 : x + 10, y: (from + to) / 2 + 4, "text-anchor": down ? "end" : "start" }, word + " ", h("tspan", { class: "n" }, short(n)), down ? null : text),
      down && text ? h("text", { x: x + 9, y: (from + to) / 2 + 4 }, text.trim()) : null,
    );
  };
  const bar = (kind, y, name, doing) =>
    h(
      "g",
      { class: `who-${kind}` + (w.at === kind ? " at" : ""), key: kind, "data-world": kind },
      h("rect", { x: "1.5", y: String(y + 0.5), width: "321", height: "29", rx: "5" }),
      h("text", { class: "nm", x: "12", y: String(y + 19.5) }, name),
      h("text", { class: "doing", x: "313", y: String(y + 19.5), "text-anchor": "end" }, doing),
    );
  if (w.bare) {
    const text = `A bare machine: the code has the processor to itself, no hypervisor of ours is below it. Code ${w.guest}.`;
    return render(
      root,
      h(
        "section",
        { class: "world", role: "region", "aria-label": "World switch" },
        h("h3", null, "World switch", h("span", { class: "aside" }, w.aside)),
        h("svg", { class: "ws", viewBox: "0 0 324 31", role: "img", "aria-label": text, "data-role": "world", ...says("World switch", text) }, bar("guest", 0, "Bare machine", w.guest)),
        h("p", { class: "q2 empty" }, "No hypervisor of ours below it: nothing exits. If the code is itself a hypervisor, its VMCS or VMCB stands below."),
      ),
    );
  }
  const sentence =
    `User space: ${w.user}. Hypervisor: ${w.hv}. Guest: ${w.guest}. KVM_RUN was called ${w.ioctl} times and returned ${w.returns} times. ` +
    `${w.entries} entries and ${w.exits} exits.` + (w.lit ? ` Just taken: ${w.refused && w.lit === "entry" ? "a refused entry" : w.lit}.` : "") + (w.next ? ` Next: ${w.next}.` : "");
  const total = w.kept + w.up;
  render(
    root,
    h(
      "section",
      { class: "world", role: "region", "aria-label": "World switch" },
      h("h3", null, "World switch", h("span", { class: "aside" }, w.aside)),
      h(
        "svg",
        { class: "ws", viewBox: "0 0 324 153", role: "img", "aria-label": sentence, "data-role": "world", ...says("World switch", sentence) },
        bar("user", 0, "User space", w.user), bar("hv", 61, "Hypervisor", w.hv), bar("guest", 122, "Guest", w.guest),
        arrow("ioctl", 84, "ioctl", w.ioctl), arrow("return", 164, "return", w.returns), arrow("entry", 84, "entry", w.entries), arrow("exit", 164, "exit", w.exits),
      ),
      total
        ? h(
            "div",
            { class: "share", role: "img", "aria-label": `Of ${total} exits, ${w.kept} were handled in the hypervisor and ${w.up} went to user space`, ...says("Where exits end", `Of ${total} exits, ${w.kept} were handled in the hypervisor: user space never saw them. ${w.up} went up to user space.`) },
            w.kept ? h("span", { class: "hv", key: "hv", style: `flex:${w.kept}` }, w.kept / total > 0.25 ? `${w.kept} exits end here` : String(w.kept)) : null,
            w.up ? h("span", { class: "user", key: "user", style: `flex:${w.up}` }, w.up / total > 0.2 ? `${w.up} go up` : String(w.up)) : null,
          )
        : null,
    ),
  );
}
return { draw };
})();

// ---- panels.js
const $m19 = (() => {
const { draw: code } = $m4;
const { draw: console_ } = $m5;
const { draw: control } = $m9;
const { draw: exits } = $m10;
const { draw: paging } = $m8;
const { draw: registers } = $m11;
const { draw: segments } = $m12;
const { draw: sentence } = $m14;
const { draw: shadow } = $m15;
const { draw: timeline } = $m16;
const { draw: toolbar } = $m17;
const { draw: world } = $m18;

const PANELS = { toolbar, sentence, world, timeline, code, registers, segments, paging, shadow, control, exits, console: console_ };

const STAGE = ["shadow", "paging", "control", "segments", "exits"];
return { PANELS, STAGE };
})();

// ---- rove.js
const $m20 = (() => {
const HOLDERS = '[role="grid"], [role="tree"], [role="tablist"], [data-rove]';

const itemsOf = (holder) => /** @type {HTMLElement[]} */ ([...holder.querySelectorAll("[tabindex]")]).filter((el) => el.closest(HOLDERS) === holder);

function settle(root) {
  for (const holder of root.querySelectorAll(HOLDERS)) {
    if (holder.closest("[hidden]")) continue; // settled when it is shown
    const items = itemsOf(holder);
    if (!items.length) continue;
    const active = document.activeElement;
    const stop =
      items.find((el) => el === active) ?? items.find((el) => el.tabIndex === 0 && !el.closest('[aria-hidden="true"]')) ??
      items.find((el) => el.matches('[aria-current], [aria-selected="true"]') || el.closest("[aria-current]")) ?? items[0];
    for (const el of items) if (el.tabIndex !== (el === stop ? 0 : -1)) el.tabIndex = el === stop ? 0 : -1;
  }
}

function target(items, from, key, grid) {
  const at = items.indexOf(from);
  if (key === "Home") return items[0];
  if (key === "End") return items[items.length - 1];
  const by = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
  if (!grid || key === "ArrowLeft" || key === "ArrowRight") {
    if (!grid) return items[at + by];
    const next = items[at + by];
    return next && row(next) === row(from) ? next : undefined;
  }
  const mine = items.filter((el) => row(el) === row(from));
  const column = mine.indexOf(from);
  for (let i = at + by; i >= 0 && i < items.length; i += by) {
    if (row(items[i]) === row(from)) continue;
    const there = items.filter((el) => row(el) === row(items[i]));
    return there[Math.min(column, there.length - 1)];
  }
  return undefined;
}

const row = (el) => el.closest('[role="row"]');

function move(event) {
  if (!/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(event.key) || event.ctrlKey || event.altKey || event.metaKey) return false;
  const from = /** @type {HTMLElement} */ (event.target);
  if (from.matches("input, select, textarea")) return false;
  const holder = from.closest(HOLDERS);
  if (!holder) return false;
  const to = target(itemsOf(holder), from, event.key, holder.getAttribute("role") === "grid");
  if (!to) return false;
  event.preventDefault();
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
  return true;
}
return { settle, move };
})();

// ---- view.js
const $m21 = (() => {
const { h, render } = $m0;
const { KEYS, verbOf } = $m1;
const { mark } = $m2;
const { PANELS, STAGE } = $m19;
const { move, settle } = $m20;
const { one, Store } = $m3;


const READING = /** @type {[string, string]} */ (["Reading line", "Point at anything, or move to it with Tab, and this line says what it is."]);
const SILENCE_MS = 4000;

function open(model, el) {
  const store = new Store();
  const panel = /** @type {string} */ (model.get("panel"));
  const local = { python: false, help: false, tab: "shadow", reading: READING, dead: false };
  const root = document.createElement("div");
  root.className = panel === "bench" ? "kvmlab bench" : "kvmlab single";
  root.dataset.panel = panel;
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", panel === "bench" ? "kvmlab bench" : `kvmlab ${panel}`);
  root.tabIndex = -1;
  el.append(root);
  const places = new Map();
  const stale = new Set();
  let asked = 0;

  const ask = (verb, detail = {}) => {
    if (verb.startsWith("view:")) return here(verb.slice(5), detail);
    if (local.dead) return;
    asked = Math.max(asked + 1, Date.now()); // grows from view to view, so that "answered" never goes back
    root.dataset.asked = String(asked);
    model.send({ ask: verb, detail, id: asked });
  };

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

  const stateOf = (name) => {
    const state = store.panel(name);
    return name === "toolbar" ? { items: [...state.items, /** @type {[string, any]} */ (["view", { python: local.python, help: local.help, dead: local.dead }])], bytes: state.bytes } : state;
  };

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

  const frame = () => {
    const info = store.panel("bench");
    const about = one(info, "about");
    const counts = new Map(about?.counts ?? []);
    const place = (name, cls = "") => h("div", { class: `place ${cls}`, key: name, "data-place": name });
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
  const read = (event) => {
    const at = /** @type {Element | null} */ (event.target)?.closest?.("[data-i]");
    if (!at || !root.contains(at)) return;
    const [title, ...text] = (at.getAttribute("data-i") ?? "").split("|");
    local.reading = [title, text.join("|")];
    tell();
  };
  const tie = (event) => {
    const at = /** @type {Element | null} */ (event.target)?.closest?.("[data-l]");
    if (at) for (const other of root.querySelectorAll(`[data-l="${at.getAttribute("data-l")}"]`)) other.classList.toggle("tie", event.type === "pointerover");
  };
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
return { open };
})();

// ---- main.js
const $m22 = (() => {
const { open } = $m21;

function render({ model, el }) {
  return open(model, el);
}

const $default = { render };
return { $default };
})();

export default $m22.$default;
