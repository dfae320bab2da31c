// What PyTorch computed in float64 (tests/data/conformance of the repository), by layers of the package.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { batchNorm, createContext, groupNorm, instanceNorm, layerNorm, rmsNorm } from "../dist/index.js";
import { openDevice } from "./support.mjs";

const folder = new URL("../../tests/data/conformance/", import.meta.url);
const ARRAYS = { F32: Float32Array, F64: Float64Array, I64: BigInt64Array };
const manifest = JSON.parse(readFileSync(new URL("manifest.json", folder), "utf8"));

let context;
before(async () => {
    const { device, adapter } = await openDevice();
    context = await createContext(device, { adapterInfo: adapter.info });
});
after(() => setTimeout(() => process.exit(), 100).unref());

const files = new Map();
function stored(file, key) {
    if (!files.has(file)) {
        const bytes = readFileSync(new URL(file, folder));
        const length = Number(bytes.readBigUInt64LE(0));
        files.set(file, { header: JSON.parse(bytes.subarray(8, 8 + length).toString()), data: bytes.buffer.slice(bytes.byteOffset + 8 + length) });
    }
    const { header, data } = files.get(file);
    const { dtype, shape, data_offsets: [begin, end] } = header[key];
    return Object.assign(new ARRAYS[dtype](data.slice(begin, end)), { shape });
}

// The element of an array, whose axes may be of one, at a flat index of a shape.
function broadcast(values, at, shape) {
    let [rest, index, stride] = [at, 0, 1];
    for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
        const length = values.shape[axis - (shape.length - values.shape.length)] ?? 1;
        if (length > 1) index += (rest % shape[axis]) * stride;
        [rest, stride] = [Math.floor(rest / shape[axis]), stride * length];
    }
    return values[index];
}

const MAKE = {
    batch_norm_train: ({ shape: [, channels] }, options, { batch_weight, running_var_correction }) =>
        batchNorm(context, channels, { ...options, momentum: batch_weight === null ? "cumulative" : { new: batch_weight }, biased: running_var_correction === 0 }),
    batch_norm_eval: ({ shape: [, channels] }, options) => batchNorm(context, channels, options),
    layer_norm: (_, options, { normalized_shape }) => layerNorm(context, normalized_shape, options),
    rms_norm: (_, options, { normalized_shape }) => rmsNorm(context, normalized_shape, options),
    group_norm: ({ shape: [, channels] }, options, { num_groups }) => groupNorm(context, num_groups, channels, options),
    instance_norm: ({ shape: [, channels] }, options) => instanceNorm(context, channels, options),
};

// Cases of float32 whose inputs are stored, of layers that the package has.
const cases = manifest.cases.filter(({ op, attrs, dtype, param_dtype, inputs }) => {
    const tracks = op === "instance_norm" && attrs.track_running_stats;
    return MAKE[op] && !tracks && [dtype, param_dtype].every((type) => type === "float32") && Object.values(inputs).every(({ key }) => key) && attrs.layout === "channels_first";
});

async function run(of) {
    const { op, attrs, shape, file, inputs } = of;
    const given = (name) => inputs[name] && stored(file, inputs[name].key);
    const { eps, affine, activation } = attrs;
    const training = MAKE[op](of, { eps, affine, ...(activation === "none" ? {} : { activation }) }, attrs);
    const write = (tensor, values) => values && context.device.queue.writeBuffer(tensor.buffer, 0, values);
    write(training.parameters.gamma, given("weight"));
    write(training.parameters.beta, given("bias"));
    const [mean, variance] = [given("running_mean"), given("running_var")];
    if (mean) write(training.running, Float32Array.from([...mean, ...variance, ...new Float32Array(mean.length)]));
    const layer = op === "batch_norm_eval" ? training.freeze() : training;
    const input = { x: context.upload(shape, given("x")), residual: inputs.residual && context.upload(shape, given("residual")) };
    const { y, saved } = await layer.forward(input);
    const outputs = { y };
    if (inputs.dy) {
        const { dx, dgamma, dbeta, dResidual } = await layer.backward(input, context.upload(shape, given("dy")), saved);
        Object.assign(outputs, { dx, dweight: dgamma, dbias: dbeta, dresidual: dResidual });
    }
    const results = Object.fromEntries(await Promise.all(Object.entries(outputs).filter(([, tensor]) => tensor).map(async ([name, tensor]) => [name, await context.download(tensor)])));
    if (layer.running && op === "batch_norm_train") {
        const values = await context.download(layer.running);
        [results.running_mean, results.running_var] = [0, 1].map((i) => values.slice((i * values.length) / 3, ((i + 1) * values.length) / 3));
    }
    return results;
}

function compare({ name, file, inputs, expected }, results) {
    let compared = 0;
    for (const [output, { key, shape, rtol, atol, sampled }] of Object.entries(expected)) {
        const got = results[output];
        if (output.startsWith("save_")) continue;
        assert.ok(got, `${name}: ${output} is not computed`);
        const [values, bounds] = [stored(file, key), stored(file, atol)];
        const sample = sampled && stored(file, inputs.sample_index.key);
        values.forEach((value, i) => {
            const at = sample ? Number(sample[i]) : i;
            const bound = broadcast(bounds, at, shape) + rtol * Math.abs(value);
            const right = Number.isFinite(value) ? Math.abs(got[at] - value) <= bound : !Number.isFinite(got[at]);
            assert.ok(right, `${name}: ${output}[${at}]: ${got[at]} is not ${value} within ${bound}`);
        });
        compared += 1;
    }
    return compared;
}

test("stored results of PyTorch hold", async (t) => {
    let outputs = 0;
    for (const of of cases) outputs += compare(of, await run(of));
    t.diagnostic(`${cases.length} cases of ${manifest.cases.length}, ${outputs} outputs`);
    assert.ok(cases.length >= 30 && outputs >= 4 * cases.length, `${cases.length} cases, ${outputs} outputs`);
});
