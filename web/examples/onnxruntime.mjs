// A norm between two runs of an ONNX Runtime session, on its device: nothing leaves the GPU.

import * as ort from "onnxruntime-web/webgpu";
import { createContext, layerNorm, Tensor } from "wgnorm";

// y = relu(x + x), x of [n, 8]: whatever a model does around a norm.
const MODEL = "CAgSADpNCg4KAXgKAXgSAWgiA0FkZAoMCgFoEgF5IgRSZWx1EgFnWhQKAXgSDwoNCAESCQoDEgFuCgIICGIUCgF5Eg8KDQgBEgkKAxIBbgoCCAhCBAoAEBE=";

export async function run(values) {
    const model = Uint8Array.from(atob(MODEL), (character) => character.charCodeAt(0));
    const session = await ort.InferenceSession.create(model, { executionProviders: ["webgpu"], preferredOutputLocation: "gpu-buffer" });
    const { y: first } = await session.run({ x: new ort.Tensor("float32", values, [values.length / 8, 8]) });

    // The session's own device, and its output where it lies.
    const context = await createContext(await ort.env.webgpu.device);
    const norm = layerNorm(context, [8]);
    const normalized = await norm.infer({ x: new Tensor(first.gpuBuffer, first.dims) });

    // And back, as an input that is never copied.
    const x = ort.Tensor.fromGpuBuffer(normalized.buffer, { dataType: "float32", dims: first.dims });
    const { y: second } = await session.run({ x });
    const result = { normalized: await context.download(normalized), last: await second.getData() };
    [first, second].forEach((tensor) => tensor.dispose());
    normalized.destroy();
    norm.destroy();
    await session.release();
    return result;
}
