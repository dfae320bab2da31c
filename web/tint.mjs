// Sends kernels through Tint: `node tint.mjs DIRECTORY`, which has NUMBER.wgsl and variants.json. Every text becomes a module and, with the constants of a variant, a pipeline
// on Dawn's null backend, which compiles nothing further. Fails if anything is refused.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);
const [directory] = process.argv.slice(2);
const gpu = (globalThis.kept = create(["backend=null"]));
const adapter = await gpu.requestAdapter();
if (!adapter?.features.has("subgroups")) throw new Error("Dawn's null backend has no subgroups");
const device = await adapter.requestDevice({ requiredFeatures: ["subgroups"] });

const texts = JSON.parse(readFileSync(join(directory, "variants.json"), "utf8"));
const refused = new Map();
let [modules, pipelines, large] = [0, 0, 0];
for (const [number, variants] of texts.entries()) {
    const text = readFileSync(join(directory, `${number}.wgsl`), "utf8");
    // As the package compiles them.
    const code = text.includes("subgroup") ? `enable subgroups;\n${text}` : text;
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ code });
    let error = await device.popErrorScope();
    modules += 1;
    if (!error) {
        // The null device has WebGPU's least limits, for which some variants are too large.
        let fits = false;
        for (const { entry, constants } of variants) {
            device.pushErrorScope("validation");
            device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: entry, constants } });
            error = await device.popErrorScope();
            fits = !/(exceeds|larger than) the maximum allowed/.test(error?.message ?? "");
            if (fits) break;
        }
        if (fits) pipelines += 1;
        else [error, large] = [null, large + 1];
    }
    if (error) {
        const reason = error.message.split("\n")[0].replace(/\d+/g, "#");
        const found = refused.get(reason) ?? { count: 0, key: variants[0].key, message: error.message, number };
        refused.set(reason, { ...found, count: found.count + 1 });
    }
    if (modules % 2000 === 0) console.log(`${modules} of ${texts.length}`);
}
console.log(`${modules} texts of ${texts.reduce((sum, variants) => sum + variants.length, 0)} variants, ${pipelines} pipelines, ${large} of constants that are too large for the null device`);
for (const { count, key, number, message } of refused.values()) console.log(`REFUSED ${count}, the first ${number}.wgsl, ${key}:\n${message}`);
if (modules === 0) throw new Error(`${directory} has no kernels`);
process.exit(refused.size > 0 ? 1 : 0);
