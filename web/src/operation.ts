// An operation on a device: a recipe with its pipelines, and what it is bound to.

import { WgnormError } from "./errors.js";
import type { Compiled } from "./kernels.js";
import type { Recipe, Source } from "./planner.js";

/** A range of a buffer, from a multiple of the device's `minStorageBufferOffsetAlignment` on. */
export interface Range {
    buffer: GPUBuffer;
    offset: number;
}

/** A recipe whose kernels are compiled. It can be bound any number of times. */
export class Operation {
    constructor(
        private readonly device: GPUDevice,
        readonly recipe: Recipe,
        private readonly kernels: Compiled[],
    ) {}

    /** The names of what it is given, in order. */
    get operands(): string[] {
        return this.recipe.operands.map((operand) => operand.name);
    }

    /**
     * The operation on these buffers, one for each operand by name, each in a buffer of its own.
     *
     * @throws WgnormError of the kinds Operand, BufferTooSmall, BufferUsage, Misaligned, Shared.
     */
    bind(given: Readonly<Record<string, Range | undefined>>): Prepared {
        const operands = this.recipe.operands.map(({ name, bytes }) => {
            const range = given[name];
            if (!range) throw new WgnormError("Operand", `${name} is missing; ${this.recipe.op} takes ${this.operands.join(", ")}`);
            checkRange(this.device, name, range, bytes);
            return range;
        });
        const known = new Set(this.operands);
        const unknown = Object.keys(given).find((name) => given[name] && !known.has(name));
        if (unknown) throw new WgnormError("Operand", `${unknown} is nothing that ${this.recipe.op} takes: ${this.operands.join(", ")}`);
        this.checkShared(operands);

        const { device, recipe } = this;
        const owned: GPUBuffer[] = [];
        const create = (size: number, usage: number, contents?: Uint8Array) => {
            const buffer = device.createBuffer({ size: Math.max(4, Math.ceil(size / 4) * 4), usage, mappedAtCreation: contents !== undefined });
            if (contents) {
                new Uint8Array(buffer.getMappedRange()).set(contents);
                buffer.unmap();
            }
            owned.push(buffer);
            return buffer;
        };
        const uniforms = create(recipe.uniforms.length, GPUBufferUsage.UNIFORM, Uint8Array.from(recipe.uniforms));
        // New buffers are zeroed, by WebGPU's rules.
        const scratch = recipe.scratch.map(({ bytes }) => create(bytes, GPUBufferUsage.STORAGE));
        const nothing = new Map<number, GPUBuffer>();
        const absent = (key: number) => {
            const buffer = nothing.get(key) ?? create(256, GPUBufferUsage.STORAGE);
            nothing.set(key, buffer);
            return buffer;
        };
        const seen = (source: Source, number: number): Range => {
            if (source === "Uniforms") return { buffer: uniforms, offset: 0 };
            if ("Operand" in source) return operands[source.Operand]!;
            if ("Scratch" in source) return { buffer: scratch[source.Scratch]!, offset: 0 };
            // What a kernel could write, nobody else may see.
            return { buffer: absent(source.Nothing.written ? number : -1), offset: 0 };
        };
        const steps = recipe.dispatches.map(({ kernel, workgroups, bindings }) => {
            const { pipeline, layout } = this.kernels[kernel]!;
            const entries = bindings.map(({ number, source, offset, bytes }) => {
                const { buffer, offset: base } = seen(source, number);
                return { binding: number, resource: { buffer, offset: base + offset, size: bytes } };
            });
            return { pipeline, workgroups, group: device.createBindGroup({ label: recipe.kernels[kernel]!.name, layout, entries }) };
        });
        return new Prepared(recipe, steps, owned);
    }

    /** WebGPU lets no dispatch see one buffer both read-only and writable. */
    private checkShared(operands: Range[]): void {
        this.recipe.operands.forEach((operand, i) => {
            const other = operand.written ? operands.findIndex(({ buffer }, j) => j !== i && buffer === operands[i]!.buffer) : -1;
            if (other >= 0) {
                throw new WgnormError("Shared", `${operand.name} is written and lies in the buffer of ${this.operands[other]}; give it a buffer of its own`);
            }
        });
    }
}

interface Step {
    pipeline: GPUComputePipeline;
    group: GPUBindGroup;
    workgroups: [number, number];
}

/** An operation on some buffers, ready to be recorded any number of times. It holds scratch of its own until it is destroyed. */
export class Prepared implements Disposable {
    private destroyed = false;

    constructor(readonly recipe: Recipe, private readonly steps: Step[], private readonly owned: GPUBuffer[]) {}

    /** Records it into a compute pass of its own, or into one that has begun. */
    record(into: GPUCommandEncoder | GPUComputePassEncoder): void {
        if (this.destroyed) throw new WgnormError("Destroyed", "an operation that has been destroyed");
        const begun = "dispatchWorkgroups" in into;
        const pass = begun ? into : into.beginComputePass({ label: this.recipe.op });
        for (const { pipeline, group, workgroups } of this.steps) {
            pass.setPipeline(pipeline);
            pass.setBindGroup(0, group);
            pass.dispatchWorkgroups(...workgroups);
        }
        if (!begun) pass.end();
    }

    /** Bytes that it holds. */
    get workspaceBytes(): number {
        return this.owned.reduce((sum, { size }) => sum + size, 0);
    }

    /** Lets go of its scratch; what is recorded and not submitted must not be submitted any more. */
    destroy(): void {
        if (!this.destroyed) this.owned.forEach((buffer) => buffer.destroy());
        this.destroyed = true;
    }

    [Symbol.dispose](): void {
        this.destroy();
    }
}

function checkRange(device: GPUDevice, name: string, { buffer, offset }: Range, bytes: number): void {
    const alignment = device.limits.minStorageBufferOffsetAlignment;
    if (offset % alignment !== 0) {
        throw new WgnormError("Misaligned", `${name} begins at byte ${offset} of its buffer, expected a multiple of ${alignment}`);
    }
    if (offset + bytes > buffer.size) {
        throw new WgnormError("BufferTooSmall", `${name} needs ${bytes} bytes behind byte ${offset}, its buffer has ${buffer.size} in all`);
    }
    if ((buffer.usage & GPUBufferUsage.STORAGE) === 0) {
        throw new WgnormError("BufferUsage", `${name}: its buffer lacks the usage STORAGE`);
    }
}
