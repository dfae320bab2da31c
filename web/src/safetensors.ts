// Files of safetensors, and layers in them by the names of their frameworks.

import { WgnormError } from "./errors.js";
import type { Layer } from "./layer.js";

/** A tensor of a file: its bytes, little-endian. */
export interface Entry {
    dtype: string;
    shape: number[];
    data: Uint8Array;
}

/** The names of a layer's tensors, and which variance runs. */
export interface Naming {
    gamma: string;
    beta: string;
    mean: string;
    variance: string;
    /** The number of batches, an I64. */
    batches?: string;
    separator: string;
    /** What stands before the names of parameters and of statistics. */
    collections: [string, string];
    biased: boolean;
}

/** PyTorch's, Keras 3's and flax.linen's. For files with other separators or collections: `{ ...NAMINGS.flax, separator: "/" }`. */
export const NAMINGS = {
    pytorch: { gamma: "weight", beta: "bias", mean: "running_mean", variance: "running_var", batches: "num_batches_tracked", separator: ".", collections: ["", ""], biased: false },
    keras: { gamma: "gamma", beta: "beta", mean: "moving_mean", variance: "moving_variance", separator: "/", collections: ["", ""], biased: true },
    flax: { gamma: "scale", beta: "bias", mean: "mean", variance: "var", separator: ".", collections: ["params", "batch_stats"], biased: true },
} as const satisfies Record<string, Naming>;

/** What becomes of a variance where file and layer mean the biased one here and the unbiased one there: it stays as it is, or is converted for so many values per channel. */
export type Rebias = "keep" | { count: number };

const refused = (message: string) => new WgnormError("Safetensors", message);
const BYTES: Record<string, number> = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U64: 8, U32: 4, U16: 2, U8: 1, BOOL: 1 };

/** The tensors of a file; they are views of it. */
export function readSafetensors(file: ArrayBuffer): Map<string, Entry> {
    if (file.byteLength < 8) throw refused(`a file has 8 bytes at the least, got ${file.byteLength}`);
    const length = new DataView(file).getBigUint64(0, true);
    if (length > BigInt(file.byteLength - 8)) throw refused(`the header has ${length} bytes, the file ${file.byteLength}`);
    const begin = 8 + Number(length);
    let header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
    try {
        header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(file, 8, Number(length))));
    } catch (error) {
        throw refused(`the header is no JSON: ${String(error)}`);
    }
    const entries = new Map<string, Entry>();
    for (const [name, tensor] of Object.entries(header)) {
        if (name === "__metadata__") continue;
        const { dtype, shape, data_offsets: [from, to] = [NaN, NaN] } = tensor;
        const bytes = shape?.reduce((product, axis) => product * axis, BYTES[dtype] ?? NaN);
        if (!(from >= 0 && to <= file.byteLength - begin && to - from === bytes)) {
            throw refused(`${name}: [${shape}] of ${dtype} at bytes ${from} to ${to} of ${file.byteLength - begin}`);
        }
        entries.set(name, { dtype, shape, data: new Uint8Array(file, begin + from, to - from) });
    }
    return entries;
}

/** A file with these tensors: the widest types first, so that all are aligned, then in the order of their names. */
export function writeSafetensors(entries: ReadonlyMap<string, Entry>, metadata?: Record<string, string>): ArrayBuffer {
    const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
    const width = ({ dtype }: Entry) => BYTES[dtype] ?? 1;
    const sorted = [...entries].sort(([a, one], [b, other]) => width(other) - width(one) || (a < b ? -1 : 1));
    let at = 0;
    for (const [name, { dtype, shape, data }] of sorted) {
        header[name] = { dtype, shape, data_offsets: [at, at + data.length] };
        at += data.length;
    }
    const text = new TextEncoder().encode(JSON.stringify(header));
    // Data begins at a multiple of 8 bytes.
    const length = Math.ceil(text.length / 8) * 8;
    const file = new ArrayBuffer(8 + length + at);
    new DataView(file).setBigUint64(0, BigInt(length), true);
    new Uint8Array(file, 8, length).fill(32).set(text);
    let offset = 8 + length;
    for (const [, { data }] of sorted) {
        new Uint8Array(file, offset).set(data);
        offset += data.length;
    }
    return file;
}

/**
 * Takes parameters and running statistics of a layer from a file; the name is that of the layer in its model, "" where the model is the layer.
 *
 * @throws WgnormError of the kind Safetensors for what is missing or has another shape, and for a variance that is biased in one of both unless `rebias` says what becomes of it;
 * nothing has changed then.
 */
