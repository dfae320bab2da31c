// The Rust crate in a page, with wgpu: a training loop, what it holds, and a device that is lost.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open, pageOf } from "./chromium.mjs";

// What a page sees of all buffers that are made and not destroyed, and its devices.
const WATCH = `
    const live = new Map();
    let most = 0;
    const devices = [];
    const [request, create, destroy] = [GPUAdapter.prototype.requestDevice, GPUDevice.prototype.createBuffer, GPUBuffer.prototype.destroy];
    const sum = () => [...live.values()].reduce((a, b) => a + b, 0);
    GPUAdapter.prototype.requestDevice = async function (...all) {
        const device = await request.apply(this, all);
        devices.push(device);
        return device;
    };
    GPUDevice.prototype.createBuffer = function (descriptor) {
        const buffer = create.call(this, descriptor);
        live.set(buffer, descriptor.size);
        most = Math.max(most, sum());
        return buffer;
    };
    GPUBuffer.prototype.destroy = function () {
        live.delete(this);
        destroy.call(this);
    };
    import init, { train } from "/page/wasm/wgnorm_web_check.js";
    await init();
    window.train = train;
    window.watched = { get most() { return most; }, get live() { return sum(); }, devices };
`;
const MIB = 2 ** 20;

let opened;
before(async () => (opened = await open(undefined, { "/rust.html": `<!doctype html><title>Rust</title><script type="module">${WATCH}</script>` })));
after(() => opened?.close());

async function rust() {
    const { page } = await pageOf(opened.browser);
    await page.goto(`${opened.origin}/rust.html`);
    await page.waitForFunction(() => window.train);
    return page;
}

test("a training loop holds what it has, and lets go of what it drops", async () => {
    const page = await rust();
    const { means, most, live } = await page.evaluate(async () => {
        const means = [...(await window.train(20, 8))];
        return { means, most: window.watched.most, live: window.watched.live };
    });
    // Each batch is of 4 MiB; y and dx are as large: twenty of each would be 240.
    assert.ok(most < 40 * MIB, `${most / MIB} MiB were held at once`);
    assert.ok(live < 2 * MIB, `${live / MIB} MiB are held at the end`);
    means.forEach((mean, c) => assert.ok(Math.abs(mean - c * (1 - 0.9 ** 20)) < 1e-4 * (1 + c), `channel ${c}: ${mean}`));
});

test("a device that is lost is told by what is awaited", async () => {
    const page = await rust();
    const error = await page.evaluate(async () => {
        const training = window.train(100000, 1).then(() => "it ended", (error) => String(error));
        while (window.watched.devices.length === 0) await new Promise((done) => setTimeout(done, 10));
        await new Promise((done) => setTimeout(done, 500));
        window.watched.devices[0].destroy();
        return training;
    });
    assert.match(error, /lost/i);
});
