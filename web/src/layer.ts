// A layer: its parameters, and passes over tensors of any shape that it takes.

import type { Context } from "./context.js";
import { WgnormError } from "./errors.js";
import type { Operation, Prepared } from "./operation.js";
import { frozen, lineOf, type Described, type Kind, type Passes } from "./kind.js";
import { Tensor } from "./tensor.js";

/** What a pass is over: x, and what goes with it. */
export interface Input {
    x: Tensor;
    /** Added to x before the norm, which is of their sum. */
    addend?: Tensor | undefined;
    /** Where that sum is written, and what the backward pass takes; `forward` makes one. */
    sum?: Tensor | undefined;
    /** Added before the activation. */
    residual?: Tensor | undefined;
    /** Whose activation is a factor of the normalized (`"last"`) or of x (`"first"`). */
    gate?: { gate: Tensor; order: "last" | "first" } | undefined;
    /** Which positions count, from `maskOf`: of batch norm those of each sample, of layer and RMS norm rows. What does not count enters no statistics and no gradients. */
    mask?: Mask | undefined;
}

/** Which positions count, as bits in a buffer of its own. Made by `maskOf`. */
export class Mask implements Disposable {
    constructor(readonly bits: Tensor, readonly positions: number) {}

    /** Lets go of the buffer. */
    destroy(): void {
        this.bits.destroy();
    }

    [Symbol.dispose](): void {
        this.destroy();
    }
}

/** What a forward pass leaves. */
export interface Forward {
    y: Tensor;
    /** What the backward pass takes, of layers that save anything. */
    saved: Tensor | undefined;
    /** x plus the addend, if there is one. */
    sum: Tensor | undefined;
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

    /** y, the sum if there is an addend, and what the backward pass needs. Submitted at once. */
    async forward(input: Input): Promise<Forward> {
        this.checkInput(input);
        const made = new Made();
        return made.unlessFails(async () => {
            const saved = await this.roomFor(input);
            if (saved) made.add(saved);
            const sum = input.addend && (input.sum ?? made.add(this.like(input.x)));
            const y = made.add(this.like(input.x));
            const forward = await this.prepareForward({ ...input, sum }, y, saved);
            this.context.submit((encoder) => forward.record(encoder));
            forward.destroy();
            return { y, saved, sum };
        });
    }

    /** Prepares all gradients, into tensors of the caller's. x and what goes with it must be what forward saw. `dSum` is the gradient that the sum has from elsewhere. */
    async prepareBackward(input: Input, dy: Tensor, saved: Tensor | undefined, into: Gradients, dSum?: Tensor): Promise<Prepared> {
        const { backward } = await this.operations(input);
        if (!backward) throw new WgnormError("Operand", `${this.kind.norm} has no backward pass`);
        const { dx, dResidual, dGate, dgamma, dbeta, dalpha, dshift } = into;
        const { gamma, beta, alpha, shift } = this.parameters;
        const wanted = { d_sum: dSum, d_residual: dResidual, d_gate: dGate, dgamma, dbeta, dalpha, dshift };
        // What a recipe does not write, or take, would stay as it is without a word.
        for (const [name, tensor] of Object.entries(wanted)) {
            if (tensor && !backward.operands.includes(name)) {
                const why = name === "d_residual" ? "; without an activation it is dy itself" : name === "d_sum" ? "; it belongs to an input with an addend" : "";
                throw new WgnormError("Operand", `${name} is nothing that the backward pass of this input has${why}`);
            }
        }
        checkLike("a parameter", { dgamma: [dgamma, gamma], dbeta: [dbeta, beta], dalpha: [dalpha, alpha], dshift: [dshift, shift] });
        return backward.bind(this.given(backward, input, { dy, dx, ...wanted, "saved statistics": saved }));
    }

    /** y alone. Submitted at once. */
    async infer(input: Input): Promise<Tensor> {
        this.checkInput(input);
        const made = new Made();
        return made.unlessFails(async () => {
            const y = made.add(this.like(input.x));
            const sum = input.addend && (input.sum ?? made.add(this.like(input.x)));
            const forward = await this.prepareForward({ ...input, sum }, y);
            this.context.submit((encoder) => forward.record(encoder));
            forward.destroy();
            if (sum !== input.sum) sum?.destroy();
            return y;
        });
    }

