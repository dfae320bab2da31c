// Tensors: a range of somebody's GPUBuffer, with a shape.

import { WgnormError } from "./errors.js";

/** Element types. Values of float16 and bfloat16 are two in each u32, as they lie in memory. */
export type DType = "float32" | "float16" | "bfloat16" | "int8";

const BYTES: Record<DType, number> = { float32: 4, float16: 2, bfloat16: 2, int8: 1 };

/** Bytes of the values of a tensor. */
export function bytesOf(shape: readonly number[], dtype: DType): number {
    if (!shape.every((length) => Number.isSafeInteger(length) && length >= 0)) {
        throw new WgnormError("Shape", `a shape has whole numbers, got [${shape}]`);
    }
    return shape.reduce((product, length) => product * length, BYTES[dtype]);
}

/** A dense tensor in a buffer, which is its own or somebody else's. */
export class Tensor implements Disposable {
    private destroyed = false;

    /**
     * A tensor over a buffer that stays the caller's, from a byte on that is a multiple of the device's `minStorageBufferOffsetAlignment`.
     */
    constructor(
        readonly buffer: GPUBuffer,
        readonly shape: readonly number[],
        readonly dtype: DType = "float32",
        readonly offset = 0,
        private readonly owned = false,
    ) {
        if (offset + this.bytes > buffer.size) {
            throw new WgnormError("BufferTooSmall", `[${shape}] of ${dtype} needs ${this.bytes} bytes behind byte ${offset}, the buffer has ${buffer.size} in all`);
        }
    }

    /** Number of values. */
    get length(): number {
        return this.shape.reduce((product, length) => product * length, 1);
    }

    /** Bytes of its values. */
    get bytes(): number {
        return bytesOf(this.shape, this.dtype);
    }

    /** Whether the buffer ends with it, and not with the 16 bytes in which it ends: kernels then walk it value by value. */
    get exact(): boolean {
        return this.offset + Math.ceil(this.bytes / 16) * 16 > this.buffer.size;
    }

    /** What is bound. */
    get range(): { buffer: GPUBuffer; offset: number } {
        if (this.destroyed) throw new WgnormError("Destroyed", "a tensor that has been destroyed");
        return { buffer: this.buffer, offset: this.offset };
    }

    /** Lets go of the buffer, if it is the tensor's own. */
    destroy(): void {
        if (this.owned && !this.destroyed) this.buffer.destroy();
        this.destroyed = true;
    }

    [Symbol.dispose](): void {
        this.destroy();
    }
}
