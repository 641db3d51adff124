// The core as WebAssembly, without any kernel: run by test_wasm.py as `node test_wasm.mjs engine.wasm`.
// Prints "ok NAME" for each test that passed and ends with an error at the first that did not.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import process from "node:process";

const module = await WebAssembly.compile(await readFile(process.argv[2]));
const text = new TextDecoder();

/** A fresh module: its exports, and views of its memory that are right after it has grown. */
async function fresh() {
  const { exports } = await WebAssembly.instantiate(module, {});
  const bytes = (at, length) => new Uint8Array(exports.memory.buffer, at, length);
  const string = (at) => {
    const all = new Uint8Array(exports.memory.buffer, at);
    return text.decode(all.subarray(0, all.indexOf(0)));
  };
  return { ...exports, bytes, string };
}

const tests = {
  "needs nothing from outside": async () => {
    assert.deepEqual(WebAssembly.Module.imports(module), []);
  },

  "says its version": async () => {
    const core = await fresh();
    assert.match(core.string(core.kl_version()), /^\d+\.\d+/);
  },

  "hands out memory, takes it back and uses it again": async () => {
    const core = await fresh();
    const sizes = [1, 16, 17, 4000, 32752, 32753, 70000, 4 << 20, 33, 1 << 20];
    const blocks = sizes.map((size, i) => {
      const at = core.malloc(size);
      assert.equal(at % 16, 0);
      core.bytes(at, size).fill(i + 1);
      return at;
    });
    sizes.forEach((size, i) => assert.ok(core.bytes(blocks[i], size).every((byte) => byte === i + 1), `block ${i}`));
    const grown = core.memory.buffer.byteLength;
    blocks.forEach((at) => core.free(at));
    for (let round = 0; round < 100; round++) {
      const again = sizes.map((size) => core.malloc(size));
      again.forEach((at) => core.free(at));
    }
    assert.equal(core.memory.buffer.byteLength, grown);
    assert.equal(core.malloc(0xffff0000), 0, "4 GiB cannot be had");
  },
};

for (const [name, test] of Object.entries(tests)) {
  await test();
  console.log(`ok ${name}`);
}
