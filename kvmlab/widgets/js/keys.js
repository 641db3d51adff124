// The keys of the bench. Every one of them has a button too.

/** Key, verb, what it does. @type {[string, string, string][]} */
export const KEYS = [
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

/**
 * The verb of a key, or "" where the key belongs to somebody else.
 *
 * @param {KeyboardEvent} event
 * @returns {string}
 */
export function verbOf(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return "";
  const target = /** @type {Element | null} */ (event.target);
  if (target?.closest(TEXT) || target?.closest(".con")) return "";
  return KEYS.find(([key]) => key === event.key)?.[1] ?? "";
}
