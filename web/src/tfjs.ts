// Layers of TensorFlow.js: with gradients that its optimizers and `tf.grads` take, on the device of its WebGPU backend.
//
// What TensorFlow.js makes public copies: `tensor.dataToGPU()` a tensor on its way in, `tf.tensor({ buffer })` one on its way out. That is as much traffic as the norm itself, so buffers are
// taken from the backend's own table of tensors, which is not public: whether it is as expected is tried when a context is opened. If not, all goes through copies.

import { createContext, type Context, type ContextOptions } from "./context.js";
import { WgnormError } from "./errors.js";
import { frozen, lineOf, type Kind } from "./kind.js";
import type { Layer } from "./layer.js";
import { batchNorm, groupNorm, layerNorm, rmsNorm, type AxesOptions, type BatchNormOptions, type LayerOptions } from "./layers.js";
import type { Operation, Range } from "./operation.js";
import { Tensor as DeviceTensor, bytesOf } from "./tensor.js";

type Shape = readonly number[];
type Parameter = "gamma" | "beta";

/** What is used of a tensor of TensorFlow.js. */
export interface TfTensor {
    readonly shape: number[];
    readonly dtype: string;
    readonly dataId: object;
    dataSync(): ArrayLike<number>;
    data(): Promise<ArrayLike<number>>;
    dataToGPU(): { tensorRef: TfTensor; buffer?: GPUBuffer };
    dispose(): void;
}

/** What is used of TensorFlow.js: `@tensorflow/tfjs` or `@tensorflow/tfjs-core`. Its own types bring another version of WebGPU's along. */
export interface Tf {
    ready(): Promise<void>;
    getBackend(): string;
    backend(): unknown;
    engine(): { makeTensorFromTensorInfo(info: any, backend?: any): any };
    tidy(f: () => any): any;
    tensor(values: any, shape?: any, dtype?: any): any;
    fill(shape: any, value: any): any;
    variable(initial: any): any;
    dispose(tensors: any): void;
    customGrad(f: (...all: any[]) => { value: any; gradFunc: (dy: any, saved: any[]) => any }): (...all: any[]) => any;
}

/** What is used of `WebGPUBackend`, of `@tensorflow/tfjs-backend-webgpu` 4.22. */
interface Backend {
    device: GPUDevice;
    submitQueue(): void;
    ensureCommandEncoderReady(): void;
    endComputePassEncoder(): void;
    uploadToGPU(dataId: object): void;
    makeTensorInfo(shape: number[], dtype: "float32"): { dataId: object };
    disposeData(dataId: object): boolean;
    tensorMap: { get(dataId: object): { resource?: unknown } };
}

export interface TfjsOptions extends ContextOptions {
    /** Goes through public functions alone, which copy every tensor. */
    copies?: boolean;
}

/** Opens a context on the device of TensorFlow.js, whose backend must be `webgpu`. */
export async function openTfjs(tf: Tf, options: TfjsOptions = {}): Promise<TfjsContext> {
    await tf.ready();
    const backend = tf.backend() as unknown as Backend;
    if (tf.getBackend() !== "webgpu" || !backend.device) throw new WgnormError("Backend", `expected TensorFlow.js on its backend "webgpu", it is on "${tf.getBackend()}"`);
    const context = await createContext(backend.device, options);
    const exchange = options.copies || !(await mapsTensors(tf, backend, context)) ? new Copies(tf, context) : new Maps(tf, backend);
    return new TfjsContext(tf, context, exchange);
}

/** How tensors get to kernels and back. */
interface Exchange {
    readonly copies: boolean;
    /** Submits what TensorFlow.js has recorded, and finds the buffers of tensors; `done` after the kernels have been submitted. */
    given(tensors: readonly TfTensor[]): { buffers: GPUBuffer[]; done(): void };
    /** Room for tensors that kernels write; `taken` when they have been submitted, `dropped` if they have not. */
    room(shapes: readonly Shape[]): { buffers: GPUBuffer[]; taken(): TfTensor[]; dropped(): void };
}

/** By the backend's own table. */
class Maps implements Exchange {
    readonly copies = false;
    constructor(private readonly tf: Tf, private readonly backend: Backend) {}

