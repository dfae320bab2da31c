// Layers of TensorFlow.js: y, gradients and training beside its own operations, by its tables and through copies.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { WgnormError } from "../dist/index.js";
import { openTfjs } from "../dist/tfjs.js";
import { close, openAdapter, values } from "./support.mjs";

let tf;
before(async () => {
    const adapter = await openAdapter();
    // Its backend asks the browser for an adapter.
    Object.defineProperty(globalThis, "navigator", { value: { gpu: { requestAdapter: async () => adapter } }, configurable: true });
    tf = await bundled();
    assert.ok(await tf.setBackend("webgpu"));
});
after(() => setTimeout(() => process.exit(), 100).unref());

// Its gradients are modules that node takes in no other way.
async function bundled() {
    const outfile = fileURLToPath(new URL("../node_modules/.cache/tfjs.cjs", import.meta.url));
    const contents = 'export * from "@tensorflow/tfjs-core"; import "@tensorflow/tfjs-core/dist/register_all_gradients"; import "@tensorflow/tfjs-backend-webgpu";';
    const resolveDir = fileURLToPath(new URL("..", import.meta.url));
    await build({ stdin: { contents, resolveDir }, bundle: true, format: "cjs", platform: "node", mainFields: ["module", "main"], logLevel: "error", outfile });
    return createRequire(import.meta.url)(outfile);
}

// The same of TensorFlow.js' operations: statistics over some axes.
const normalized = (x, axes, { centred = true, eps = 1e-5 } = {}) => {
    const mean = tf.mean(x, axes, true);
    const from = centred ? tf.sub(x, mean) : x;
    return tf.mul(from, tf.rsqrt(tf.add(tf.mean(tf.square(from), axes, true), eps)));
};
const affine = (xhat, gamma, beta) => (beta ? tf.add(tf.mul(xhat, gamma), beta) : tf.mul(xhat, gamma));
const CASES = {
    "batch norm": {
        shape: [3, 5, 4, 8],
        make: (wgnorm) => wgnorm.batchNorm(8, { activation: "relu" }),
        own: (x, gamma, beta) => tf.relu(affine(normalized(x, [0, 1, 2]), gamma, beta)),
    },
    "layer norm": { shape: [6, 10], make: (wgnorm) => wgnorm.layerNorm([10]), own: (x, gamma, beta) => affine(normalized(x, [1]), gamma, beta) },
    // Rows that are no multiple of a word.
    "RMS norm": { shape: [5, 7], make: (wgnorm) => wgnorm.rmsNorm([7]), own: (x, gamma) => affine(normalized(x, [1], { centred: false, eps: 2 ** -23 }), gamma) },
    "group norm": {
        shape: [2, 3, 3, 6],
        make: (wgnorm) => wgnorm.groupNorm(2, 6),
        own: (x, gamma, beta) => affine(tf.reshape(normalized(tf.reshape(x, [2, 3, 3, 2, 3]), [1, 2, 4]), [2, 3, 3, 6]), gamma, beta),
    },
    "layer norm over the channels": {
        shape: [2, 6, 3, 5],
        make: (wgnorm) => wgnorm.layerNorm([6], { axes: [1] }),
        own: (x, gamma, beta) => affine(normalized(x, [1]), tf.reshape(gamma, [1, 6, 1, 1]), beta && tf.reshape(beta, [1, 6, 1, 1])),
    },
};

for (const copies of [false, true]) {
    for (const [name, { shape, make, own }] of Object.entries(CASES)) {
        test(`${name}${copies ? ", through copies" : ""}`, async () => {
            const wgnorm = await openTfjs(tf, { copies });
            assert.equal(wgnorm.copies, copies);
            const layer = make(wgnorm);
            const parameters = [layer.gamma, layer.beta].filter(Boolean);
            parameters.forEach((variable, i) => variable.assign(tf.tensor(values(variable.size, i + 5), variable.shape)));
            await layer.build(shape);
            const length = shape.reduce((a, b) => a * b);
            const [x, weights] = [tf.tensor(values(length, 1), shape), tf.tensor(values(length, 2), shape)];
            const before = tf.memory().numTensors;
            const graph = (norm) => (x, ...parameters) => tf.sum(tf.mul(norm(x, ...parameters), weights));
            const [ours, theirs] = [(x) => layer.apply(x), own].map((norm) => tf.valueAndGrads(graph(norm))([x, ...parameters]));
            close("the sum", await ours.value.data(), await theirs.value.data(), 2e-4);
            assert.equal(ours.grads.length, theirs.grads.length);
            for (const [i, gradient] of theirs.grads.entries()) close(`gradient ${i}`, await ours.grads[i].data(), await gradient.data(), 2e-4);
            const y = layer.apply(x);
            close("y", await y.data(), await own(x, ...parameters).data(), 2e-4);
            tf.dispose([y, ours, theirs]);
            // What a pass has used is let go of: the comparison's y is what is left.
            assert.ok(tf.memory().numTensors <= before + 12, `${tf.memory().numTensors} tensors, ${before} before`);
            const settled = tf.memory().numTensors;
            for (let step = 0; step < 3; step += 1) tf.dispose(tf.valueAndGrads(graph((x) => layer.apply(x)))([x, ...parameters]));
            assert.equal(tf.memory().numTensors, settled);
            layer.dispose();
            tf.dispose([x, weights]);
            assert.throws(() => layer.apply(x), (error) => error.kind === "Destroyed");
        });
    }
}

