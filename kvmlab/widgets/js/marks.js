// Every meaning has a shape of its own, so that colour is never the only sign.
import { h } from "./dom.js";

/** @type {Record<string, [string, Record<string, string>][]>} */
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

/** @type {Record<string, string>} */
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

/**
 * @param {string} d
 * @param {number} width
 * @returns {[string, Record<string, string>]}
 */
function line(d, width) {
  return ["path", { d, fill: "none", stroke: "currentColor", "stroke-width": String(width) }];
}

/**
 * @param {string} d
 * @returns {[string, Record<string, string>]}
 */
function solid(d) {
  return ["path", { d, fill: "currentColor" }];
}

/**
 * A mark in the size of the text.
 *
 * @param {string} kind
 * @param {string} [cls]
 * @param {string} [label]  what a screen reader says; without it the mark is decoration
 */
export function mark(kind, cls = "", label = "") {
  const shapes = SHAPES[kind] ?? SHAPES.dot;
  return h(
    "svg",
    { class: `m m-${kind} ${cls}`, viewBox: "0 0 12 12", ...(label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" }) },
    shapes.map(([tag, attrs]) => h(tag, attrs)),
  );
}

/** @param {string} kind */
export function icon(kind) {
  return h(
    "svg",
    { viewBox: "0 0 14 14", "aria-hidden": "true" },
    h("path", { d: ICONS[kind], fill: "none", stroke: "currentColor", "stroke-width": "1.7", "stroke-linejoin": "round", "stroke-linecap": "round" }),
  );
}

/** The word for who acts, with the mark that goes with it. @type {Record<string, string>} */
export const WHO = { guest: "guest", hv: "hypervisor", user: "user space", hw: "processor" };

/**
 * @param {string} kind
 * @param {string} [text]
 */
export function who(kind, text = WHO[kind]) {
  return h("span", { class: `who ${kind}` }, mark(kind), text);
}
