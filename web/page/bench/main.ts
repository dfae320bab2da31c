// The benchmark: passes of layers beside a copy of as many bytes.

import { batchNorm, createContext, layerNorm, rmsNorm, type Context, type Layer, type Tensor } from "wgnorm";
import { element, openDevice, tell } from "../device.js";
import { copy, time } from "./timing.js";

const MB = 1e6;
const PROBLEMS: [string, number[], (context: Context) => Layer][] = [
    ["batch norm, relu, channels first", [8, 64, 56, 56], (context) => batchNorm(context, 64, { activation: "relu" })],
    ["batch norm, relu, channels last", [8, 56, 56, 256], (context) => batchNorm(context, 256, { activation: "relu", layout: "channels_last" })],
    ["layer norm", [4096, 1024], (context) => layerNorm(context, [1024])],
    ["RMS norm", [4096, 1024], (context) => rmsNorm(context, [1024])],
];

function row(problem: string, pass: string, bytes: number, ms: number, copied: number): void {
    const rate = bytes / ms / MB;
    const cells = [pass, (bytes / MB).toFixed(0), ms.toFixed(3), rate.toFixed(1), copied > 0 ? (rate / copied).toFixed(2) : "1.00"];
    const line = document.createElement("tr");
    if (problem) line.append(Object.assign(document.createElement("th"), { scope: "rowgroup", rowSpan: 3, textContent: problem }));
    line.append(...cells.map((textContent, i) => Object.assign(document.createElement("td"), { textContent, className: i === 0 ? "words" : "" })));
    element("results").append(line);
}

async function measure(context: Context, [name, shape, make]: (typeof PROBLEMS)[number]): Promise<void> {
    const { device } = context;
    const status = (what: string) => (element("status").textContent = `${name}, ${shape.join(" × ")}: ${what} …`);
    status("compiling");
    const layer = make(context);
    const tensors: Tensor[] = [];
    const room = (values?: Float32Array) => {
        const tensor = values ? context.upload(shape, values) : context.zeros(shape);
        tensors.push(tensor);
        return tensor;
    };
    const length = shape.reduce((product, length) => product * length, 1);
    const x = room(Float32Array.from({ length }, (_, i) => ((i * 7919) % 1009) / 500 - 1));
    const [dy, y, dx] = [room(), room(), room()];
    const saved = await layer.roomFor({ x });
    const { gamma, beta } = layer.parameters;
    const like = (tensor: Tensor | undefined) => tensor && context.zeros(tensor.shape);
    const forward = await layer.prepareForward({ x }, y, saved);
    const backward = await layer.prepareBackward({ x }, dy, saved, { dx, dgamma: like(gamma), dbeta: like(beta) });
    const bytes = 2 * x.bytes;
    const copier = copy(device, x.bytes);
    status("a copy");
    const copied = await time(device, copier.work);
    copier.destroy();
    row(`${name}, ${shape.join(" × ")}`, "a copy", bytes, copied, 0);
    for (const [pass, prepared] of [["forward", forward], ["backward", backward]] as const) {
        status(pass);
        row("", pass, prepared.recipe.floor_bytes, await time(device, (encoder) => prepared.record(encoder)), bytes / copied / MB);
        prepared.destroy();
    }
    tensors.forEach((tensor) => tensor.destroy());
    layer.destroy();
}

async function run(): Promise<void> {
    element("results").replaceChildren();
    element("beside").hidden = true;
    const { device, adapterInfo, name } = await openDevice();
    element("caption").textContent = `Passes of layers on ${name}.`;
    const context = await createContext(device, { adapterInfo });
    for (const problem of PROBLEMS) await measure(context, problem);
    device.destroy();
    if (element<HTMLInputElement>("tfjs").checked) {
        element("status").textContent = "a training step beside TensorFlow.js …";
        const { beside } = await import("./beside.js");
        const { ours, theirs, copies, difference } = await beside([8, 56, 56, 256]);
        const place = element("beside");
        place.textContent = `Batch norm forward and backward on (8, 56, 56, 256) in TensorFlow.js: its own operations ${theirs.toFixed(1)} ms, wgnorm's layer ${ours.toFixed(1)} ms, ${(theirs / ours).toFixed(1)} times as fast${copies ? ", tensors being copied" : ""}; their gradients differ by ${difference.toExponential(1)} at most.`;
        place.hidden = false;
    }
    element("status").textContent = "Done.";
}

element("start").addEventListener("click", () => {
    const button = element<HTMLButtonElement>("start");
    button.disabled = true;
    element("error").hidden = true;
    delete document.body.dataset["ended"];
    run()
        .catch((error: unknown) => tell(error))
        .finally(() => {
            button.disabled = false;
            document.body.dataset["ended"] = "yes";
        });
});