    given(tensors: readonly TfTensor[]) {
        const { backend } = this;
        const buffers = tensors.map(({ dataId }) => this.buffer(dataId));
        backend.ensureCommandEncoderReady();
        backend.endComputePassEncoder();
        backend.submitQueue();
        return { buffers, done: () => {} };
    }

    room(shapes: readonly Shape[]) {
        const infos = shapes.map((shape) => this.backend.makeTensorInfo([...shape], "float32"));
        const buffers = infos.map(({ dataId }) => this.buffer(dataId));
        return {
            buffers,
            taken: () => infos.map((info): TfTensor => this.tf.engine().makeTensorFromTensorInfo(info, this.backend)),
            dropped: () => infos.forEach(({ dataId }) => this.backend.disposeData(dataId)),
        };
    }

    private buffer(dataId: object): GPUBuffer {
        this.backend.uploadToGPU(dataId);
        const { resource } = this.backend.tensorMap.get(dataId);
        if (!(resource instanceof GPUBuffer)) throw new WgnormError("Operand", "a tensor of TensorFlow.js that lies in a texture; copy it first");
        return resource;
    }
}

/** By what is public. */
class Copies implements Exchange {
    readonly copies = true;
    constructor(private readonly tf: Tf, private readonly context: Context) {}

    given(tensors: readonly TfTensor[]) {
        const own: DeviceTensor[] = [];
        const copied: TfTensor[] = [];
        const buffers = tensors.map((tensor) => {
            try {
                // Submits what is recorded as well.
                const { buffer, tensorRef } = tensor.dataToGPU();
                copied.push(tensorRef);
                return buffer!;
            } catch {
                // Its values are on the host.
                own.push(this.context.upload(tensor.shape, tensor.dataSync()));
                return own.at(-1)!.buffer;
            }
        });
        const done = () => {
            this.tf.dispose(copied);
            own.forEach((tensor) => tensor.destroy());
        };
        return { buffers, done };
    }

    room(shapes: readonly Shape[]) {
        const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
        // A buffer is copied whole, into one of the same usage.
        const buffers = shapes.map((shape) => this.context.device.createBuffer({ size: bytesOf(shape, "float32"), usage }));
        const taken = () =>
            buffers.map((buffer, i): TfTensor => {
                const copy: TfTensor = this.tf.tensor({ buffer }, [...shapes[i]!], "float32");
                buffer.destroy();
                return copy;
            });
        return { buffers, taken, dropped: () => buffers.forEach((buffer) => buffer.destroy()) };
    }
}

/** Whether what a kernel writes into a tensor of the table is what TensorFlow.js reads of it, and the other way round. */
async function mapsTensors(tf: Tf, backend: Backend, context: Context): Promise<boolean> {
    const made: TfTensor[] = [];
    try {
        const { forward } = await context.operations("rms 2x4 affine=none");
        const maps = new Maps(tf, backend);
        const x: TfTensor = tf.tensor([3, 0, 0, 0, 0, 0, 0, -8], [2, 4]);
        made.push(x);
        const { y } = pass({ context, exchange: maps }, forward, { x }, { y: [2, 4] });
        made.push(y!);
        // Values whose mean square is a quarter of theirs.
        const wanted = [2, 0, 0, 0, 0, 0, 0, -2];
        const got = await y!.data();
        return wanted.every((value, i) => Math.abs(got[i]! - value) < 1e-4);
    } catch {
        return false;
    } finally {
        tf.dispose(made);
    }
}

