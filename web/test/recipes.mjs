// The cases of `wgnorm check` through the package: their recipes on its runtime, held against float64 by the crate's own expectations.

import { readFileSync } from "node:fs";
import init, { Problem, lines } from "../page/wasm/wgnorm_web_check.js";

let loaded;
const load = () => (loaded ??= init({ module_or_path: readFileSync(new URL("../page/wasm/wgnorm_web_check_bg.wasm", import.meta.url)) }));

export async function quickLines() {
    await load();
    return lines();
}

// Runs a line's passes; null if no recipe has it, else what is wrong.
export async function runLine(context, line) {
    await load();
    const problem = new Problem(line);
    const buffers = new Map();
    try {
        let operations;
        try {
            operations = await context.operations(problem.spec);
        } catch (error) {
            if (error.kind === "Spec" || error.kind === "TooLarge") return { skipped: error.message };
            throw error;
        }
        const failures = [];
        let outputs = 0;
        for (const [operation, backward] of [[operations.forward, false], [operations.backward, true]]) {
            if (!operation) continue;
            const given = {};
            for (const { name, bytes } of operation.recipe.operands) {
                if (!buffers.has(name)) buffers.set(name, upload(context.device, Math.ceil(bytes / 4) * 4, problem.operand(name)));
                given[name] = { buffer: buffers.get(name), offset: 0 };
            }
            const prepared = operation.bind(given);
            context.submit((encoder) => prepared.record(encoder));
            for (const { name, written } of operation.recipe.operands) {
                if (written) problem.leave(name, new Uint8Array(await context.bytes(buffers.get(name), 0, buffers.get(name).size)));
            }
            prepared.destroy();
            const held = JSON.parse(problem.hold(backward));
            failures.push(...held.failures);
            outputs += held.outputs.length;
        }
        return { failures, outputs };
    } finally {
        buffers.forEach((buffer) => buffer.destroy());
        problem.free();
    }
}

// What is not given begins as NaN.
function upload(device, size, bytes) {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = device.createBuffer({ size: Math.max(size, 4), usage, mappedAtCreation: true });
    const room = new Uint8Array(buffer.getMappedRange());
    room.fill(0xff);
    if (bytes) room.set(bytes.subarray(0, room.length));
    buffer.unmap();
    return buffer;
}
