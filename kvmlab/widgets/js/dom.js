// A small virtual DOM: panels say what should stand there, and only what differs is touched. That keeps focus,
// selection and open folds across steps, and makes a step cost what changed and not what is shown.

/**
 * @typedef {object} VNode
 * @property {string} tag  "#" for text
 * @property {Record<string, any>} attrs
 * @property {VNode[]} kids
 * @property {string} text
 * @property {string | undefined} key
 * @property {Node | null} el
 *
 * @typedef {VNode | string | number | null | undefined | false | Kids} Kid
 */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Array<Kid>} Kids  a name of its own, so that Kid may name itself */

/** @type {WeakMap<Element, VNode[]>} what was drawn last in each root */
const drawn = new WeakMap();

/**
 * @param {Kid[]} kids
 * @param {VNode[]} [into]
 * @returns {VNode[]}
 */
function flat(kids, into = []) {
  for (const kid of kids) {
    if (kid === null || kid === undefined || kid === false || kid === "") continue;
    if (Array.isArray(kid)) flat(kid, into);
    else if (typeof kid === "object") into.push(kid);
    else into.push({ tag: "#", attrs: {}, kids: [], text: String(kid), key: undefined, el: null });
  }
  return into;
}

/**
 * One element. `key` in the attributes names it among its siblings; `on…` attributes are listeners.
 *
 * @param {string} tag
 * @param {Record<string, any> | null} [attrs]
 * @param {...Kid} kids
 * @returns {VNode}
 */
export function h(tag, attrs, ...kids) {
  const { key, ...rest } = attrs ?? {};
  return { tag, attrs: rest, kids: flat(kids), text: "", key: key === undefined ? undefined : String(key), el: null };
}

/**
 * @param {Element} el
 * @param {string} name
 * @param {any} value
 */
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

/**
 * @param {VNode} node
 * @param {boolean} svg
 * @returns {Node}
 */
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

/**
 * @param {VNode} old
 * @param {VNode} next
 */
function update(old, next) {
  const el = /** @type {Element} */ (old.el);
  next.el = el;
  if (next.tag === "#") {
    if (old.text !== next.text) /** @type {any} */ (el).data = next.text;
    return;
  }
  for (const name in old.attrs) if (!(name in next.attrs)) set(el, name, undefined);
  patch(el, old.kids, next.kids);
  // What somebody types stays until Python says something new, or the same again: then `turn` differs.
  const again = old.attrs.turn !== next.attrs.turn;
  for (const name in next.attrs) {
    if (old.attrs[name] !== next.attrs[name] || (again && name === "value")) set(el, name, next.attrs[name]);
  }
}

/**
 * @param {Element} parent
 * @param {VNode[]} old
 * @param {VNode[]} next
 */
function patch(parent, old, next) {
  /** @type {Map<string, VNode>} */
  const keyed = new Map();
  /** @type {VNode[]} */
  const loose = [];
  for (const node of old) {
    if (node.key === undefined) loose.push(node);
    else keyed.set(node.key, node);
  }
  let at = 0;
  const pairs = next.map((node) => {
    /** @type {VNode | undefined} */
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

/**
 * Makes `root` hold exactly `kids`. Focus stays where it was if that element is still there.
 *
 * @param {HTMLElement} root
 * @param {...Kid} kids
 */
export function render(root, ...kids) {
  const next = flat(kids);
  const focused = /** @type {Document} */ (root.getRootNode()).activeElement;
  patch(root, drawn.get(root) ?? [], next);
  drawn.set(root, next);
  if (focused instanceof HTMLElement && focused !== document.activeElement && root.contains(focused)) {
    focused.focus({ preventScroll: true });
  }
}

/** @type {WeakMap<Element, Record<string, any>>} */
const locals = new WeakMap();

/**
 * What a panel keeps for itself in one view: an open fold, text being typed. Python does not know it.
 *
 * @template {Record<string, any>} T
 * @param {HTMLElement} root
 * @param {T} initial
 * @returns {T}
 */
export function local(root, initial) {
  let mine = locals.get(root);
  if (!mine) locals.set(root, (mine = { ...initial }));
  return /** @type {T} */ (mine);
}

/**
 * The attributes by which an element explains itself in the reading line.
 *
 * @param {string} title
 * @param {string} text
 */
export const says = (title, text) => ({ "data-i": title + "|" + text });
