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

// Structs of kvmlab.h as wasm32 lays them out: pointers are 4 bytes, 64-bit fields are aligned to 8.
const CONFIG = { size: 40, engine: 0, kind: 4, cpu: 8 };
const REGS = { size: 144, rax: 0, rcx: 8, rdx: 16, rip: 128 };
const SREGS = { size: 8 * 24 + 88, cs_base: 24, cs_selector: 24 + 16 };
const RUN_ARGS = { size: 24, max_instructions: 0 };
const EXIT = { size: 256, reason: 0 };
const EXIT_HLT = 5;

/** A machine with 64 KiB of memory that starts at 0:1000h, where `code` is. */
async function machine(code) {
  const core = await fresh();
  const view = () => new DataView(core.memory.buffer);
  const take = (size) => core.calloc(1, size);
  const words = (text) => {
    const at = take(text.length + 1);
    core.bytes(at, text.length).set(new TextEncoder().encode(text));
    return at;
  };
  const done = (result) => assert.equal(result, 0);

  const message = take(256);
  done(core.kl_init(message));
  const config = take(CONFIG.size);
  view().setUint32(config + CONFIG.engine, words("soft"), true);
  view().setUint32(config + CONFIG.kind, words("machine"), true);
  view().setUint32(config + CONFIG.cpu, words("intel-2006"), true);
  const handle = take(4);
  assert.equal(core.kl_create(config, handle, message, 256), 0, core.string(message));
  const vm = view().getUint32(handle, true);

  done(core.kl_set_memory_region(vm, 0, 0n, 0x10000n, 0));
  const bytes = take(code.length);
  core.bytes(bytes, code.length).set(code);
  assert.equal(core.kl_write(vm, 0, 0x1000n, bytes, BigInt(code.length)), BigInt(code.length));

  const sregs = take(SREGS.size);
  done(core.kl_get_sregs(vm, 0, sregs));
  view().setBigUint64(sregs + SREGS.cs_base, 0n, true);
  view().setUint16(sregs + SREGS.cs_selector, 0, true);
  done(core.kl_set_sregs(vm, 0, sregs));
  const regs = take(REGS.size);
  done(core.kl_get_regs(vm, 0, regs));
  view().setBigUint64(regs + REGS.rip, 0x1000n, true);
  done(core.kl_set_regs(vm, 0, regs));

  return {
    core,
    run(limit) {
      const args = take(RUN_ARGS.size), exit = take(EXIT.size);
      view().setBigUint64(args + RUN_ARGS.max_instructions, limit, true);
      done(core.kl_run(vm, 0, args, exit));
      return view().getUint32(exit + EXIT.reason, true);
    },
    register(offset) {
      done(core.kl_get_regs(vm, 0, regs));
      return view().getBigUint64(regs + offset, true);
    },
    read16(address) {
      const to = take(2);
      assert.equal(core.kl_read(vm, 0, address, to, 2n), 2n);
      return view().getUint16(to, true);
    },
    close: () => core.kl_destroy(vm),
  };
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

  "runs a guest of five instructions": async () => {
    const guest = await machine([
      0xb8, 0x34, 0x12, // mov ax, 0x1234
      0xb9, 0x11, 0x11, // mov cx, 0x1111
      0x01, 0xc8, //       add ax, cx
      0xa3, 0x00, 0x20, // mov [0x2000], ax
      0xf4, //             hlt
    ]);
    assert.equal(guest.run(1000n), EXIT_HLT);
    assert.equal(guest.register(REGS.rax) & 0xffffn, 0x2345n);
    assert.equal(guest.read16(0x2000n), 0x2345);
    guest.close();
  },

  "multiplies": async () => {
    const guest = await machine([
      0x66, 0xb8, 0xff, 0xff, 0xff, 0xff, // mov eax, -1
      0x66, 0xf7, 0xe0, //                   mul eax: edx:eax = fffffffe:00000001
      0x66, 0x0f, 0xaf, 0xd2, //             imul edx, edx: 4
      0xf4, //                               hlt
    ]);
    assert.equal(guest.run(1000n), EXIT_HLT);
    assert.equal(guest.register(REGS.rax), 1n);
    assert.equal(guest.register(REGS.rdx), 4n);
    guest.close();
  },

  "steps it, and ends one that loops for ever": async () => {
    const guest = await machine([0x40, 0xeb, 0xfd]); // inc ax; jmp $-1
    const ax = guest.register(REGS.rax) & 0xffffn;
    guest.run(1n);
    assert.equal(guest.register(REGS.rip), 0x1001n);
    guest.run(1n);
    assert.equal(guest.register(REGS.rip), 0x1000n);
    guest.run(1_000_000n);
    assert.equal(guest.register(REGS.rax) & 0xffffn, (ax + 500_001n) & 0xffffn);
    guest.close();
  },
};

for (const [name, test] of Object.entries(tests)) {
  await test();
  console.log(`ok ${name}`);
}
