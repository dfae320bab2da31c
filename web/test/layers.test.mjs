// Layers on a real device, beside float64.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Tensor, WgnormError, batchNorm, createContext, derf, dynamicTanh, groupNorm, instanceNorm, l2Norm, layerNorm, maskOf, meanVarianceNorm, rmsNorm, scaleNorm, weightNorm, weightStandardization } from "../dist/index.js";
import { close, openDevice, values } from "./support.mjs";

let context;
before(async () => {
    const { device, adapter } = await openDevice();
    context = await createContext(device, { adapterInfo: adapter.info });
});
after(() => setTimeout(() => process.exit(), 100).unref());

// y and dx of slices that are lists of indices, each element with a parameter of its own, in float64.
function reference(x, dy, slices, gamma, eps = 1e-5, centred = true) {
    const [y, dx] = [new Float64Array(x.length), new Float64Array(x.length)];
    for (const slice of slices) {
        const sum = (of) => slice.reduce((total, i) => total + of(i), 0) / slice.length;
        const mean = centred ? sum((i) => x[i]) : 0;
        const inverse = 1 / Math.sqrt(sum((i) => (x[i] - mean) ** 2) + eps);
        const xhat = (i) => (x[i] - mean) * inverse;
        const first = centred ? sum((i) => gamma(i) * dy[i]) : 0;
        const second = sum((i) => gamma(i) * dy[i] * xhat(i));
        for (const i of slice) {
            y[i] = xhat(i) * gamma(i);
            dx[i] = inverse * (gamma(i) * dy[i] - first - xhat(i) * second);
        }
    }
    return { y, dx };
}

function grouped(length, of) {
    const slices = new Map();
    for (let i = 0; i < length; i += 1) slices.set(of(i), [...(slices.get(of(i)) ?? []), i]);
    return [...slices.values()];
}

const [N, C, S] = [3, 8, 10];
for (const [name, make, slice, gamma, eps, centred] of [
    ["batch norm", () => batchNorm(context, C), (i) => Math.floor(i / S) % C, (i) => Math.floor(i / S) % C],
    ["batch norm, channels last", () => batchNorm(context, C, { layout: "channels_last" }), (i) => i % C, (i) => i % C],
    ["group norm", () => groupNorm(context, 2, C), (i) => Math.floor(i / (S * 4)), (i) => Math.floor(i / S) % C],
    ["instance norm", () => instanceNorm(context, C, { affine: "both" }), (i) => Math.floor(i / S), (i) => Math.floor(i / S) % C],
    ["layer norm", () => layerNorm(context, [S]), (i) => Math.floor(i / S), (i) => i % S],
    ["layer norm over channels", () => layerNorm(context, [C], { axes: [1] }), (i) => Math.floor(i / (S * C)) * S + (i % S), (i) => Math.floor(i / S) % C],
    ["layer norm over samples and positions", () => layerNorm(context, [S, N], { axes: [2, 0] }), (i) => Math.floor(i / S) % C, (i) => (i % S) * N + Math.floor(i / (S * C))],
    ["RMS norm", () => rmsNorm(context, [S], { eps: 1e-6 }), (i) => Math.floor(i / S), (i) => i % S, 1e-6, false],
]) {
    test(`${name}, a training step`, async () => {
        const last = name.endsWith("last");
        const shape = last ? [N, S, C] : [N, C, S];
        const [x, dy] = [values(N * C * S, 11), values(N * C * S, 12)];
        const layer = make();
        const { length, shape: of } = layer.parameters.gamma;
        const weights = values(length, 13);
        layer.parameters.gamma.destroy();
        layer.parameters.gamma = context.upload(of, weights);
        const [tx, tdy] = [context.upload(shape, x), context.upload(shape, dy)];
        const { y, saved } = await layer.forward({ x: tx });
        const gradients = await layer.backward({ x: tx }, tdy, saved);
        const expected = reference(x, dy, grouped(x.length, slice), (i) => weights[gamma(i)], eps, centred);
        close(`${name} y`, await context.download(y), expected.y);
        close(`${name} dx`, await context.download(gradients.dx), expected.dx, 1e-4);
        if (gradients.dbeta) {
            const dbeta = new Float64Array(length);
            dy.forEach((value, i) => (dbeta[gamma(i)] += value));
            close(`${name} dbeta`, await context.download(gradients.dbeta), dbeta);
        }
        if (name !== "batch norm" && !last) close(`${name} alone`, await context.download(await layer.infer({ x: tx })), expected.y);
        layer.destroy();
        await assert.rejects(layer.forward({ x: tx }), (error) => error instanceof WgnormError && error.kind === "Destroyed");
    });
}

