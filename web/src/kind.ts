// What makes a layer the one that it is, and the lines of its problems.

import { WgnormError } from "./errors.js";
import type { DType } from "./tensor.js";

/** A norm with what is forced of it. */
export interface Kind {
    /** The norm of a line. */
    norm: string;
    hasChannels: boolean;
    /** Lengths of gamma and beta. */
    parameters: number[];
    /** The axes that these are the lengths of, if the norm has no channels and they are not the last ones. */
    axes?: readonly number[] | undefined;
    words: string[];
    biased?: boolean | undefined;
}

/** What a line has to know of an input. */
export interface Described {
    /** `exact`: its buffer ends with it, and not with the 16 bytes in which it ends. */
    x: { shape: readonly number[]; dtype: DType; exact?: boolean };
    addend?: unknown;
    residual?: unknown;
    mask?: unknown;
    gate?: { order: "last" | "first" } | undefined;
}

export type Passes = "training" | "forward";

const DTYPES: Record<DType, string> = { float32: "", float16: "f16", bfloat16: "bf16", int8: "int8" };

/**
 * The line of a problem: `"batch 8x256x56x56 last relu backward"`. Its shape is in logical order.
 *
 * @throws WgnormError, Shape for an x that the norm's parameters do not fit.
 */
export function lineOf(kind: Kind, { x, addend, residual, gate, mask }: Described, passes: Passes): string {
    const { norm, hasChannels, words } = kind;
    const last = hasChannels && words.includes("last");
    checkAxes(kind, x.shape, last);
    const values = x.shape.reduce((product, length) => product * length, 1);
    if (norm === "batch" && values === kind.parameters[0]) throw new WgnormError("SingleValue", `one value per channel has no variance to train with, got [${x.shape}]`);
    const shape = last ? [x.shape[0]!, x.shape.at(-1)!, ...x.shape.slice(1, -1)] : x.shape;
    const all = [norm, shape.join("x"), DTYPES[x.dtype], ...words, addend && "sum", residual && "residual", mask && "mask=1", gate && `gate=${gate.order}`, passes === "training" && "backward", x.exact && "width=1"];
    return all.filter(Boolean).join(" ");
}

function checkAxes({ norm, hasChannels, parameters, axes }: Kind, shape: readonly number[], last: boolean): void {
    if (axes?.length === 0) return;
    if (hasChannels && shape.length < 2) throw new WgnormError("Shape", `${norm} is of channels, which are an axis of their own, got [${shape}]`);
    const normalized = hasChannels ? [last ? shape.length - 1 : 1] : (axes ?? parameters.map((_, i) => shape.length - parameters.length + i));
    if (normalized.some((axis, i) => shape[axis] !== parameters[i])) {
        const what = hasChannels ? `${parameters[0]} channels, ${last ? "last" : "in axis 1"}` : `[${parameters}] in the axes ${normalized}`;
        throw new WgnormError("Shape", `${norm} is of ${what}, got [${shape}]`);
    }
}

/** Batch norm with its statistics as they are. */
export function frozen(kind: Kind): Kind {
    return { ...kind, norm: "frozen", words: kind.words.filter((word) => !/^(new|old)=|^(cumulative|biased)$/.test(word)) };
}
