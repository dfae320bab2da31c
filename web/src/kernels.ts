// Kernels on a device.

import { WgnormError } from "./errors.js";
import type { Kernel } from "./planner.js";

/** A kernel that is compiled. */
export interface Compiled {
    pipeline: GPUComputePipeline;
    layout: GPUBindGroupLayout;
}

/**
 * Compiles a kernel without holding anybody up.
 *
 * @throws WgnormError, Validation with what the compiler says.
 */
export async function compile(device: GPUDevice, kernel: Kernel): Promise<Compiled> {
    const types = { Uniform: "uniform", Read: "read-only-storage", ReadWrite: "storage" } as const;
    const entries = kernel.bindings.map(([binding, type]) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: types[type] } }));
    const layout = device.createBindGroupLayout({ label: kernel.name, entries });
    // The planner's text is that of naga, which knows no such line.
    const code = kernel.wgsl.includes("subgroup") ? `enable subgroups;\n${kernel.wgsl}` : kernel.wgsl;
    const module = device.createShaderModule({ label: kernel.name, code });
    try {
        const pipeline = await device.createComputePipelineAsync({
            label: kernel.name,
            layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
            compute: { module, entryPoint: kernel.entry_point, constants: Object.fromEntries(kernel.constants) },
        });
        return { pipeline, layout };
    } catch (error) {
        const messages = (await module.getCompilationInfo()).messages.map(({ lineNum, message }) => `line ${lineNum}: ${message}`);
        throw new WgnormError("Validation", [`the device refused the kernel "${kernel.name}"`, String(error), ...messages].join("\n"));
    }
}

/**
 * Bytes of a buffer, after all that has been submitted.
 *
 * @throws WgnormError, BufferUsage, Validation, OutOfMemory.
 */
export async function readBytes(device: GPUDevice, buffer: GPUBuffer, offset: number, size: number): Promise<ArrayBuffer> {
    if (size === 0) return new ArrayBuffer(0);
    if ((buffer.usage & GPUBufferUsage.COPY_SRC) === 0) throw new WgnormError("BufferUsage", "what is read back: its buffer lacks the usage COPY_SRC");
    const whole = Math.ceil(size / 4) * 4;
    const { value: staging, verdict } = judged(device, "a read-back", () => {
        const staging = device.createBuffer({ size: whole, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
        const encoder = device.createCommandEncoder();
        encoder.copyBufferToBuffer(buffer, offset, staging, 0, whole);
        device.queue.submit([encoder.finish()]);
        return staging;
    });
    try {
        const failed = await verdict;
        if (failed) throw failed;
        await staging.mapAsync(GPUMapMode.READ);
        return staging.getMappedRange().slice(0, size);
    } finally {
        staging.destroy();
    }
}

/** Does something on a device; its verdict, which comes later, is what went wrong. (What a lost device says is told elsewhere.) */
export function judged<T>(device: GPUDevice, what: string, work: () => T): { value: T; verdict: Promise<WgnormError | undefined> } {
    device.pushErrorScope("out-of-memory");
    device.pushErrorScope("validation");
    const value = work();
    const scopes = [device.popErrorScope(), device.popErrorScope()].map((scope) => scope.catch(() => null));
    const verdict = Promise.all(scopes).then(([validation, memory]) => {
        if (memory) return new WgnormError("OutOfMemory", `${what}: ${memory.message || "there is no memory for it"}`);
        return validation ? new WgnormError("Validation", `${what}: ${validation.message}`) : undefined;
    });
    return { value, verdict };
}
