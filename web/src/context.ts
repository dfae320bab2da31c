// A device with what has been planned and compiled for it.

import { WgnormError } from "./errors.js";
import { Operation, type Compiled } from "./operation.js";
import { Planner, type Capabilities, type Kernel, type Recipe } from "./planner.js";
import { Tensor, bytesOf, type DType } from "./tensor.js";

/** The passes of a problem. */
export interface Operations {
    forward: Operation;
    /** If the problem has a backward pass. */
    backward: Operation | null;
}

export interface ContextOptions {
    /** The planner: the bytes of `wgnorm/planner.wasm`, a response with them, or a compiled module. By default the file of the package. */
    planner?: BufferSource | Response | WebAssembly.Module;
    /** What the adapter says of itself, where the device does not (`GPUDevice.adapterInfo`). */
    adapterInfo?: Pick<GPUAdapterInfo, "vendor" | "architecture" | "description">;
    /** Whether the adapter is a CPU, where its name does not tell. */
    cpu?: boolean;
}

/** Opens a context on a device, which stays the caller's. */
export async function createContext(device: GPUDevice, options: ContextOptions = {}): Promise<Context> {
    return new Context(device, await Planner.load(options.planner), capabilitiesOf(device, options));
}

/** Plans, compiles and remembers what a device is asked for. Made by `createContext`. */
export class Context {
    private readonly kernels = new Map<string, Promise<Compiled>>();
    private readonly planned = new Map<string, Promise<Operations>>();
    private lost: GPUDeviceLostInfo | undefined;

    constructor(readonly device: GPUDevice, private readonly planner: Planner, readonly capabilities: Capabilities) {
        void device.lost.then((info) => (this.lost = info));
    }

    /**
     * The passes of a problem, compiled: a line of the Rust crate's `Spec`, such as `"batch 8x64x56x56 last relu backward"`. The same line gives the same operations.
     *
     * @throws WgnormError, of the planner's kinds for a problem that is none or exceeds the device, DeviceLost, Validation.
     */
    async operations(spec: string): Promise<Operations> {
        const known = this.planned.get(spec);
        if (known) return known;
        const planned = this.plan(spec);
        this.planned.set(spec, planned);
        // What failed is tried anew.
        planned.catch(() => this.planned.delete(spec));
        return planned;
    }

    /** Compiles what problems need, so that asking for them later takes no time. */
    async warmUp(specs: readonly string[]): Promise<void> {
        await Promise.all(specs.map((spec) => this.operations(spec)));
    }

    /** A tensor of zeros in a buffer of its own, which is let go of by `destroy()` or `using`. */
    zeros(shape: readonly number[], dtype: DType = "float32"): Tensor {
        return this.create(shape, dtype, undefined);
    }

    /** A tensor with these values, in a buffer of its own. */
    upload(shape: readonly number[], values: ArrayLike<number>): Tensor {
        const data = Float32Array.from(values);
        const length = shape.reduce((product, length) => product * length, 1);
        if (data.length !== length) throw new WgnormError("Shape", `[${shape}] has ${length} values, got ${data.length}`);
        return this.create(shape, "float32", new Uint8Array(data.buffer));
    }

    /** The values of a tensor of float32, after all that has been submitted. */
    async download(tensor: Tensor): Promise<Float32Array> {
        if (tensor.dtype !== "float32") throw new WgnormError("Shape", `values of ${tensor.dtype} are not numbers of JavaScript: copy them as bytes`);
        const bytes = await this.bytes(tensor.range.buffer, tensor.offset, tensor.bytes);
        return new Float32Array(bytes);
    }

