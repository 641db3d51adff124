// One column per exit, one lane per kind of thing that happened; more exits than columns become bins.
import { h, render, says } from "../dom.js";
import { mark } from "../marks.js";
import { one } from "../store.js";

/** Bytes of one exit in the panel's bulk data: instructions since the exit before (4), reason (2), marks (2). */
const RECORD = 8;

/** The lanes, by bit of the marks: name, mark, colour, what it says. @type {[number, string, string, string, string][]} */
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

/**
 * @typedef {object} Exit
 * @property {number} n  its number, from 1
 * @property {number} cost  instructions since the exit before
 * @property {number} reason
 * @property {number} marks
 *
 * @typedef {object} Bin
 * @property {Exit[]} exits
 * @property {boolean} now
 * @property {boolean} ahead  the future already seen
 */

/**
 * @param {Uint8Array} bytes
 * @param {number} first  number of the first exit
 * @returns {Exit[]}
 */
export function exitsOf(bytes, first) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: Math.floor(bytes.byteLength / RECORD) }, (_, i) => ({
    n: first + i,
    cost: view.getUint32(i * RECORD, true),
    reason: view.getUint16(i * RECORD + 4, true),
    marks: view.getUint16(i * RECORD + 6, true),
  }));
}

/**
 * Puts exits into at most `columns` bins. The current exit always has one of its own, and no bin mixes past and future.
 *
 * @param {Exit[]} exits
 * @param {number} columns
 * @param {number} now  number of the current exit, 0 for none
 * @returns {Bin[]}
 */
export function bins(exits, columns, now) {
  const past = exits.filter((e) => e.n < now), future = exits.filter((e) => e.n > now), here = exits.filter((e) => e.n === now);
  const room = Math.max(2, columns - here.length);
  const size = Math.max(1, Math.ceil((past.length + future.length) / room));
  /** @param {Exit[]} list @param {boolean} ahead @returns {Bin[]} */
  const cut = (list, ahead) => {
    /** @type {Bin[]} */
    const out = [];
    for (let to = list.length; to > 0; to -= size) out.unshift({ exits: list.slice(Math.max(0, to - size), to), now: false, ahead });
    return out;
  };
  return [...cut(past, false), ...here.map((e) => ({ exits: [e], now: true, ahead: false })), ...cut(future, true)];
}

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  /** @type {{now: number, total: number, first: number, aside: string, what: string, names: [number, string][], back: boolean, hex: boolean} | undefined} */
  const head = one(state, "head");
  const exits = head ? exitsOf(state.bytes, head.first) : [];
  const title = h("h3", null, "Exits", h("span", { class: "aside" }, head?.aside ?? ""));
  if (!head || !exits.length) {
    return render(root, h("section", { class: "time", role: "region", "aria-label": "Timeline of exits" }, title, h("p", { class: "q2 empty" }, head?.what ?? "No exits yet.")));
  }
  const names = new Map(head.names);
  const columns = Math.max(4, Math.floor(((root.clientWidth || 600) - 136) / 30));
  const shown = bins(exits, columns, head.now);
  /** @param {Bin} bin */
  const look = (bin) => (bin.now ? " now" : bin.ahead ? " fut" : "");
  /** @param {Bin} bin */
  const range = (bin) => (bin.exits.length === 1 ? `#${bin.exits[0].n}` : `${bin.exits[0].n}+`);
  /** @param {Bin} bin */
  const label = (bin) => {
    const first = bin.exits[0], last = bin.exits[bin.exits.length - 1];
    return bin.exits.length === 1 ? `exit ${first.n}, ${names.get(first.reason) ?? "reason " + first.reason}` : `exits ${first.n} to ${last.n}`;
  };
  /** @type {any[]} */
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
  /** @param {string} name @param {string} text @param {(bin: Bin) => any} draw @param {any} [sign] */
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
  /** @type {string[]} */
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
