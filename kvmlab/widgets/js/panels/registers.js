// General registers, flags by name, control registers. What changed since the last stop says what it was; Enter edits.
import { h, local, render, says } from "../dom.js";
import { hex, spoken } from "../hex.js";
import { mark } from "../marks.js";
import { many, one } from "../store.js";

/**
 * @typedef {object} Register
 * @property {string} value  hexadecimal digits, padded to the width
 * @property {string | null} was  the same before, where it changed
 * @property {string} says  one sentence about this register here and now
 * @property {boolean} edit
 * @property {string} [names]  the bits that are set, by name
 */

/** @type {import("../types.js").Draw} */
export function draw(root, state, ask) {
  const mine = local(root, { editing: "", wrong: "" });
  /** @type {{aside: string, changed: number} | undefined} */
  const head = one(state, "head");
  const general = many(state, "gpr:");
  const control = many(state, "cr:");
  /** @type {[string, Register][]} */
  const all = [...general, ...control];
  const again = () => draw(root, state, ask);

  /** @param {string} name @param {Register} r */
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
  /** @param {string} name @param {Register} r */
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
  /** @param {[string, Register][]} list @param {string} cls */
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
  /** @type {[string, Register][]} */
  const first = general.slice(0, half), second = general.slice(half);
  /** @type {{value: string, was: string | null, bits: [string, number, string, boolean][]} | undefined} */
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

/**
 * @param {HTMLElement} root
 * @param {string} name
 * @returns {HTMLElement | null}
 */
const cell = (root, name) => root.querySelector(`[data-reg="${name}"]`);
