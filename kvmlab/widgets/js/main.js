// What anywidget loads: one module for every widget of ours; the trait `panel` says which one it is.
import { open } from "./view.js";

/** @param {{model: import("./types.js").Model, el: HTMLElement}} context */
function render({ model, el }) {
  return open(model, el);
}

export default { render };
