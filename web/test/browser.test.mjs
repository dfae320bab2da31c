// The package as a page and a worker of a browser see it: headless Chromium, on SwiftShader.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open, pageOf } from "./chromium.mjs";

// What both run: a training step of the README's kind, and what a page sees of an error.
const STEP = `
    import { batchNorm, createContext } from "/dist/index.js";
    export async function step() {
        const adapter = await navigator.gpu?.requestAdapter();
        if (!adapter) return { error: "no adapter" };
        const device = await adapter.requestDevice();
        const context = await createContext(device, { adapterInfo: adapter.info });
        const norm = batchNorm(context, 4, { layout: "channels_last", activation: "relu" });
        const x = context.upload([2, 3, 3, 4], Float32Array.from({ length: 72 }, (_, i) => Math.sin(i)));
        const dy = context.upload([2, 3, 3, 4], new Float32Array(72).fill(1));
        const { y, saved } = await norm.forward({ x });
        const { dx, dbeta } = await norm.backward({ x }, dy, saved);
        const [values, gradient, sums] = await Promise.all([y, dx, dbeta].map((tensor) => context.download(tensor)));
        const refused = await context.operations("lair 4x5").catch((error) => error.kind);
        device.destroy();
        await device.lost;
        const lost = await context.operations("layer 4x8").catch((error) => error.kind);
        return { y: [...values], dx: [...gradient], dbeta: [...sums], refused, lost, cpu: context.capabilities.cpu };
    }
`;
const PAGES = {
    "/step.js": STEP,
    "/page.html": "<!doctype html><title>page</title>",
    "/worker.js": 'import { step } from "/step.js"; postMessage(await step());',
};

let opened;
before(async () => (opened = await open(undefined, PAGES)));
after(() => opened?.close());

// y and the sums of dz, in float64.
function expected() {
    const x = Array.from({ length: 72 }, (_, i) => Math.fround(Math.sin(i)));
    const of = (channel) => x.filter((_, i) => i % 4 === channel);
    const mean = [0, 1, 2, 3].map((channel) => of(channel).reduce((sum, value) => sum + value, 0) / 18);
    const deviation = mean.map((mean, channel) => Math.sqrt(of(channel).reduce((sum, value) => sum + (value - mean) ** 2, 0) / 18 + 1e-5));
    const y = x.map((value, i) => Math.max(0, (value - mean[i % 4]) / deviation[i % 4]));
    return { y, dbeta: [0, 1, 2, 3].map((channel) => y.filter((value, i) => i % 4 === channel && value > 0).length) };
}

function check(got) {
    assert.equal(got.error, undefined);
    const { y, dbeta } = expected();
    y.forEach((value, i) => assert.ok(Math.abs(got.y[i] - value) < 1e-5, `y[${i}]: ${got.y[i]} is not ${value}`));
    assert.deepEqual(got.dbeta, dbeta);
    assert.ok(got.dx.length === 72 && got.dx.every(Number.isFinite));
    assert.deepEqual([got.refused, got.lost, got.cpu], ["Spec", "DeviceLost", true]);
}

test("in a page", async () => {
    const { page, errors } = await pageOf(opened.browser);
    await page.goto(`${opened.origin}/page.html`);
    check(await page.evaluate(async () => (await import("/step.js")).step()));
    assert.deepEqual(errors, []);
});

test("in a worker", async () => {
    const { page } = await pageOf(opened.browser);
    await page.goto(`${opened.origin}/page.html`);
    const got = await page.evaluate(
        () =>
            new Promise((done, failed) => {
                const worker = new Worker("/worker.js", { type: "module" });
                worker.onmessage = ({ data }) => done(data);
                worker.onerror = ({ message }) => failed(new Error(message));
            }),
    );
    check(got);
});
