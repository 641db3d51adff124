// The sentence: terms that explain themselves, numbers in the type of numbers.
import { h, says } from "./dom.js";

/** @type {Record<string, [string, string, string]>} word → class, title, explanation */
const TERMS = {
  "shadow tables": ["", "Shadow tables", "Page tables that the hypervisor keeps beside those of the guest. The processor walks only these; the guest never sees them."],
  "hypervisor": ["hv", "Hypervisor", "The kernel part, KVM. The processor comes here at every VM exit."],
  "user space": ["user", "User space", "The program that called KVM_RUN, for example QEMU or this notebook. It sees an exit only when KVM_RUN returns."],
  "guest": ["guest", "Guest", "The program inside the virtual machine. It believes that it owns the processor."],
  "processor": ["hw", "Processor", "The silicon: it enters and leaves the guest, and checks the rules on the way."],
};
const SPLIT = /(`[^`]+`|shadow tables|hypervisor|[Uu]ser space|\bguest\b(?!-)|\bprocessor\b|#?\b0x[0-9a-f]+\b|#\d+|[a-z]+(?:_[a-z0-9]+)+)/g;

/**
 * Cuts a sentence into plain text, numbers and terms. Each term is marked once, where it stands first.
 *
 * @param {string} text
 * @returns {{text: string, kind: "" | "code" | "term"}[]}
 */
export function pieces(text) {
  const seen = new Set();
  /** @type {{text: string, kind: "" | "code" | "term"}[]} */
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

/**
 * @param {string} text
 * @param {boolean} [plain]  true where terms must not take focus, as inside a button
 */
export function phrase(text, plain = false) {
  return pieces(text).map(({ text, kind }) => {
    if (kind === "code") return h("code", null, text);
    if (kind === "" || plain) return text;
    const [cls, title, explanation] = TERMS[text.toLowerCase()];
    return h("b", { class: `term ${cls}`, tabindex: "0", ...says(title, explanation) }, text);
  });
}
