// The three bars of privilege and the four ways between them. The arrow just taken is lit.
import { h, render, says } from "../dom.js";
import { one } from "../store.js";

/**
 * @typedef {object} World
 * @property {number} ioctl @property {number} returns @property {number | string} entries @property {number | string} exits  "–" where nobody can count them
 * @property {"" | "ioctl" | "return" | "entry" | "exit"} lit  the arrow just taken
 * @property {"" | "ioctl" | "return" | "entry" | "exit"} next
 * @property {"" | "user" | "hv" | "guest"} at  who acts now
 * @property {boolean} refused  the entry was refused
 * @property {string} user @property {string} hv @property {string} guest  what each of them is doing
 * @property {number} kept @property {number} up  exits handled in the hypervisor, exits that went on to user space
 * @property {string} aside
 * @property {boolean} bare  no hypervisor of ours below: only one bar
 */

/** Counters have room for five characters; the label for screen readers has them in full. @param {number | string} n */
const short = (n) => (typeof n === "number" && n > 99999 ? `${Math.round(n / 1000)}k` : String(n));

/** @type {import("../types.js").Draw} */
export function draw(root, state) {
  /** @type {World | undefined} */
  const w = one(state, "world");
  if (!w) return render(root, h("section", { class: "world", role: "region", "aria-label": "World switch" }, h("h3", null, "World switch")));

  /** @type {Record<string, [number, number]>} */
  const where = { ioctl: [31, 60], return: [60, 31], entry: [93, 122], exit: [122, 93] };
  /** @param {"ioctl" | "return" | "entry" | "exit"} way @param {number} x @param {string} word @param {number | string} n */
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
  /** @param {"user" | "hv" | "guest"} kind @param {number} y @param {string} name @param {string} doing */
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
