// What tests share: a device of Dawn in node, over whatever Vulkan driver there is; numbers, and comparing them.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);
// SwiftShader, as Debian's Chromium and Chrome bring it along.
const SWIFTSHADER = ["/usr/lib/chromium", "/opt/google/chrome", "/usr/lib/chromium-browser"].map((folder) => `${folder}/vk_swiftshader_icd.json`);

// Kept reachable: what is collected takes the process with it.
const kept = (globalThis.kept = []);

async function requestAdapter() {
    const gpu = create([]);
    kept.push(gpu);
    return gpu.requestAdapter();
}

// An adapter of which no device has been opened: it gives one.
export async function openAdapter() {
    let adapter = await requestAdapter();
    const software = SWIFTSHADER.find(existsSync);
    if (!adapter && software) {
        // Mesa's lavapipe has what Dawn asks for from Mesa 23 on.
        process.env.VK_ICD_FILENAMES = process.env.VK_DRIVER_FILES = software;
        adapter = await requestAdapter();
    }
    if (!adapter) throw new Error(`no adapter that Dawn takes: install a Vulkan driver (Mesa 23 or newer) or Chromium, whose SwiftShader is looked for at ${SWIFTSHADER.join(", ")}`);
    kept.push(adapter);
    return adapter;
}

export async function openDevice() {
    const adapter = await openAdapter();
    const requiredFeatures = ["subgroups"].filter((feature) => adapter.features.has(feature));
    const device = await adapter.requestDevice({ requiredFeatures });
    kept.push(device);
    return { adapter, device };
}

// Numbers between -1 and 1, the same every time.
export function values(length, seed) {
    let state = seed;
    return Float32Array.from({ length }, () => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state / 2 ** 31 - 1;
    });
}

export function close(what, got, expected, bound = 2e-5) {
    assert.equal(got.length, expected.length, what);
    expected.forEach((value, i) => assert.ok(Math.abs(got[i] - value) <= bound * Math.max(1, Math.abs(value)), `${what}[${i}]: ${got[i]} is not ${value}`));
}