test("what a layer has is let go of with it", async () => {
    const wgnorm = await openTfjs(tf);
    const before = tf.memory().numTensors;
    const layer = wgnorm.batchNorm(4);
    assert.equal(tf.memory().numTensors, before + 2);
    layer.dispose();
    layer.dispose();
    assert.equal(tf.memory().numTensors, before);
});

test("a frozen pass keeps its statistics for its gradient", async () => {
    const wgnorm = await openTfjs(tf);
    const layer = wgnorm.batchNorm(3, { momentum: { new: 1 } });
    const shape = [8, 3];
    await layer.build(shape);
    const [x, other] = [tf.tensor(values(24, 41), shape), tf.tensor(values(24, 42).map((value) => 5 * value), shape)];
    const alone = tf.grad((x) => tf.sum(layer.apply(x, { training: false })))(x);
    // The batch in between moves the statistics by all of their weight.
    const both = tf.grad((x) => tf.add(tf.sum(layer.apply(x, { training: false })), tf.mul(0, tf.sum(layer.apply(other)))))(x);
    close("dx", await both.data(), await alone.data(), 1e-6);
    const moved = tf.grad((x) => tf.sum(layer.apply(x, { training: false })))(x);
    assert.ok(Math.abs((await moved.data())[0] - (await alone.data())[0]) > 0.1);
});

test("there is no gradient of a gradient", async () => {
    const wgnorm = await openTfjs(tf);
    const layer = wgnorm.layerNorm([6]);
    await layer.build([2, 6]);
    const f = (x) => tf.sum(tf.square(layer.apply(x)));
    const penalty = (x) => tf.add(f(x), tf.sum(tf.square(tf.grad(f)(x))));
    assert.throws(() => tf.grad(penalty)(tf.tensor(values(12, 43), [2, 6])), (error) => error.kind === "Unsupported");
});

test("training moves variables and running statistics, and inference takes these", async () => {
    const wgnorm = await openTfjs(tf);
    const layer = wgnorm.batchNorm(4, { momentum: { new: 0.5 } });
    const shape = [16, 4];
    await layer.build(shape);
    const x = tf.tensor(values(64, 9).map((value, i) => value * (1 + (i % 4)) + 2), shape);
    const target = tf.fill(shape, 3);
    const optimizer = tf.train.sgd(0.5);
    const loss = () => tf.mean(tf.square(tf.sub(layer.apply(x), target)));
    const losses = [];
    for (let step = 0; step < 30; step += 1) losses.push((await optimizer.minimize(loss, true).data())[0]);
    assert.ok(losses.at(-1) < 0.01 * losses[0], `${losses}`);
    close("beta", await layer.beta.data(), [3, 3, 3, 3], 0.05);
    const { mean, variance } = await layer.running();
    const host = await x.data();
    const of = (c) => [...host].filter((_, i) => i % 4 === c);
    const means = [0, 1, 2, 3].map((c) => of(c).reduce((a, b) => a + b) / 16);
    close("running means", mean, means, 1e-4);
    close("running variances", variance, means.map((mean, c) => of(c).reduce((sum, value) => sum + (value - mean) ** 2, 0) / 15), 1e-4);
    // Statistics of a batch of one sample would leave beta alone.
    await layer.build([1, 4], { training: false });
    const one = tf.tensor([means], [1, 4]);
    const frozen = layer.apply(one, { training: false });
    close("what is inferred of the means", await frozen.data(), await layer.beta.data(), 1e-3);
    const moved = await layer.running();
    assert.deepEqual([...moved.mean], [...mean]);
    const dx = tf.grad((x) => tf.sum(layer.apply(x, { training: false })))(one);
    const gamma = await layer.gamma.data();
    close("gradient with statistics that stay", await dx.data(), [...gamma].map((gamma, c) => gamma / Math.sqrt(variance[c] + 1e-5)), 1e-3);
});

test("what is not compiled, and another backend", async () => {
    const wgnorm = await openTfjs(tf);
    const layer = wgnorm.layerNorm([4]);
    assert.throws(() => layer.apply(tf.zeros([3, 4])), (error) => error instanceof WgnormError && error.kind === "NotReady");
    await layer.build([3, 4]);
    assert.throws(() => layer.apply(tf.zeros([3, 4], "int32")), (error) => error.kind === "Operand" && error.message.includes("int32"));
    await assert.rejects(layer.build([3, 5]), (error) => error instanceof WgnormError);
    await assert.rejects(openTfjs({ ...tf, getBackend: () => "cpu" }), (error) => error.kind === "Backend");
});
