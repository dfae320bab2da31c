// A device with what has been planned and compiled for it.

import { capabilitiesOf, type Known } from "./capabilities.js";
import { WgnormError } from "./errors.js";
import { compile, judged, readBytes, type Compiled } from "./kernels.js";
import { Operation } from "./operation.js";
import { Planner, type Capabilities, type Recipe } from "./planner.js";
import { Tensor, bytesOf, type DType } from "./tensor.js";

/** Lines whose passes are remembered; those that were asked for longest ago are planned anew. */
const MOST_LINES = 256;

/** The passes of a problem. */
export interface Operations {
    forward: Operation;
    /** If the problem has a backward pass. */
    backward: Operation | null;
}

export interface ContextOptions extends Known {
    /** The planner: the bytes of `wgnorm/planner.wasm`, a response with them, or a compiled module. By default the file of the package. */
    planner?: BufferSource | Response | WebAssembly.Module;
}

/**
 * Opens a context on a device, which stays the caller's. Kernels use subgroups where the device has been asked for the feature `subgroups`, has eight or more invocations in them and
 * is found to have these in order.
 */
export async function createContext(device: GPUDevice, options: ContextOptions = {}): Promise<Context> {
    const planner = await Planner.load(options.planner);
    try {
        return new Context(device, planner, await capabilitiesOf(device, planner, options));
    } catch (error) {
        const lost = await Promise.race([device.lost, Promise.resolve(undefined)]);
        throw lost ? deviceLost(lost) : error;
    }
}

/** Plans, compiles and remembers what a device is asked for. Made by `createContext`. */
export class Context {
    private readonly kernels = new Map<string, Promise<Compiled>>();
    private readonly planned = new Map<string, Promise<Operations>>();
    private readonly ready = new Map<string, Operations>();
    /** What is submitted and has not been judged yet, and what of that went wrong first. */
    private readonly pending = new Set<Promise<void>>();
    private failed: WgnormError | undefined;
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
        if (known) {
            // To the end of the queue.
            this.planned.delete(spec);
            this.planned.set(spec, known);
            return known;
        }
        const planned = this.plan(spec);
        this.planned.set(spec, planned);
        for (const oldest of this.planned.keys()) {
            if (this.planned.size <= MOST_LINES) break;
            this.planned.delete(oldest);
            this.ready.delete(oldest);
        }
        planned.then(
            (operations) => this.planned.get(spec) === planned && this.ready.set(spec, operations),
            // What failed is tried anew.
            () => this.planned.delete(spec),
        );
        return planned;
    }

    /**
     * The passes of a problem that has been asked for before, at once: for callers that cannot wait.
     *
     * @throws WgnormError, NotReady unless `operations` or `warmUp` has been awaited for the line.
     */
    operationsNow(spec: string): Operations {
        this.checkLost();
        const operations = this.ready.get(spec);
        if (!operations) throw new WgnormError("NotReady", `${spec} is not compiled: await warmUp(["${spec}"]) before`);
        return operations;
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

    /**
     * Bytes of a buffer, after all that has been submitted.
     *
     * @throws WgnormError: what went wrong with what was submitted before, OutOfMemory, Validation, BufferUsage, DeviceLost.
     */
    async bytes(buffer: GPUBuffer, offset: number, size: number): Promise<ArrayBuffer> {
        this.checkLost();
        const bytes = readBytes(this.device, buffer, offset, size).catch((error: unknown) => this.told(error));
        await Promise.all([...this.pending, bytes.catch(() => undefined)]);
        const { failed } = this;
        this.failed = undefined;
        if (failed) {
            this.checkLost();
            throw failed;
        }
        return bytes;
    }

    /** Records with an encoder of its own, and submits. What goes wrong on the device is told by the next read-back. */
    submit(record: (encoder: GPUCommandEncoder) => void): void {
        this.checkLost();
        this.judge("a submission", () => {
            const encoder = this.device.createCommandEncoder();
            record(encoder);
            this.device.queue.submit([encoder.finish()]);
        });
    }

    private judge<T>(what: string, work: () => T): T {
        const { value, verdict } = judged(this.device, what, work);
        const settled: Promise<void> = verdict.then((failed) => {
            this.failed ??= failed;
            this.pending.delete(settled);
        });
        this.pending.add(settled);
        return value;
    }

    private create(shape: readonly number[], dtype: DType, contents: Uint8Array | undefined): Tensor {
        this.checkLost();
        const size = Math.max(16, Math.ceil(bytesOf(shape, dtype) / 16) * 16);
        if (size > this.capabilities.maxBufferBytes) {
            throw new WgnormError("TooLarge", `[${shape}] of ${dtype} needs ${size} bytes, a buffer has ${this.capabilities.maxBufferBytes} at most`);
        }
        const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
        const buffer = this.judge(`[${shape}] of ${dtype}`, () => this.device.createBuffer({ label: "a tensor", size, usage, mappedAtCreation: contents !== undefined }));
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
            const known = this.kernels.get(kernel.name) ?? compile(this.device, kernel).catch((error: unknown) => this.told(error));
            this.kernels.set(kernel.name, known);
            known.catch(() => this.kernels.delete(kernel.name));
            return known;
        });
        return new Operation(this.device, recipe, await Promise.all(kernels));
    }

    /** What went wrong, which is that the device is lost if it is. */
    private told(error: unknown): never {
        this.checkLost();
        throw error;
    }

    private checkLost(): void {
        if (this.lost) throw deviceLost(this.lost);
    }
}

function deviceLost({ reason, message }: GPUDeviceLostInfo): WgnormError {
    return new WgnormError("DeviceLost", `the device is lost (${reason}): ${message}`);
}