// Values of x by the norm of their slice, times a number.
for (const [name, make, slice, gamma, centred] of [
    ["mean variance norm", () => meanVarianceNorm(context, [0, 2]), (i) => Math.floor(i / S) % C, () => 1, true],
    ["L2 norm", () => l2Norm(context, [1]), (i) => Math.floor(i / (S * C)) * S + (i % S), () => 1 / Math.sqrt(C), false],
    ["ScaleNorm", () => scaleNorm(context), (i) => Math.floor(i / S), () => 0.5 / Math.sqrt(S), false],
    ["weight norm", () => weightNorm(context, N), (i) => Math.floor(i / (S * C)), (i) => (1 + Math.floor(i / (S * C))) / Math.sqrt(S * C), false],
    ["weight standardization", () => weightStandardization(context, N), (i) => Math.floor(i / (S * C)), (i) => 1 + Math.floor(i / (S * C)), true],
]) {
    test(`${name}, a training step`, async () => {
        const [x, dy] = [values(N * C * S, 21), values(N * C * S, 22)];
        const layer = make();
        const { gamma: parameter } = layer.parameters;
        if (parameter) context.device.queue.writeBuffer(parameter.buffer, 0, Float32Array.from({ length: parameter.length }, (_, i) => (parameter.length === 1 ? 0.5 : 1 + i)));
        const [tx, tdy] = [context.upload([N, C, S], x), context.upload([N, C, S], dy)];
        const { y, saved } = await layer.forward({ x: tx });
        const { dx } = await layer.backward({ x: tx }, tdy, saved);
        const expected = reference(x, dy, grouped(x.length, slice), gamma, name.includes("tion") || centred ? 1e-5 : 0, centred);
        close(`${name} y`, await context.download(y), expected.y, 1e-4);
        close(`${name} dx`, await context.download(dx), expected.dx, 2e-4);
    });
}

test("a sum before the norm, and its gradient from elsewhere", async () => {
    const [x, addend, dy, elsewhere] = [1, 2, 3, 4].map((seed) => values(60, seed));
    const [tx, ta, tdy, ts] = [x, addend, dy, elsewhere].map((data) => context.upload([5, 12], data));
    const layer = layerNorm(context, [12]);
    const { y, saved, sum } = await layer.forward({ x: tx, addend: ta });
    const added = x.map((value, i) => Math.fround(value + addend[i]));
    const expected = reference(added, dy, grouped(60, (i) => Math.floor(i / 12)), () => 1);
    close("sum", await context.download(sum), added);
    close("y", await context.download(y), expected.y);
    close("y alone", await context.download(await layer.infer({ x: tx, addend: ta })), expected.y);
    const input = { x: tx, addend: ta, sum };
    const { dx } = await layer.backward(input, tdy, saved, ts);
    close("dx", await context.download(dx), expected.dx.map((value, i) => value + elsewhere[i]), 1e-4);
    const { dx: own } = await layer.backward(input, tdy, saved);
    close("dx of the norm alone", await context.download(own), expected.dx, 1e-4);
});