export function loadLayer(layer: Layer, entries: ReadonlyMap<string, Entry>, name: string, naming: Naming, rebias?: Rebias): void {
    const { device } = layer.context;
    const writes: [GPUBuffer, number, Uint8Array | Float32Array | Uint32Array][] = [];
    const values = (key: string, length: number): Float32Array => {
        const entry = entries.get(key);
        if (!entry) throw refused(`${key} is missing; there are ${[...entries.keys()].slice(0, 8).join(", ")}, …`);
        const found = numbers(key, entry);
        if (found.length !== length) throw refused(`${key} has ${found.length} values, the layer ${length}`);
        return found;
    };
    const { gamma, beta } = layer.parameters;
    for (const [tensor, own] of [[gamma, naming.gamma], [beta, naming.beta]] as const) {
        if (tensor) writes.push([tensor.buffer, tensor.offset, values(keyOf(naming, 0, name, own), tensor.length)]);
    }
    if (layer.running) {
        const channels = layer.running.length / 3;
        const variance = values(keyOf(naming, 1, name, naming.variance), channels);
        const factor = rebiased(naming.biased, layer.biased, rebias);
        const counted = naming.batches ? entries.get(keyOf(naming, 1, name, naming.batches)) : undefined;
        const batches = counted ? Number(new DataView(counted.data.buffer, counted.data.byteOffset).getBigInt64(0, true)) : 0;
        const { buffer, offset } = layer.running;
        writes.push([buffer, offset, values(keyOf(naming, 1, name, naming.mean), channels)]);
        writes.push([buffer, offset + 4 * channels, variance.map((value) => value * factor)]);
        writes.push([buffer, offset + 8 * channels, new Uint32Array(channels).fill(batches)]);
    }
    for (const [buffer, offset, data] of writes) device.queue.writeBuffer(buffer, offset, data as Float32Array<ArrayBuffer>);
}

/** The tensors of a layer, by the names of a framework. */
export async function saveLayer(layer: Layer, name: string, naming: Naming, rebias?: Rebias): Promise<Map<string, Entry>> {
    const entries = new Map<string, Entry>();
    const put = (collection: 0 | 1, own: string, values: Float32Array) =>
        entries.set(keyOf(naming, collection, name, own), { dtype: "F32", shape: [values.length], data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) });
    const { gamma, beta } = layer.parameters;
    if (gamma) put(0, naming.gamma, await layer.context.download(gamma));
    if (beta) put(0, naming.beta, await layer.context.download(beta));
    if (layer.running) {
        const factor = rebiased(layer.biased, naming.biased, rebias);
        const all = await layer.context.download(layer.running);
        const channels = all.length / 3;
        put(1, naming.mean, all.slice(0, channels));
        put(1, naming.variance, all.slice(channels, 2 * channels).map((value) => value * factor));
        if (naming.batches) {
            const batches = new Uint32Array(all.buffer, all.byteOffset + 8 * channels, channels)[0] ?? 0;
            entries.set(keyOf(naming, 1, name, naming.batches), { dtype: "I64", shape: [], data: new Uint8Array(new BigInt64Array([BigInt(batches)]).buffer) });
        }
    }
    return entries;
}

function keyOf(naming: Naming, collection: 0 | 1, layer: string, own: string): string {
    return [naming.collections[collection], layer, own].filter(Boolean).join(naming.separator);
}

/** What a variance is multiplied with. */
function rebiased(from: boolean, to: boolean, rebias: Rebias | undefined): number {
    if (from === to || rebias === "keep") return 1;
    const which = (biased: boolean) => (biased ? "biased" : "unbiased");
    if (!rebias) throw refused(`the variance is ${which(from)} here and ${which(to)} there: say rebias, "keep" or { count } of values per channel`);
    const { count } = rebias;
    if (!(count > 1)) throw refused(`a variance of ${count} values cannot be converted, expected more than one`);
    return to ? (count - 1) / count : count / (count - 1);
}

/** The values of a tensor as f32, where that holds them. */
function numbers(key: string, { dtype, data }: Entry): Float32Array {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const of = (bytes: number, read: (at: number) => number) => Float32Array.from({ length: data.byteLength / bytes }, (_, i) => read(i * bytes));
    switch (dtype) {
        case "F32":
            return of(4, (at) => view.getFloat32(at, true));
        case "F16":
            return of(2, (at) => half(view.getUint16(at, true)));
        case "BF16": {
            const word = new DataView(new ArrayBuffer(4));
            return of(2, (at) => (word.setUint32(0, view.getUint16(at, true) << 16), word.getFloat32(0)));
        }
        case "F64":
            return of(8, (at) => {
                const value = view.getFloat64(at, true);
                if (!Object.is(Math.fround(value), value) && !Number.isNaN(value)) throw refused(`${key}: ${value} is no f32`);
                return value;
            });
        default:
            throw refused(`${key} is of ${dtype}, expected F32, F16, BF16 or F64`);
    }
}

function half(bits: number): number {
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    const magnitude = exponent === 31 ? (fraction ? NaN : Infinity) : exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
    return bits >> 15 ? -magnitude : magnitude;
}