    /** Bytes of a buffer, after all that has been submitted. */
    async bytes(buffer: GPUBuffer, offset: number, size: number): Promise<ArrayBuffer> {
        this.checkLost();
        if (size === 0) return new ArrayBuffer(0);
        const whole = Math.ceil(size / 4) * 4;
        const staging = this.device.createBuffer({ size: whole, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
        try {
            const encoder = this.device.createCommandEncoder();
            encoder.copyBufferToBuffer(buffer, offset, staging, 0, whole);
            this.device.queue.submit([encoder.finish()]);
            await staging.mapAsync(GPUMapMode.READ);
            return staging.getMappedRange().slice(0, size);
        } catch (error) {
            this.checkLost();
            throw error;
        } finally {
            staging.destroy();
        }
    }

    /** Records with an encoder of its own, and submits. */
    submit(record: (encoder: GPUCommandEncoder) => void): void {
        this.checkLost();
        const encoder = this.device.createCommandEncoder();
        record(encoder);
        this.device.queue.submit([encoder.finish()]);
    }

    private create(shape: readonly number[], dtype: DType, contents: Uint8Array | undefined): Tensor {
        this.checkLost();
        const size = Math.max(16, Math.ceil(bytesOf(shape, dtype) / 16) * 16);
        if (size > this.capabilities.maxBufferBytes) {
            throw new WgnormError("TooLarge", `[${shape}] of ${dtype} needs ${size} bytes, a buffer has ${this.capabilities.maxBufferBytes} at most`);
        }
        const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
        const buffer = this.device.createBuffer({ label: "a tensor", size, usage, mappedAtCreation: contents !== undefined });
        if (contents) {
            new Uint8Array(buffer.getMappedRange()).set(contents);
            buffer.unmap();
        }
        return new Tensor(buffer, shape, dtype, 0, true);
    }

    private async plan(spec: string): Promise<Operations> {
        this.checkLost();
        const { forward, backward } = this.planner.recipes(spec, this.capabilities);
        const [first, second] = await Promise.all([this.compiled(forward), backward && this.compiled(backward)]);
        return { forward: first, backward: second };
    }

    private async compiled(recipe: Recipe): Promise<Operation> {
        const kernels = recipe.kernels.map((kernel) => {
            const known = this.kernels.get(kernel.name) ?? this.compile(kernel);
            this.kernels.set(kernel.name, known);
            known.catch(() => this.kernels.delete(kernel.name));
            return known;
        });
        return new Operation(this.device, recipe, await Promise.all(kernels));
    }

    private async compile(kernel: Kernel): Promise<Compiled> {
        const { device } = this;
        const types = { Uniform: "uniform", Read: "read-only-storage", ReadWrite: "storage" } as const;
        const entries = kernel.bindings.map(([binding, type]) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: types[type] } }));
        const layout = device.createBindGroupLayout({ label: kernel.name, entries });
        const subgroups = kernel.wgsl.includes("subgroup") && device.features.has("subgroups");
        const module = device.createShaderModule({ label: kernel.name, code: subgroups ? `enable subgroups;\n${kernel.wgsl}` : kernel.wgsl });
        try {
            const pipeline = await device.createComputePipelineAsync({
                label: kernel.name,
                layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
                compute: { module, entryPoint: kernel.entry_point, constants: Object.fromEntries(kernel.constants) },
            });
            return { pipeline, layout };
        } catch (error) {
            this.checkLost();
            const messages = (await module.getCompilationInfo()).messages.map(({ lineNum, message }) => `line ${lineNum}: ${message}`);
            throw new WgnormError("Validation", [`the device refused the kernel "${kernel.name}"`, String(error), ...messages].join("\n"));
        }
    }

    private checkLost(): void {
        if (this.lost) throw new WgnormError("DeviceLost", `the device is lost (${this.lost.reason}): ${this.lost.message}`);
    }
}

function capabilitiesOf(device: GPUDevice, options: ContextOptions): Capabilities {
    const { limits } = device;
    const info = options.adapterInfo ?? device.adapterInfo;
    const name = info ? `${info.vendor} ${info.architecture} ${info.description}`.toLowerCase() : "";
    return {
        maxWorkgroupSize: Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX),
        maxWorkgroupBytes: limits.maxComputeWorkgroupStorageSize,
        maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
        // Shaders count bytes in 32 bits.
        maxBindingBytes: Math.min(limits.maxStorageBufferBindingSize, 2 ** 31 - 1),
        maxBufferBytes: limits.maxBufferSize,
        storageAlignment: limits.minStorageBufferOffsetAlignment,
        // Nobody tells on the web whether invocations are in order in them.
        subgroupSize: null,
        cpu: options.cpu ?? /swiftshader|llvmpipe|lavapipe/.test(name),
    };
}
