// Every panel by its name, as Python calls it.
import { draw as code } from "./panels/code.js";
import { draw as console_ } from "./panels/console.js";
import { draw as control } from "./panels/control.js";
import { draw as exits } from "./panels/exits.js";
import { draw as paging } from "./panels/paging.js";
import { draw as registers } from "./panels/registers.js";
import { draw as segments } from "./panels/segments.js";
import { draw as sentence } from "./panels/sentence.js";
import { draw as shadow } from "./panels/shadow.js";
import { draw as timeline } from "./panels/timeline.js";
import { draw as toolbar } from "./panels/toolbar.js";
import { draw as world } from "./panels/world.js";

/** @type {Record<string, import("./types.js").Draw>} */
export const PANELS = { toolbar, sentence, world, timeline, code, registers, segments, paging, shadow, control, exits, console: console_ };

/** The panels that share the stage, in the order of their tabs. */
export const STAGE = ["shadow", "paging", "control", "segments", "exits"];
