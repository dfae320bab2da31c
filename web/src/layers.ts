// Layers: parameters, and the lines of the problems that they are over tensors of some shape.

import type { Context } from "./context.js";
import { WgnormError } from "./errors.js";
import type { Operation, Prepared } from "./operation.js";
import { frozen, lineOf, type Described, type Kind, type Passes } from "./kind.js";
import { Tensor } from "./tensor.js";

/** Order of axes in memory, of norms that have channels: `[N, C, …]` or `[N, …, C]`. */
export type Layout = "channels_first" | "channels_last";

export interface LayerOptions {
    /** What keeps the divisor from 0; by default what PyTorch has. */
    eps?: number;
    /** Applied to what is normalized, by its name in the Rust crate: `"relu"`, `"silu"`, `"gelu"`, `"leaky_relu=0.2"`, … */
    activation?: string;
    /** Which parameters there are. */
    affine?: "both" | "weight" | "bias" | "none";
    layout?: Layout;
}

export interface BatchNormOptions extends LayerOptions {
    /** How running statistics move: by the weight of the new value (PyTorch), of the old one (Keras), or as the average of all batches. */
    momentum?: { new: number } | { old: number } | "cumulative";
    /** Whether the running variance is the biased one (Keras) and not the unbiased one (PyTorch). */
    biased?: boolean;
}

/** What a pass is over: x, and what goes with it. */
export interface Input {
    x: Tensor;
    /** Added before the activation. */
    residual?: Tensor | undefined;
    /** Whose activation is a factor of the normalized (`"last"`) or of x (`"first"`). */
    gate?: { gate: Tensor; order: "last" | "first" } | undefined;
}

export interface Gradients {
    dx: Tensor;
    dResidual?: Tensor | undefined;
    dGate?: Tensor | undefined;
    dgamma?: Tensor | undefined;
    dbeta?: Tensor | undefined;
    dalpha?: Tensor | undefined;
    dshift?: Tensor | undefined;
}

const NAMES = ["gamma", "beta", "alpha", "shift"] as const;
type Name = (typeof NAMES)[number];

/** A layer: its parameters, and passes over tensors of any shape that it takes. Made by `batchNorm`, `layerNorm` and the others. */
export class Layer implements Disposable {
    private moved = false;

    constructor(
        readonly context: Context,
        /** @internal */
        readonly kind: Kind,
        /** gamma, beta, alpha, shift, as far as there are any; tensors of the layer's own. */
        readonly parameters: Partial<Record<Name, Tensor>>,
        /** `[3, C]`: means, variances and the number of batches (as u32), of batch norm. */
        readonly running?: Tensor,
    ) {}

    /** Whether the running variance is the biased one. Frozen layers take it as it is: what they were in training. */
    get biased(): boolean {
        return this.kind.biased ?? false;
    }

    /** The line of the problem over an input, in training or, without what a backward pass needs, alone: what `Context.operations` and `Context.warmUp` take. */
    line(input: Described, passes: Passes = "training"): string {
        return lineOf(this.kind, input, passes);
    }

    /** Prepares y; `saved`, from `roomFor`, receives what the backward pass needs, without it there is none. */
    async prepareForward(input: Input, y: Tensor, saved?: Tensor): Promise<Prepared> {
        const { forward } = await this.operations(input, saved ? "training" : "forward");
        return forward.bind(this.given(forward, input, { y, "saved statistics": saved }));
    }

    /** Room for what forward saves of an input; nothing of layers that save nothing. */
    async roomFor(input: Input): Promise<Tensor | undefined> {
        const { forward } = await this.operations(input);
        const saved = forward.recipe.operands.find(({ name }) => name === "saved statistics");
        return saved && this.context.zeros([saved.bytes / 4]);
    }

    /** y, and what the backward pass needs. Submitted at once. */
    async forward(input: Input): Promise<{ y: Tensor; saved: Tensor | undefined }> {
        const saved = await this.roomFor(input);
        const y = this.context.zeros(input.x.shape, input.x.dtype);
        const forward = await this.prepareForward(input, y, saved);
        this.context.submit((encoder) => forward.record(encoder));
        forward.destroy();
        return { y, saved };
    }