/** Runs an operation on tensors by name, and gives those that it writes. */
function pass(
    { context, exchange }: { context: Context; exchange: Exchange },
    operation: Operation,
    read: Record<string, TfTensor | GPUBuffer | undefined>,
    written: Record<string, Shape | undefined>,
): Record<string, TfTensor> {
    const present = <T>(all: Record<string, T | undefined>) => Object.entries(all).filter((entry): entry is [string, T] => entry[1] !== undefined);
    const inputs = present(read);
    const outputs = present(written);
    const tensors = inputs.filter((entry): entry is [string, TfTensor] => !(entry[1] instanceof GPUBuffer));
    const given = exchange.given(tensors.map(([, tensor]) => tensor));
    const room = exchange.room(outputs.map(([, shape]) => shape));
    try {
        const buffers = Object.fromEntries(inputs.filter((entry): entry is [string, GPUBuffer] => entry[1] instanceof GPUBuffer));
        tensors.forEach(([name], i) => (buffers[name] = given.buffers[i]!));
        outputs.forEach(([name], i) => (buffers[name] = room.buffers[i]!));
        run(context, operation, buffers);
    } catch (error) {
        room.dropped();
        throw error;
    } finally {
        given.done();
    }
    const taken = room.taken();
    return Object.fromEntries(outputs.map(([name], i) => [name, taken[i]!]));
}

function run(context: Context, operation: Operation, buffers: Record<string, GPUBuffer | undefined>): void {
    const ranges: Record<string, Range | undefined> = {};
    for (const name of operation.operands) ranges[name] = buffers[name] && { buffer: buffers[name], offset: 0 };
    const prepared = operation.bind(ranges);
    context.submit((encoder) => prepared.record(encoder));
    prepared.destroy();
}

/** Makes layers. */
export class TfjsContext {
    constructor(private readonly tf: Tf, readonly context: Context, private readonly exchange: Exchange) {}

    /** Whether tensors are copied on their way in and out, because the backend is not as expected. */
    get copies(): boolean {
        return this.exchange.copies;
    }

    /** Batch normalization of `[N, …, C]`, unless `layout` says otherwise. */
    batchNorm(channels: number, options: BatchNormOptions = {}): TfjsLayer {
        return this.layer(batchNorm(this.context, channels, { layout: "channels_last", ...options }));
    }

    /** Layer normalization over axes of these lengths, the last ones unless others are named. */
    layerNorm(lengths: Shape, options: AxesOptions = {}): TfjsLayer {
        return this.layer(layerNorm(this.context, lengths, options));
    }

    /** Root mean square normalization over axes of these lengths. */
    rmsNorm(lengths: Shape, options: AxesOptions = {}): TfjsLayer {
        return this.layer(rmsNorm(this.context, lengths, options));
    }

    /** Group normalization of `[N, …, C]`, unless `layout` says otherwise. */
    groupNorm(groups: number, channels: number, options: LayerOptions = {}): TfjsLayer {
        return this.layer(groupNorm(this.context, groups, channels, { layout: "channels_last", ...options }));
    }

    private layer(layer: Layer): TfjsLayer {
        return new TfjsLayer(this.tf, this.exchange, layer);
    }
}

/** A layer whose parameters are variables of TensorFlow.js, which its optimizers find. */
export class TfjsLayer {
    readonly gamma: TfTensor | undefined;
    readonly beta: TfTensor | undefined;
    private disposed = false;

    constructor(private readonly tf: Tf, private readonly exchange: Exchange, private readonly layer: Layer) {
        const { gamma, beta } = layer.parameters;
        const variable = (is: DeviceTensor | undefined, value: number): TfTensor | undefined => is && tf.tidy(() => tf.variable(tf.fill([...is.shape], value)));
        this.gamma = variable(gamma, 1);
        this.beta = variable(beta, 0);
        // The variables stand for them.
        gamma?.destroy();
        beta?.destroy();
    }

    /** Compiles what `apply` runs on tensors of a shape, which cannot wait for it: both in training and not, or one of them. */
    async build(shape: Shape, { training }: { training?: boolean } = {}): Promise<void> {
        this.check();
        const modes = this.layer.running ? [true, false].filter((mode) => mode === (training ?? mode)) : [true];
        await this.layer.context.warmUp(modes.map((mode) => this.line(shape, mode)));
    }

