// The runtime on a real device, beside float64.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createContext, Tensor, WgnormError } from "../dist/index.js";
import { close, openDevice, values } from "./support.mjs";

let context;
before(async () => {
    const { device, adapter } = await openDevice();
    context = await createContext(device, { adapterInfo: adapter.info });
});
after(() => setTimeout(() => process.exit(), 100).unref());

test("layer norm, forward and backward", async () => {
    const [rows, width] = [5, 48];
    const [x, dy, gamma, beta] = [[rows * width, 1], [rows * width, 2], [width, 3], [width, 4]].map(([length, seed]) => values(length, seed));
    const { forward, backward } = await context.operations(`layer ${rows}x${width} backward`);
    assert.deepEqual(forward.operands, ["x", "y", "gamma", "beta", "saved statistics"]);
    const upload = (data, shape) => context.upload(shape, data);
    const tx = upload(x, [rows, width]), tdy = upload(dy, [rows, width]), tg = upload(gamma, [width]), tb = upload(beta, [width]);
    const ty = context.zeros([rows, width]), saved = context.zeros([rows, 4]), tdx = context.zeros([rows, width]), dg = context.zeros([width]), db = context.zeros([width]);
    const f = forward.bind({ x: tx.range, y: ty.range, gamma: tg.range, beta: tb.range, "saved statistics": saved.range });
    const b = backward.bind({ x: tx.range, dy: tdy.range, dx: tdx.range, gamma: tg.range, beta: tb.range, dgamma: dg.range, dbeta: db.range, "saved statistics": saved.range });
    context.submit((encoder) => {
        f.record(encoder);
        b.record(encoder);
    });

    const [y, dx, dgamma, dbeta] = [Array(rows * width), Array(rows * width), Array(width).fill(0), Array(width).fill(0)];
    for (let row = 0; row < rows; row += 1) {
        const at = (i) => row * width + i;
        const indices = [...Array(width).keys()];
        const mean = indices.reduce((sum, i) => sum + x[at(i)], 0) / width;
        const variance = indices.reduce((sum, i) => sum + (x[at(i)] - mean) ** 2, 0) / width;
        const inverse = 1 / Math.sqrt(variance + 1e-5);
        const xhat = indices.map((i) => (x[at(i)] - mean) * inverse);
        const of = indices.map((i) => gamma[i] * dy[at(i)]);
        const [first, second] = [of.reduce((sum, g) => sum + g, 0) / width, of.reduce((sum, g, i) => sum + g * xhat[i], 0) / width];
        for (const i of indices) {
            y[at(i)] = xhat[i] * gamma[i] + beta[i];
            dx[at(i)] = inverse * (of[i] - first - xhat[i] * second);
            dgamma[i] += dy[at(i)] * xhat[i];
            dbeta[i] += dy[at(i)];
        }
    }
    close("y", await context.download(ty), y);
    close("dx", await context.download(tdx), dx);
    close("dgamma", await context.download(dg), dgamma);
    close("dbeta", await context.download(db), dbeta);
});

test("batch norm tracks running statistics", async () => {
    const [n, c, s] = [4, 3, 10];
    const x = values(n * c * s, 7);
    const { forward } = await context.operations(`batch ${n}x${c}x${s} affine=none backward`);
    const tx = context.upload([n, c, s], x), y = context.zeros([n, c, s]), saved = context.zeros([c, 10]);
    const running = context.upload([3, c], [0, 0, 0, 1, 1, 1, 0, 0, 0]);
    const prepared = forward.bind({ x: tx.range, y: y.range, "saved statistics": saved.range, "running statistics": running.range });
    context.submit((encoder) => prepared.record(encoder));
    const got = await context.download(running);
    const expected = [];
    for (let channel = 0; channel < c; channel += 1) {
        const of = x.filter((_, i) => Math.floor(i / s) % c === channel);
        const mean = of.reduce((sum, value) => sum + value, 0) / of.length;
        const variance = of.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (of.length - 1);
        expected[channel] = 0.1 * mean;
        expected[c + channel] = 0.9 + 0.1 * variance;
    }
    close("running statistics", got.slice(0, 2 * c), expected);
});

test("what is wrong is told", async () => {
    const refused = (kind, part) => (error) => error instanceof WgnormError && error.kind === kind && error.message.includes(part);
    await assert.rejects(context.operations("lair 4x5"), refused("Spec", '"lair" is no norm'));
    await assert.rejects(context.operations("batch 8x3x4 ghost=2"), refused("Spec", "several passes"));
    const { forward } = await context.operations("layer 4x64");
    const x = context.zeros([4, 64]), gamma = context.zeros([64]), beta = context.zeros([64]);
    const given = { x: x.range, y: x.range, gamma: gamma.range, beta: beta.range };
    assert.throws(() => forward.bind({ x: x.range }), refused("Operand", "y is missing"));
    assert.throws(() => forward.bind(given), refused("Shared", "y is written and lies in the buffer of x"));
    const y = context.zeros([4, 64]);
    assert.throws(() => forward.bind({ ...given, y: y.range, z: y.range }), refused("Operand", "z is nothing"));
    assert.throws(() => forward.bind({ ...given, y: { buffer: y.buffer, offset: 4 } }), refused("Misaligned", "byte 4"));
    assert.throws(() => forward.bind({ ...given, y: gamma.range }), refused("BufferTooSmall", "1024"));
    y.destroy();
    assert.throws(() => y.range, refused("Destroyed", "tensor"));
    assert.throws(() => new Tensor(x.buffer, [1000]), refused("BufferTooSmall", "4000"));
});
