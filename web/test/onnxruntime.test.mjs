// The example with ONNX Runtime: a norm on a tensor of a session's.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open, pageOf } from "./chromium.mjs";
import { close, values } from "./support.mjs";

const imports = { wgnorm: "/dist/index.js", "onnxruntime-web/webgpu": "/node_modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs" };
let opened;
before(async () => (opened = await open(undefined, { "/onnx.html": `<!doctype html><title>ONNX Runtime</title><script type="importmap">${JSON.stringify({ imports })}</script>` })));
after(() => opened?.close());

test("a norm between two runs of a session", async () => {
    const { page } = await pageOf(opened.browser);
    await page.goto(`${opened.origin}/onnx.html`);
    const x = values(32, 21);
    const { normalized, last } = await page.evaluate(async (x) => {
        const { run } = await import("/examples/onnxruntime.mjs");
        const { normalized, last } = await run(Float32Array.from(x));
        return { normalized: [...normalized], last: [...last] };
    }, [...x]);
    const relu = (value) => Math.max(0, value);
    const expected = [];
    for (let row = 0; row < 4; row += 1) {
        const h = [...x.slice(8 * row, 8 * row + 8)].map((value) => relu(2 * value));
        const mean = h.reduce((a, b) => a + b) / 8;
        const inverse = 1 / Math.sqrt(h.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 8 + 1e-5);
        expected.push(...h.map((value) => (value - mean) * inverse));
    }
    close("what is normalized", normalized, expected);
    close("what the session makes of it", last, expected.map((value) => relu(2 * value)));
});