test("what is masked counts nowhere", async () => {
    const [n, c, positions] = [4, 3, 6];
    const x = values(n * c * positions, 31);
    const keep = Array.from({ length: n * positions }, (_, i) => i % 3 !== 1);
    const counts = (i) => keep[Math.floor(i / (c * positions)) * positions + (i % positions)];
    x.forEach((_, i) => counts(i) || (x[i] = NaN));
    const layer = batchNorm(context, c, { momentum: { new: 1 }, biased: true });
    const [tx, mask] = [context.upload([n, c, positions], x), maskOf(context, keep)];
    const { y, saved } = await layer.forward({ x: tx, mask });
    const got = await context.download(y);
    const running = await context.download(layer.running);
    const { dx, dbeta } = await layer.backward({ x: tx, mask }, context.upload([n, c, positions], new Float32Array(x.length).fill(1)), saved);
    for (let channel = 0; channel < c; channel += 1) {
        const kept = [...x.keys()].filter((i) => Math.floor(i / positions) % c === channel && counts(i));
        const mean = kept.reduce((sum, i) => sum + x[i], 0) / kept.length;
        const variance = kept.reduce((sum, i) => sum + (x[i] - mean) ** 2, 0) / kept.length;
        close("y", kept.map((i) => got[i]), kept.map((i) => (x[i] - mean) / Math.sqrt(variance + 1e-5)));
        close("running statistics", [running[channel], running[c + channel]], [mean, variance]);
        assert.equal((await context.download(dbeta))[channel], kept.length);
    }
    // The same gradient everywhere is none of what is normalized.
    close("dx", await context.download(dx), new Float64Array(x.length), 1e-5);
});

test("what would be left as it is, or be too short, is refused", async () => {
    const of = (shape) => context.zeros(shape);
    const layer = layerNorm(context, [8]);
    const [x, dy, dx, other] = [of([5, 8]), of([5, 8]), of([5, 8]), of([5, 8])];
    const { saved } = await layer.forward({ x });
    const refused = (kind, part, call) => assert.rejects(call, (error) => error instanceof WgnormError && error.kind === kind && error.message.includes(part), part);
    await refused("Operand", "dy itself", layer.prepareBackward({ x, residual: other }, dy, saved, { dx, dResidual: of([5, 8]) }));
    await refused("Operand", "an addend", layer.backward({ x }, dy, saved, other));
    await refused("Operand", "dalpha", layer.prepareBackward({ x }, dy, saved, { dx, dalpha: of([1]) }));
    await refused("Shape", "dgamma must be [8]", layer.prepareBackward({ x }, dy, saved, { dx, dgamma: of([5]) }));
    await refused("Shape", "saved must have 20 values", layer.prepareBackward({ x }, dy, of([4]), { dx }));
    await refused("Mask", "5 positions", layer.forward({ x, mask: maskOf(context, [true, false]) }));
    await refused("Mask", "40 positions", batchNorm(context, 3).forward({ x: of([4, 3, 10]), mask: maskOf(context, Array(10).fill(true)) }));
    await refused("SingleValue", "[1,3]", batchNorm(context, 3).forward({ x: of([1, 3]) }));
    await refused("Shape", "[3]", batchNorm(context, 3, { layout: "channels_last" }).forward({ x: of([3]) }));
    await refused("Shape", "residual must be", layer.infer({ x, residual: of([5, 7]) }));
});

test("what goes wrong on the device is told by the next read-back", async () => {
    const usage = GPUBufferUsage.STORAGE;
    const unreadable = new Tensor(context.device.createBuffer({ size: 64, usage }), [4]);
    await assert.rejects(context.download(unreadable), (error) => error.kind === "BufferUsage");
    const layer = layerNorm(context, [4]);
    const [x, y] = [context.zeros([2, 4]), context.zeros([2, 4])];
    const forward = await layer.prepareForward({ x }, y);
    x.buffer.destroy();
    context.submit((encoder) => forward.record(encoder));
    await assert.rejects(context.download(y), (error) => error.kind === "Validation" && error.message.includes("a submission"));
    // It is told once.
    assert.equal((await context.download(y)).length, 8);
});

test("lines that were asked for long ago are planned anew", async () => {
    const own = await createContext(context.device);
    for (let rows = 1; rows <= 300; rows += 1) await own.operations(`rms ${rows}x4 affine=none`);
    assert.throws(() => own.operationsNow("rms 1x4 affine=none"), (error) => error.kind === "NotReady");
    assert.ok(own.operationsNow("rms 300x4 affine=none"));
    assert.ok((await own.operations("rms 1x4 affine=none")).forward);
});

