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
    subgroupSize: number | null;
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
        const request = new TextEncoder().encode(JSON.stringify({ spec, capabilities }));
        const { allocate, release, plan, memory } = this.wasm;
        const at = allocate(request.length);
        new Uint8Array(memory.buffer, at, request.length).set(request);
        const replied = plan(at, request.length);
        release(at, request.length);
        const length = new DataView(memory.buffer).getUint32(replied, true);
        const text = new TextDecoder().decode(new Uint8Array(memory.buffer, replied + 4, length));
        release(replied, length + 4);
        const reply = JSON.parse(text) as { recipes?: Recipes; error?: { kind: string; message: string } };
        if (reply.recipes) return reply.recipes;
        throw new WgnormError(reply.error?.kind ?? "Request", reply.error?.message ?? "the planner has said nothing");
    }
}

async function bytesOf(source: BufferSource | Response | undefined): Promise<BufferSource> {
    if (source instanceof Response) return source.arrayBuffer();
    if (source) return source;
    const url = new URL("./planner.wasm", import.meta.url);
    if (url.protocol === "file:") {
        // Node has no fetch for files.
        const { readFile } = await import("node:fs/promises" as string);
        return (await readFile(url)) as Uint8Array<ArrayBuffer>;
    }
    const response = await fetch(url);
    if (!response.ok) throw new WgnormError("Request", `${url}: ${response.status} ${response.statusText}`);
    return response.arrayBuffer();
}