    /** Prepares all gradients, into tensors of the caller's. x and what goes with it must be what forward saw. */
    async prepareBackward(input: Input, dy: Tensor, saved: Tensor | undefined, into: Gradients): Promise<Prepared> {
        const { backward } = await this.operations(input);
        if (!backward) throw new WgnormError("Operand", `${this.kind.norm} has no backward pass`);
        const { dx, dResidual, dGate, dgamma, dbeta, dalpha, dshift } = into;
        const others = { dy, dx, d_residual: dResidual, d_gate: dGate, dgamma, dbeta, dalpha, dshift, "saved statistics": saved };
        return backward.bind(this.given(backward, input, others));
    }

    /** y alone. Submitted at once. */
    async infer(input: Input): Promise<Tensor> {
        const y = this.context.zeros(input.x.shape, input.x.dtype);
        const forward = await this.prepareForward(input, y);
        this.context.submit((encoder) => forward.record(encoder));
        forward.destroy();
        return y;
    }

    /** All gradients. Submitted at once. */
    async backward(input: Input, dy: Tensor, saved: Tensor | undefined): Promise<Gradients> {
        const { backward } = await this.operations(input);
        const wanted = new Set(backward?.operands);
        const like = (name: string, tensor: Tensor | undefined) => (tensor && wanted.has(name) ? this.context.zeros(tensor.shape, tensor.dtype) : undefined);
        const { gamma, beta, alpha, shift } = this.parameters;
        const gradients: Gradients = {
            dx: this.context.zeros(input.x.shape, input.x.dtype),
            dResidual: like("d_residual", input.residual),
            dGate: like("d_gate", input.gate?.gate),
            dgamma: like("dgamma", gamma),
            dbeta: like("dbeta", beta),
            dalpha: like("dalpha", alpha),
            dshift: like("dshift", shift),
        };
        const prepared = await this.prepareBackward(input, dy, saved, gradients);
        this.context.submit((encoder) => prepared.record(encoder));
        prepared.destroy();
        // Without an activation nothing stands between y and what is added to it.
        if (input.residual && !gradients.dResidual) gradients.dResidual = dy;
        return gradients;
    }

    /** Batch norm for inference, with the running statistics as they are. The tensors go over to it: this layer is of no more use. */
    freeze(): Layer {
        if (this.kind.norm !== "batch") throw new WgnormError("Operand", `${this.kind.norm} has no running statistics to freeze`);
        this.check();
        this.moved = true;
        return new Layer(this.context, frozen(this.kind), this.parameters, this.running);
    }

    /** Lets go of its parameters and running statistics. */
    destroy(): void {
        if (this.moved) return;
        this.moved = true;
        Object.values(this.parameters).forEach((tensor) => tensor.destroy());
        this.running?.destroy();
    }

    [Symbol.dispose](): void {
        this.destroy();
    }

    private operations(input: Input, passes: Passes = "training") {
        this.check();
        return this.context.operations(this.line(input, passes));
    }

    private given(operation: Operation, input: Input, others: Record<string, Tensor | undefined>) {
        const { x, residual, gate } = input;
        const all: Record<string, Tensor | undefined> = { ...this.parameters, "running statistics": this.running, x, residual, gate: gate?.gate, ...others };
        // A pass has no use for some of what a layer or an input has: batch norm's backward pass for gamma.
        const named = operation.operands.map((name) => [name, all[name]?.range] as const);
        const like = { x, residual, gate: gate?.gate, y: others["y"], dy: others["dy"], dx: others["dx"] };
        for (const [name, tensor] of Object.entries(like)) {
            if (tensor && (tensor.shape.join() !== x.shape.join() || tensor.dtype !== x.dtype)) {
                throw new WgnormError("Shape", `${name} must be [${x.shape}] of ${x.dtype} as x is, got [${tensor.shape}] of ${tensor.dtype}`);
            }
        }
        return Object.fromEntries(named);
    }

    private check(): void {
        if (this.moved) throw new WgnormError("Destroyed", "a layer that has been destroyed or frozen");
    }
}

function layer(context: Context, kind: Kind, options: LayerOptions, affine: NonNullable<LayerOptions["affine"]>): Layer {
    const { parameters } = kind;
    const length = parameters.reduce((product, length) => product * length, 1);
    const has = options.affine ?? affine;
    const of = (is: boolean, value: number) => (is ? context.upload(parameters, new Float32Array(length).fill(value)) : undefined);
    const tensors = { gamma: of(has === "both" || has === "weight", 1), beta: of(has === "both" || has === "bias", 0) };
    const channels = kind.hasChannels ? parameters[0]! : 0;
    const running = kind.norm === "batch" ? context.upload([3, channels], [...Array(3 * channels).keys()].map((i) => (i >= channels && i < 2 * channels ? 1 : 0))) : undefined;
    return new Layer(context, kind, present(tensors), running);
}