test("an x that parameters do not fit is refused", async () => {
    const of = (shape) => context.zeros(shape);
    for (const [layer, x, part] of [
        [layerNorm(context, [5]), of([2, 6]), "[5] in the axes 1, got [2,6]"],
        [layerNorm(context, [4, 3], { axes: [1, 3] }), of([2, 4, 5, 4]), "[4,3] in the axes 1,3"],
        [batchNorm(context, 4), of([2, 3, 4]), "4 channels, in axis 1"],
        [groupNorm(context, 2, 4, { layout: "channels_last" }), of([2, 4, 3]), "4 channels, last"],
        [rmsNorm(context, [2, 3, 4]), of([3, 4]), "[2,3,4]"],
    ]) {
        await assert.rejects(layer.infer({ x }), (error) => error.kind === "Shape" && error.message.includes(part), part);
    }
});

test("a buffer that ends with its tensor is walked value by value", async () => {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const of = (data) => {
        const buffer = context.device.createBuffer({ size: data.byteLength, usage });
        context.device.queue.writeBuffer(buffer, 0, data);
        return new Tensor(buffer, [5, 7]);
    };
    const x = values(35, 3);
    const layer = layerNorm(context, [7]);
    const [tx, y] = [of(x), of(new Float32Array(35))];
    assert.ok(tx.exact && !context.zeros([5, 7]).exact);
    const forward = await layer.prepareForward({ x: tx }, y);
    context.submit((encoder) => forward.record(encoder));
    const expected = reference(x, new Float32Array(35), grouped(35, (i) => Math.floor(i / 7)), () => 1);
    close("y", await context.download(y), expected.y);
});

test("a residual and an activation, and what is frozen", async () => {
    const shape = [N, C, S];
    const [x, residual] = [values(N * C * S, 21), values(N * C * S, 22)];
    const [tx, tr] = [context.upload(shape, x), context.upload(shape, residual)];
    const layer = batchNorm(context, C, { activation: "relu", momentum: { new: 1 }, biased: true });
    const { y, saved } = await layer.forward({ x: tx, residual: tr });
    const expected = reference(x, x, grouped(x.length, (i) => Math.floor(i / S) % C), () => 1).y.map((value, i) => Math.max(0, value + residual[i]));
    close("y", await context.download(y), expected);
    const { dResidual } = await layer.backward({ x: tx, residual: tr }, tr, saved);
    close("d_residual", await context.download(dResidual), [...expected].map((value, i) => (value > 0 ? residual[i] : 0)));
    // Its running statistics are those of the batch.
    const frozen = layer.freeze();
    close("frozen y", await context.download(await frozen.infer({ x: tx, residual: tr })), expected);
    await assert.rejects(layer.forward({ x: tx }), (error) => error.kind === "Destroyed");
    const other = context.zeros([N, C, S + 1]);
    await assert.rejects(frozen.infer({ x: tx, residual: other }), (error) => error.kind === "Shape" && error.message.includes("residual must be [3,8,10]"));
    frozen.destroy();
});

test("curves", async () => {
    const x = values(N * C, 31);
    const tx = context.upload([N, C], x);
    const tanh = dynamicTanh(context, C, { alpha: 2 });
    close("tanh", await context.download(await tanh.infer({ x: tx })), [...x].map((value) => Math.tanh(2 * value)));
    const gradients = await tanh.backward({ x: tx }, tx, undefined);
    close("dalpha", await context.download(gradients.dalpha), [[...x].reduce((sum, value) => sum + value * value * (1 - Math.tanh(2 * value) ** 2), 0)], 1e-4);
    // Of |x| below 1, erf by its series.
    const erf = (value) => {
        let [term, sum] = [value, value];
        for (let n = 1; n < 30; n += 1) sum += (term *= (-value * value) / n) / (2 * n + 1);
        return (2 / Math.sqrt(Math.PI)) * sum;
    };
    const { y } = await derf(context, C).forward({ x: tx });
    close("erf", await context.download(y), [...x].map((value) => erf(0.5 * value)));
});

test("kernels that were warmed up are compiled no more", async () => {
    const layer = layerNorm(context, [16]);
    const x = context.zeros([4, 16]);
    await context.warmUp([layer.line({ x })]);
    const compile = context.device.createComputePipelineAsync;
    context.device.createComputePipelineAsync = () => assert.fail("something is compiled");
    await layer.forward({ x });
    context.device.createComputePipelineAsync = compile;
});
