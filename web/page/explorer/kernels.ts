// What the page shows, computed by wgnorm's kernels.

import { batchNorm, groupNorm, instanceNorm, layerNorm, rmsNorm, type Context, type Layer, type Tensor } from "wgnorm";
import { CHANNELS, POSITIONS, REDRAWS, type Settings } from "./batch.js";

/** Means and variances of all channels. */
export interface Running {
    mean: Float32Array;
    variance: Float32Array;
}

export const NORMS = ["batch", "layer", "group", "instance", "rms"] as const;
export type NormName = (typeof NORMS)[number];

export interface Results {
    /** Biased, of the batch. */
    statistics: Running;
    /** What running statistics become if this is a step of training. */
    next: Running;
    /** y by running statistics. */
    inferred: Float32Array;
    y: Record<NormName, Float32Array>;
    /** Mean and variance of y: by batch statistics, and by running ones. */
    ofY: Record<NormName | "inferred", Running>;
}

export class Explorer {
    constructor(private readonly context: Context) {}

    /** All of a batch. */
    async run(x: Float32Array, settings: Settings, running: Running): Promise<Results> {
        const { context } = this;
        const { gamma, beta, eps, momentum } = settings;
        const shape = [settings.batch, CHANNELS, POSITIONS];
        using tensors = new Held();
        const input = tensors.add(context.upload(shape, x));
        const parametrized = (layer: Layer) => {
            fill(context, layer.parameters.gamma, gamma);
            fill(context, layer.parameters.beta, beta);
            return tensors.add(layer);
        };
        const batch = parametrized(batchNorm(context, CHANNELS, { eps, momentum: { new: momentum } }));
        load(context, batch, running);
        const { y, saved } = await batch.forward({ x: input });
        tensors.add(y);
        if (saved) tensors.add(saved);
        const next = await runningOf(context, batch);
        load(context, batch, running);
        const inferred = tensors.add(await parametrized(batch.freeze()).infer({ x: input }));

        const others: [NormName, Layer][] = [
            ["layer", layerNorm(context, shape.slice(1), { eps })],
            ["group", groupNorm(context, 2, CHANNELS, { eps })],
            ["instance", instanceNorm(context, CHANNELS, { eps, affine: "both" })],
            ["rms", rmsNorm(context, shape.slice(1), { eps, affine: "both" })],
        ];
        const outputs: [NormName, Tensor][] = [["batch", y]];
        for (const [name, layer] of others) outputs.push([name, tensors.add(await parametrized(layer).infer({ x: input }))]);
        const by = <K extends string, V>(entries: (readonly [K, V])[]) => Object.fromEntries(entries) as Record<K, V>;
        const all = [...outputs, ["inferred", inferred] as const];
        return {
            statistics: await this.statistics(input),
            next,
            inferred: await context.download(inferred),
            y: by(await Promise.all(outputs.map(async ([name, tensor]) => [name, await context.download(tensor)] as const))),
            ofY: by(await Promise.all(all.map(async ([name, tensor]) => [name, await this.statistics(tensor)] as const))),
        };
    }

    /** The mean of the channel in each of many batches. */
    async redraws(x: Float32Array, samples: number): Promise<Running> {
        using input = this.context.upload([samples, REDRAWS, POSITIONS], x);
        return await this.statistics(input);
    }

    /** Means and biased variances of the channels of a tensor: what batch norm's running statistics are if the newest batch is all of them. */
    private async statistics(x: Tensor): Promise<Running> {
        using layer = batchNorm(this.context, x.shape[1]!, { momentum: { new: 1 }, biased: true, affine: "none" });
        const { y, saved } = await layer.forward({ x });
        y.destroy();
        saved?.destroy();
        return await runningOf(this.context, layer);
    }
}

/** What is let go of together. */
class Held implements Disposable {
    private readonly all: { destroy(): void }[] = [];

    add<T extends { destroy(): void }>(held: T): T {
        this.all.push(held);
        return held;
    }

    [Symbol.dispose](): void {
        this.all.forEach((held) => held.destroy());
    }
}

function fill(context: Context, tensor: Tensor | undefined, value: number): void {
    if (tensor) context.device.queue.writeBuffer(tensor.buffer, tensor.offset, new Float32Array(tensor.length).fill(value));
}

function load(context: Context, { running }: Layer, { mean, variance }: Running): void {
    const values = new Float32Array(3 * mean.length);
    values.set(mean);
    values.set(variance, mean.length);
    if (running) context.device.queue.writeBuffer(running.buffer, running.offset, values);
}

async function runningOf(context: Context, { running }: Layer): Promise<Running> {
    const values = await context.download(running!);
    const channels = values.length / 3;
    return { mean: values.slice(0, channels), variance: values.slice(channels, 2 * channels) };
}