function present<T extends object>(all: T): { [K in keyof T]?: NonNullable<T[K]> } {
    return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: NonNullable<T[K]> };
}

function words({ eps, activation, affine, layout }: LayerOptions): string[] {
    return [layout === "channels_last" ? "last" : "", affine ? `affine=${affine}` : "", eps === undefined ? "" : `eps=${eps}`, activation ?? ""].filter(Boolean);
}

/** Batch normalization in training, for so many channels (Ioffe & Szegedy 2015). Inference is `freeze()`. */
export function batchNorm(context: Context, channels: number, options: BatchNormOptions = {}): Layer {
    const { momentum, biased } = options;
    const moving = momentum === undefined ? "" : momentum === "cumulative" ? momentum : "new" in momentum ? `new=${momentum.new}` : `old=${momentum.old}`;
    const all = [...words(options), moving, biased ? "biased" : ""].filter(Boolean);
    return layer(context, { norm: "batch", hasChannels: true, parameters: [channels], words: all, biased }, options, "both");
}

export interface AxesOptions extends Omit<LayerOptions, "layout"> {
    /** The axes that the lengths are of, in any order, if not the last ones: `[1]` for the channels of each position of `[N, C, H, W]`, as ConvNeXt has them. */
    axes?: readonly number[];
}

/** Layer normalization over axes of these lengths, the last ones unless others are named (Ba, Kiros & Hinton 2016). */
export function layerNorm(context: Context, lengths: readonly number[], options: AxesOptions = {}): Layer {
    return overAxes(context, "layer", lengths, options, "both");
}

/** Root mean square normalization over axes of these lengths, the last ones unless others are named (Zhang & Sennrich 2019). */
export function rmsNorm(context: Context, lengths: readonly number[], options: AxesOptions = {}): Layer {
    return overAxes(context, "rms", lengths, options, "weight");
}

function overAxes(context: Context, name: string, lengths: readonly number[], options: AxesOptions, affine: "both" | "weight"): Layer {
    const { axes } = options;
    if (axes && axes.length !== lengths.length) throw new WgnormError("Shape", `${axes.length} axes and ${lengths.length} lengths: expected as many`);
    const over = axes ? [`axes=${axes.length > 0 ? axes.join(",") : "none"}`] : [];
    const kind = { norm: axes ? name : `${name}:${lengths.length}`, hasChannels: false, parameters: axes?.length === 0 ? [1] : [...lengths], axes, words: [...words(options), ...over] };
    return layer(context, kind, options, affine);
}

/** Group normalization (Wu & He 2018). */
export function groupNorm(context: Context, groups: number, channels: number, options: LayerOptions = {}): Layer {
    return layer(context, { norm: `group:${groups}`, hasChannels: true, parameters: [channels], words: words(options) }, options, "both");
}

/** Instance normalization (Ulyanov, Vedaldi & Lempitsky 2016). */
export function instanceNorm(context: Context, channels: number, options: LayerOptions = {}): Layer {
    return layer(context, { norm: "instance", hasChannels: true, parameters: [channels], words: words(options) }, options, "both");
}

/** Dynamic tanh, `tanh(alpha·x)·gamma + beta` (Zhu et al. 2025). */
export function dynamicTanh(context: Context, channels: number, options: LayerOptions & { alpha?: number } = {}): Layer {
    return curve(context, "tanh", channels, options, { alpha: options.alpha ?? 0.5 });
}

/** Derf, `erf(alpha·x + shift)·gamma + beta` (Chen et al. 2025). */
export function derf(context: Context, channels: number, options: LayerOptions & { alpha?: number } = {}): Layer {
    return curve(context, "derf", channels, options, { alpha: options.alpha ?? 0.5, shift: 0 });
}

function curve(context: Context, norm: string, channels: number, options: LayerOptions, numbers: Record<string, number>): Layer {
    const kind = { norm, hasChannels: true, parameters: [channels], words: words(options) };
    const plain = layer(context, kind, options, "both");
    const more = Object.entries(numbers).map(([name, value]) => [name, context.upload([1], [value])] as const);
    return new Layer(context, kind, { ...plain.parameters, ...Object.fromEntries(more) });
}
