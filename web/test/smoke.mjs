// The planner as wasm, in node alone: `node smoke.mjs PLANNER.wasm`. What it writes is what the Rust tests hold; here it is that it loads, plans, and says what is wrong.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const { instance } = await WebAssembly.instantiate(readFileSync(process.argv[2]), {});
const { memory, allocate, release, plan } = instance.exports;

function ask(request) {
    const bytes = new TextEncoder().encode(JSON.stringify(request));
    const at = allocate(bytes.length);
    new Uint8Array(memory.buffer, at, bytes.length).set(bytes);
    const reply = plan(at, bytes.length);
    release(at, bytes.length);
    const length = new DataView(memory.buffer).getUint32(reply, true);
    const text = new TextDecoder().decode(new Uint8Array(memory.buffer, reply + 4, length));
    release(reply, length + 4);
    return JSON.parse(text);
}

for (const spec of ["batch 8x64x56x56 last relu residual backward", "layer 4096x1024 f16 backward", "group:8 2x64x7x7 backward", "rms 8x256 gate=last", "derf 8x32 backward"]) {
    const { forward, backward } = ask({ spec }).recipes;
    assert.ok(forward.dispatches.length > 0 && forward.kernels.every(({ wgsl }) => wgsl.includes("@compute")), spec);
    assert.equal(backward !== null, spec.endsWith("backward"), spec);
}
assert.deepEqual(ask({ capabilities: {} }).probes.map(({ found }) => found), ["ExactF16"]);
assert.equal(ask({ spec: "lair 4x5" }).error.kind, "Spec");
const before = memory.buffer.byteLength;
for (let i = 0; i < 50; i += 1) ask({ spec: "layer 64x256 backward" });
assert.ok(memory.buffer.byteLength <= before + 2 ** 20, "what is planned is let go of");
console.log("the planner loads, plans and says what is wrong");
