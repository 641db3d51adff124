// Grids, trees, lamps and the timeline take one Tab stop each and the arrow keys inside.

const HOLDERS = '[role="grid"], [role="tree"], [role="tablist"], [data-rove]';

/** @param {Element} holder @returns {HTMLElement[]} */
const itemsOf = (holder) => /** @type {HTMLElement[]} */ ([...holder.querySelectorAll("[tabindex]")]).filter((el) => el.closest(HOLDERS) === holder);

/**
 * Gives every holder exactly one Tab stop: what has focus, else what is current, else the first.
 *
 * @param {HTMLElement} root
 */
export function settle(root) {
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

/**
 * Where an arrow key leads.
 *
 * @param {HTMLElement[]} items
 * @param {HTMLElement} from
 * @param {string} key
 * @param {boolean} grid
 * @returns {HTMLElement | undefined}
 */
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

/** @param {Element} el */
const row = (el) => el.closest('[role="row"]');

/**
 * @param {KeyboardEvent} event
 * @returns {boolean}  whether the key moved the focus
 */
export function move(event) {
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
