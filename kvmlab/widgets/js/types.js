/**
 * The shapes that several modules share. See docs/widgets.md for the protocol.
 *
 * @typedef {[string, any]} Item  one row of a panel: its id and what Python says about it
 *
 * @typedef {object} State  what a panel draws
 * @property {Item[]} items  in the order Python gave them
 * @property {Uint8Array} bytes  bulk data of the panel, empty where it has none
 *
 * @typedef {(verb: string, detail?: Record<string, any>) => void} Ask  asks Python for something
 *
 * @typedef {(root: HTMLElement, state: State, ask: Ask) => void} Draw
 *
 * @typedef {object} FullMessage
 * @property {"full"} kind
 * @property {number} seq
 * @property {[string, Item[]][]} panels
 * @property {[string, number][]} bytes  panel and index of its buffer
 *
 * @typedef {object} DeltaMessage
 * @property {"delta"} kind
 * @property {number} seq
 * @property {[string, Item[], string[] | null][]} changes  panel, items that are new or changed, and the ids in order where that changed
 * @property {[string, number, number][]} bytes  panel, offset from which its bytes are replaced, index of the buffer
 *
 * @typedef {FullMessage | DeltaMessage} Message
 *
 * @typedef {object} Model  what anywidget hands to render()
 * @property {(name: string) => any} get
 * @property {(content: any) => void} send
 * @property {(name: string, callback: (...args: any[]) => void) => void} on
 * @property {(name: string, callback?: (...args: any[]) => void) => void} off
 */
export {};