    /**
     * y, with a gradient of x and the parameters, of which there is no gradient again. In training batch norm takes the statistics of x and moves the running ones; else it
     * takes these, as they are now, for the gradient as well.
     *
     * @throws WgnormError: NotReady unless `build` has been awaited for the shape, Operand for an x that is not of float32, Shape.
     */
    apply<T extends TfTensor>(x: T, { training = true }: { training?: boolean } = {}): T {
        this.check();
        const { tf, exchange } = this;
        const { context } = this.layer;
        const running = this.layer.running?.range.buffer;
        if (x.dtype !== "float32") throw new WgnormError("Operand", `x must be of float32, got ${x.dtype}`);
        const { forward, backward } = context.operationsNow(this.line(x.shape, training));
        const parameters = ([["gamma", this.gamma], ["beta", this.beta]] as const).filter((entry): entry is [Parameter, TfTensor] => entry[1] !== undefined);
        const names = parameters.map(([name]) => name);
        const on = { context, exchange };
        const savedBytes = forward.recipe.operands.find(({ name }) => name === "saved statistics")?.bytes;

        const normalized = tf.customGrad((...all) => {
            const save = all.pop() as (tensors: TfTensor[]) => void;
            const inputs = all as TfTensor[];
            const given = Object.fromEntries(names.map((name, i) => [name, inputs[i + 1]]));
            // What is frozen may move before its gradient is asked for.
            const frozen = running && !training ? this.runningCopy(running) : undefined;
            const read = { ...given, x: inputs[0], "running statistics": frozen ?? running };
            const { y, "saved statistics": saved } = pass(on, forward, read, { y: x.shape, "saved statistics": savedBytes ? [savedBytes / 4] : undefined });
            save([...inputs, ...[saved, frozen].filter((tensor) => tensor !== undefined)]);

            const gradFunc = (dy: TfTensor, kept: TfTensor[]) => {
                this.check();
                const read: Record<string, TfTensor | undefined> = { dy, x: kept[0] };
                names.forEach((name, i) => (read[name] = kept[i + 1]));
                read["saved statistics"] = saved && kept[names.length + 1];
                read["running statistics"] = frozen && kept.at(-1);
                const shapes = Object.fromEntries(parameters.map(([name, variable]) => [`d${name}`, variable.shape]));
                const gradients = pass(on, backward!, read, { dx: x.shape, ...shapes });
                return ["dx", ...names.map((name) => `d${name}`)].map((name) => once(tf, gradients[name]!, dy));
            };
            return { value: y, gradFunc };
        });
        return normalized(x, ...parameters.map(([, variable]) => variable)) as T;
    }

    private runningCopy(running: GPUBuffer): TfTensor {
        const length = this.layer.running!.length;
        const room = this.exchange.room([[length]]);
        this.layer.context.submit((encoder) => encoder.copyBufferToBuffer(running, 0, room.buffers[0]!, 0, 4 * length));
        return room.taken()[0]!;
    }

    /** Means and variances that inference takes, of batch norm. */
    async running(): Promise<{ mean: Float32Array; variance: Float32Array } | undefined> {
        this.check();
        const { context, running } = this.layer;
        if (!running) return undefined;
        const values = await context.download(running);
        const channels = values.length / 3;
        return { mean: values.slice(0, channels), variance: values.slice(channels, 2 * channels) };
    }

    /** Lets go of variables and running statistics. */
    dispose(): void {
        if (this.disposed) return;
        this.disposed = true;
        this.gamma?.dispose();
        this.beta?.dispose();
        this.layer.destroy();
    }

    private check(): void {
        if (this.disposed) throw new WgnormError("Destroyed", "a layer that has been disposed of");
    }

    private line(shape: Shape, training: boolean): string {
        const kind: Kind = training || !this.layer.running ? this.layer.kind : frozen(this.layer.kind);
        // Buffers of TensorFlow.js end with their tensors.
        const exact = shape.reduce((product, length) => product * length, 1) % 4 !== 0;
        return lineOf(kind, { x: { shape, dtype: "float32", exact } }, "training");
    }
}

/** A gradient that says, where its own is asked for, that there is none, instead of being taken for a constant. */
function once(tf: Tf, gradient: TfTensor, dy: TfTensor): TfTensor {
    const gradFunc = () => {
        throw new WgnormError("Unsupported", "there is no gradient of a gradient through a layer of wgnorm");
    };
    return tf.customGrad(() => ({ value: gradient, gradFunc }))(dy) as TfTensor;
}
