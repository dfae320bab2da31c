// Layers from the files of three frameworks, and back.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { NAMINGS, batchNorm, createContext, loadLayer, readSafetensors, saveLayer, writeSafetensors } from "../dist/index.js";
import { close, openDevice } from "./support.mjs";

const file = async (name) => {
    const bytes = await readFile(new URL(`../../tests/data/state/${name}.safetensors`, import.meta.url));
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
};
const floats = ({ data }) => new Float32Array(data.slice().buffer);

let context, evaluated;
before(async () => {
    const { device, adapter } = await openDevice();
    context = await createContext(device, { adapterInfo: adapter.info });
    evaluated = readSafetensors(await file("stem_eval"));
});
after(() => setTimeout(() => process.exit(), 100).unref());

const refused = (part) => (error) => error.kind === "Safetensors" && error.message.includes(part);

for (const [name, rebias] of [["pytorch", undefined], ["keras", { count: 144 }], ["flax", { count: 144 }]]) {
    test(`${name}: a layer gives what PyTorch's gives`, async () => {
        const entries = readSafetensors(await file(name));
        const layer = batchNorm(context, 3);
        if (rebias) assert.throws(() => loadLayer(layer, entries, "stem", NAMINGS[name]), refused("say rebias"));
        loadLayer(layer, entries, "stem", NAMINGS[name], rebias);
        const again = await saveLayer(layer, "stem", NAMINGS[name], rebias);
        for (const [key, entry] of readSafetensors(writeSafetensors(again, { made: "here" }))) {
            assert.deepEqual([entry.dtype, entry.shape], [entries.get(key).dtype, entries.get(key).shape], key);
            if (entry.dtype === "F32") close(key, floats(entry), floats(entries.get(key)), rebias ? 1e-6 : 0);
            else assert.deepEqual(entry.data, entries.get(key).data, key);
        }
        const x = context.upload([2, 3, 2, 3], floats(evaluated.get("x")));
        const y = await layer.freeze().infer({ x });
        close("y", await context.download(y), floats(evaluated.get("y")));
    });
}

test("what is no file, and what is missing", async () => {
    const entries = readSafetensors(await file("pytorch"));
    const layer = batchNorm(context, 5);
    assert.throws(() => loadLayer(layer, entries, "stem", NAMINGS.pytorch), refused("stem.weight has 3 values, the layer 5"));
    assert.throws(() => loadLayer(layer, entries, "nowhere", NAMINGS.pytorch), refused("nowhere.weight is missing"));
    assert.deepEqual([...(await context.download(layer.parameters.gamma))], [1, 1, 1, 1, 1]);
    assert.throws(() => readSafetensors(new ArrayBuffer(4)), refused("8 bytes"));
    assert.throws(() => readSafetensors(new Uint8Array(16).fill(255).buffer), refused("header"));
    const broken = writeSafetensors(new Map([["a", { dtype: "F32", shape: [2], data: new Uint8Array(8) }]]));
    assert.throws(() => readSafetensors(broken.slice(0, broken.byteLength - 1)), refused("a: [2] of F32"));
});

test("16 bits are widened, and what is no f32 is refused", async () => {
    const of = (dtype, data) => new Map([["weight", { dtype, shape: [2], data: new Uint8Array(data.buffer) }]]);
    const layer = batchNorm(context, 2, { affine: "weight" });
    const load = async (entries) => {
        const statistics = ["running_mean", "running_var"].map((name) => [name, { dtype: "F32", shape: [2], data: new Uint8Array(8) }]);
        loadLayer(layer, new Map([...entries, ...statistics]), "", NAMINGS.pytorch);
        return [...(await context.download(layer.parameters.gamma))];
    };
    assert.deepEqual(await load(of("F16", new Uint16Array([0x3c00, 0x8001]))), [1, -(2 ** -24)]);
    assert.deepEqual(await load(of("BF16", new Uint16Array([0x3f80, 0xff80]))), [1, -Infinity]);
    assert.deepEqual(await load(of("F64", new Float64Array([0.5, 3]))), [0.5, 3]);
    await assert.rejects(load(of("F64", new Float64Array([0.1, 3]))), refused("0.1 is no f32"));
    await assert.rejects(load(of("I8", new Int8Array([1, 2]))), refused("expected F32"));
});
