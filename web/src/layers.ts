// Layers by what they normalize over: parameters, and the words of their lines.

import type { Context } from "./context.js";
import { WgnormError } from "./errors.js";
import { Layer } from "./layer.js";
import type { Kind } from "./kind.js";

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

/** x less its mean, divided by the deviation, over some axes; by default samples and positions, as ONNX has it. */
export function meanVarianceNorm(context: Context, axes: readonly number[] = [0, 2, 3], options: BareOptions = {}): Layer {
    return bare(context, `mvn:${axes.join(",")}`, options);
}

/** x divided by its Euclidean norm over some axes. */
export function l2Norm(context: Context, axes: readonly number[], options: BareOptions = {}): Layer {
    return bare(context, `l2:${axes.join(",")}`, options);
}

/** ScaleNorm: rows divided by their Euclidean norm, times one number (Nguyen & Salazar 2019). */
export function scaleNorm(context: Context, options: BareOptions = {}): Layer {
    return layer(context, { norm: "scale", parameters: [1], axes: [], hasChannels: false, words: words(options) }, options, "weight");
}

/** Weight normalization: each of so many slices of a weight divided by its norm, times gamma (Salimans & Kingma 2016). */
export function weightNorm(context: Context, slices: number, options: BareOptions = {}): Layer {
    return layer(context, { norm: "weight", parameters: [slices], axes: [0], hasChannels: false, words: words(options) }, options, "weight");
}

/** Weight standardization: each of so many slices of a weight standardized, times gamma (Qiao et al. 2019). */
export function weightStandardization(context: Context, slices: number, options: BareOptions = {}): Layer {
    return layer(context, { norm: "standardization", parameters: [slices], axes: [0], hasChannels: false, words: words(options) }, options, "weight");
}

export type BareOptions = Omit<LayerOptions, "layout" | "affine">;

function bare(context: Context, norm: string, options: BareOptions): Layer {
    return layer(context, { norm, parameters: [1], axes: [], hasChannels: false, words: words(options) }, options, "none");
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
