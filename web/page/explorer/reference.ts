// The same in float64, and how far off the kernels are.

import { CHANNELS, POSITIONS, type Settings } from "./batch.js";

export const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

export function moments(values: readonly number[]): { mean: number; variance: number } {
    const of = mean(values);
    return { mean: of, variance: mean(values.map((value) => (value - of) ** 2)) };
}

/** What a norm averages over: values with the same number are a slice. */
export type Slices = (sample: number, channel: number) => number;

export const SLICES: Record<string, Slices> = {
    batch: (_, channel) => channel,
    layer: (sample) => sample,
    rms: (sample) => sample,
    group: (sample, channel) => 2 * sample + Math.floor((2 * channel) / CHANNELS),
    instance: (sample, channel) => CHANNELS * sample + channel,
};

/** y of a norm that takes its statistics from x. */
export function normalized(x: Float32Array, norm: string, { gamma, beta, eps }: Settings): number[] {
    const slice = (i: number) => SLICES[norm]!(Math.floor(i / (CHANNELS * POSITIONS)), Math.floor(i / POSITIONS) % CHANNELS);
    const members = new Map<number, number[]>();
    x.forEach((value, i) => members.set(slice(i), [...(members.get(slice(i)) ?? []), value]));
    const of = new Map([...members].map(([slice, values]) => [slice, norm === "rms" ? { mean: 0, variance: mean(values.map((value) => value ** 2)) } : moments(values)]));
    return Array.from(x, (value, i) => {
        const { mean, variance } = of.get(slice(i))!;
        return ((value - mean) / Math.sqrt(variance + eps)) * gamma + beta;
    });
}

/** y of batch norm by statistics that it is given. */
export function inferred(x: Float32Array, means: ArrayLike<number>, variances: ArrayLike<number>, { gamma, beta, eps }: Settings): number[] {
    return Array.from(x, (value, i) => {
        const channel = Math.floor(i / POSITIONS) % CHANNELS;
        return ((value - means[channel]!) / Math.sqrt(variances[channel]! + eps)) * gamma + beta;
    });
}

/** How results compare with float64: numbers that were compared, the largest difference, and whether any is beyond its bound. */
export class Comparison {
    numbers = 0;
    largest = 0;
    readonly wrong: string[] = [];

    /** A few units in the last place of what goes in, as large as `scale`. */
    add(what: string, got: ArrayLike<number>, expected: readonly number[], scale = 1): void {
        expected.forEach((value, i) => {
            const difference = Math.abs(got[i]! - value);
            this.numbers += 1;
            this.largest = Math.max(this.largest, difference);
            if (!(difference <= 2e-6 * (scale + Math.abs(value)))) this.wrong.push(`${what}: ${got[i]} is not ${value}`);
        });
    }
}
