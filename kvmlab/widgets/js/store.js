// What one view knows of the VM: full snapshots and what changed since. A gap in the numbers means: ask again.

/**
 * @typedef {import("./types.js").State} State
 * @typedef {import("./types.js").Item} Item
 * @typedef {import("./types.js").Message} Message
 */

export class Store {
  constructor() {
    /** @type {Map<string, State>} */
    this.panels = new Map();
    /** The last message taken in; -1 before the first. */
    this.seq = -1;
  }

  /**
   * @param {string} name
   * @returns {State}
   */
  panel(name) {
    return this.panels.get(name) ?? { items: [], bytes: new Uint8Array(0) };
  }

  /**
   * Takes a message in.
   *
   * @param {Message} message
   * @param {DataView[]} buffers
   * @returns {Set<string> | null}  the panels that changed, or null where a message is missing
   */
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
    /** @type {Set<string>} */
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

/** @param {DataView} view */
const bytesOf = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/**
 * @param {Item[]} old
 * @param {Item[]} changed
 * @param {string[] | null} order
 * @returns {Item[]}
 */
export function merge(old, changed, order) {
  const contents = new Map(old);
  for (const [id, content] of changed) contents.set(id, content);
  return (order ?? old.map(([id]) => id)).map((id) => [id, contents.get(id)]);
}

/**
 * @param {State} state
 * @param {string} id
 * @returns {any}
 */
export function one(state, id) {
  for (const item of state.items) if (item[0] === id) return item[1];
  return undefined;
}

/**
 * The items whose id starts with `prefix`, without it.
 *
 * @param {State} state
 * @param {string} prefix
 * @returns {Item[]}
 */
export function many(state, prefix) {
  /** @type {Item[]} */
  const found = [];
  for (const [id, content] of state.items) if (id.startsWith(prefix)) found.push([id.slice(prefix.length), content]);
  return found;
}