    /** All gradients; `dSum` is that which the sum has from elsewhere, if it has one. Submitted at once. */
    async backward(input: Input, dy: Tensor, saved: Tensor | undefined, dSum?: Tensor): Promise<Gradients> {
        this.checkInput(input);
        const { backward } = await this.operations(input);
        const wanted = new Set(backward?.operands);
        const made = new Made();
        return made.unlessFails(async () => {
            const like = (name: string, tensor: Tensor | undefined) => (tensor && wanted.has(name) ? made.add(this.like(tensor)) : undefined);
            const { gamma, beta, alpha, shift } = this.parameters;
            const gradients: Gradients = {
                dx: made.add(this.like(input.x)),
                dResidual: like("d_residual", input.residual),
                dGate: like("d_gate", input.gate?.gate),
                dgamma: like("dgamma", gamma),
                dbeta: like("dbeta", beta),
                dalpha: like("dalpha", alpha),
                dshift: like("dshift", shift),
            };
            const none = input.addend && !dSum ? made.add(this.like(input.x)) : undefined;
            const prepared = await this.prepareBackward(input, dy, saved, gradients, dSum ?? none);
            this.context.submit((encoder) => prepared.record(encoder));
            prepared.destroy();
            none?.destroy();
            // Without an activation nothing stands between y and what is added to it.
            if (input.residual && !gradients.dResidual) gradients.dResidual = dy;
            return gradients;
        });
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
        this.checkInput(input);
        const { x, addend, sum, residual, gate, mask } = input;
        const walked = ["d_sum", "y", "dy", "dx", "d_residual", "d_gate"].map((name) => [name, [others[name], x]] as const);
        checkLike("x", Object.fromEntries(walked));
        const saved = operation.recipe.operands.find(({ name }) => name === "saved statistics");
        const room = others["saved statistics"];
        if (saved && room && room.bytes < saved.bytes) throw new WgnormError("Shape", `saved must have ${saved.bytes / 4} values, from roomFor an input like this, got [${room.shape}]`);
        const all: Record<string, Tensor | undefined> = { ...this.parameters, "running statistics": this.running, x, addend, sum, residual, gate: gate?.gate, mask: mask?.bits, ...others };
        // A pass has no use for some of what a layer or an input has: batch norm's backward pass for gamma.
        return Object.fromEntries(operation.operands.map((name) => [name, all[name]?.range] as const));
    }

    private checkInput({ x, addend, sum, residual, gate, mask }: Input): void {
        this.check();
        checkLike("x", { addend: [addend, x], sum: [sum, x], residual: [residual, x], gate: [gate?.gate, x] });
        if (!mask) return;
        const { hasChannels, parameters } = this.kind;
        const positions = x.length / (hasChannels ? parameters[0]! : parameters.reduce((product, length) => product * length, 1));
        if (mask.positions !== positions) throw new WgnormError("Mask", `a mask of [${x.shape}] says of ${positions} positions whether they count, got ${mask.positions}`);
    }

    private like({ shape, dtype }: Tensor): Tensor {
        return this.context.zeros(shape, dtype);
    }

    private check(): void {
        if (this.moved) throw new WgnormError("Destroyed", "a layer that has been destroyed or frozen");
    }
}

/** A mask for `Input.mask`, of what counts, in order; in a buffer of its own. */
export function maskOf(context: Context, keep: ArrayLike<boolean | number>): Mask {
    // A word that is 0, then a bit for each.
    const words = new Uint32Array(1 + Math.ceil(keep.length / 32));
    for (let i = 0; i < keep.length; i += 1) if (keep[i]) words[1 + (i >> 5)]! |= 1 << (i & 31);
    const bits = context.zeros([words.length]);
    context.device.queue.writeBuffer(bits.buffer, 0, words);
    return new Mask(bits, keep.length);
}

/** Tensors that must be like others. */
function checkLike(what: string, pairs: Record<string, readonly [Tensor | undefined, Tensor | undefined]>): void {
    for (const [name, [got, like]] of Object.entries(pairs)) {
        if (got && like && (got.shape.join() !== like.shape.join() || got.dtype !== like.dtype)) {
            throw new WgnormError("Shape", `${name} must be [${like.shape}] of ${like.dtype} as ${what} is, got [${got.shape}] of ${got.dtype}`);
        }
    }
}

/** What has been made for a call, which is let go of if it fails. */
class Made {
    private readonly tensors: Tensor[] = [];

    add(tensor: Tensor): Tensor {
        this.tensors.push(tensor);
        return tensor;
    }

    async unlessFails<T>(call: () => Promise<T>): Promise<T> {
        try {
            return await call();
        } catch (error) {
            this.tensors.forEach((tensor) => tensor.destroy());
            throw error;
        }
    }
}
