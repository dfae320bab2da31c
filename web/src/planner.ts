// The planner: a wasm module without a device, which says what a problem runs on a device with some limits.

import { WgnormError } from "./errors.js";

/** What a device can do, as far as plans depend on it. */
export interface Capabilities {
    maxWorkgroupSize: number;
    maxWorkgroupBytes: number;
    maxWorkgroupsPerDimension: number;
    maxBindingBytes: number;
    maxBufferBytes: number;
    storageAlignment: number;
    /** Invocations of the smallest subgroup, if a probe has found them in order. */
    subgroupSize: number | null;
    /** Whether a probe has found that built-in conversions of binary16 keep every value. */
    exactF16: boolean;
    cpu: boolean;
}

export interface Kernel {
    name: string;
    wgsl: string;
    entry_point: string;
    constants: [string, number][];
    bindings: [number, "Uniform" | "Read" | "ReadWrite"][];
}

export type Source = "Uniforms" | { Operand: number } | { Scratch: number } | { Nothing: { written: boolean } };

/** An operation as data: the twin of `wgnorm::recipe::Recipe`. */
export interface Recipe {
    op: string;
    kernels: Kernel[];
    operands: { name: string; bytes: number; written: boolean }[];
    scratch: { bytes: number; zeroed: boolean }[];
    uniforms: number[];
    dispatches: { kernel: number; workgroups: [number, number]; bindings: { number: number; source: Source; offset: number; bytes: number }[] }[];
    floor_bytes: number;
    plan_bytes: number;
    reasons: string[];
}

/** A kernel that counts differences from what is expected in its one binding, a u32. */
export interface Probe {
    found: "OrderedSubgroups" | "ExactF16";
    kernel: Kernel;
    workgroups: number;
}

export interface Recipes {
    forward: Recipe;
    backward: Recipe | null;
}

interface Exports {
    memory: WebAssembly.Memory;
    allocate(bytes: number): number;
    release(at: number, bytes: number): void;
    plan(at: number, bytes: number): number;
}

interface Reply {
    recipes?: Recipes;
    probes?: Probe[];
    error?: { kind: string; message: string };
}

export class Planner {
    private constructor(private readonly wasm: Exports) {}

    /** From the module's bytes, a response with them, or, by default, the file beside this one. */
    static async load(source?: BufferSource | Response | WebAssembly.Module): Promise<Planner> {
        const module = source instanceof WebAssembly.Module ? source : await WebAssembly.compile(await bytesOf(source));
        const instance = await WebAssembly.instantiate(module, {});
        return new Planner(instance.exports as unknown as Exports);
    }

    /** What a problem runs: a line of the Rust crate's `Spec`, such as `"layer 4096x1024 relu backward"`. */
    recipes(spec: string, capabilities: Capabilities): Recipes {
        return this.ask({ spec, capabilities }).recipes!;
    }

    /** What finds out whether a device has the subgroups that are said, and exact conversions. */
    probes(capabilities: Capabilities): Probe[] {
        return this.ask({ capabilities }).probes!;
    }

    private ask(asked: { spec?: string; capabilities: Capabilities }): Reply {
        const request = new TextEncoder().encode(JSON.stringify(asked));
        const { allocate, release, plan, memory } = this.wasm;
        const at = allocate(request.length);
        new Uint8Array(memory.buffer, at, request.length).set(request);
        const replied = plan(at, request.length);
        release(at, request.length);
        const length = new DataView(memory.buffer).getUint32(replied, true);
        const text = new TextDecoder().decode(new Uint8Array(memory.buffer, replied + 4, length));
        release(replied, length + 4);
        const reply = JSON.parse(text) as Reply;
        if (reply.error) throw new WgnormError(reply.error.kind, reply.error.message);
        return reply;
    }
}

async function bytesOf(source: BufferSource | Response | undefined): Promise<BufferSource> {
    if (source instanceof Response) return source.arrayBuffer();
    if (source) return source;
    const url = new URL("./planner.wasm", import.meta.url);
    if (url.protocol === "file:") {
        // Node has no fetch for files, and what bundles for browsers has no files.
        const files = "node:fs/promises";
        const { readFile } = await import(/* @vite-ignore */ files);
        return (await readFile(url)) as Uint8Array<ArrayBuffer>;
    }
    const response = await fetch(url);
    if (!response.ok) throw new WgnormError("Request", `${url}: ${response.status} ${response.statusText}`);
    return response.arrayBuffer();
}
