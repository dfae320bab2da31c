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

/** Values with how large their terms are, of which results are a few units in the last place off. */
export interface Expected {
    values: number[];
    scales: number[];
}

function expected(x: Float32Array, of: (i: number) => { mean: number; variance: number; largest: number }, { gamma, beta, eps }: Settings): Expected {
    const scale = ({ variance, largest }: { variance: number; largest: number }) => (Math.abs(gamma) * largest) / Math.sqrt(variance + eps) + Math.abs(beta) + 1;
    return { values: Array.from(x, (value, i) => ((value - of(i).mean) / Math.sqrt(of(i).variance + eps)) * gamma + beta), scales: Array.from(x, (_, i) => scale(of(i))) };
}

/** The largest magnitude. */
export const largest = (values: ArrayLike<number>) => Array.from(values).reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);

/** y of a norm that takes its statistics from x. */
export function normalized(x: Float32Array, norm: string, settings: Settings): Expected {
    const slice = (i: number) => SLICES[norm]!(Math.floor(i / (CHANNELS * POSITIONS)), Math.floor(i / POSITIONS) % CHANNELS);
    const members = new Map<number, number[]>();
    x.forEach((value, i) => members.set(slice(i), [...(members.get(slice(i)) ?? []), value]));
    const of = new Map(
        [...members].map(([slice, values]) => {
            const centred = norm === "rms" ? { mean: 0, variance: mean(values.map((value) => value ** 2)) } : moments(values);
            return [slice, { ...centred, largest: largest(values) }];
        }),
    );
    return expected(x, (i) => of.get(slice(i))!, settings);
}

/** y of batch norm by statistics that it is given. */
export function inferred(x: Float32Array, means: ArrayLike<number>, variances: ArrayLike<number>, settings: Settings): Expected {
    const far = largest(x);
    return expected(
        x,
        (i) => {
            const channel = Math.floor(i / POSITIONS) % CHANNELS;
            return { mean: means[channel]!, variance: variances[channel]!, largest: Math.max(far, Math.abs(means[channel]!)) };
        },
        settings,
    );
}

/** How results compare with float64: numbers that were compared, the largest difference, and whether any is beyond its bound. */
export class Comparison {
    numbers = 0;
    largest = 0;
    readonly wrong: string[] = [];

    /** A few units in the last place of terms as large as `scales`. */
    add(what: string, got: ArrayLike<number>, { values, scales }: Expected): void {
        values.forEach((value, i) => {
            const difference = Math.abs(got[i]! - value);
            this.numbers += 1;
            this.largest = Math.max(this.largest, difference);
            if (!(difference <= 2e-6 * (scales[i]! + Math.abs(value)))) this.wrong.push(`${what}: ${got[i]} is not ${value}`);
        });
    }

    /** Means and biased variances of channels: `weights` are those of the new values in running ones, the variance of which is then unbiased. */
    addMoments(what: string, got: { mean: ArrayLike<number>; variance: ArrayLike<number> }, channels: readonly number[][], running?: { mean: ArrayLike<number>; variance: ArrayLike<number>; weight: number }): void {
        channels.forEach((values, c) => {
            const { mean, variance } = moments(values);
            const far = largest(values) + 1;
            const weight = running?.weight ?? 1;
            const unbiased = running ? (variance * values.length) / (values.length - 1) : variance;
            const mixed = (old: ArrayLike<number> | undefined, value: number) => (1 - weight) * (old?.[c] ?? 0) + weight * value;
            this.add(`${what}, mean`, [got.mean[c]!], { values: [mixed(running?.mean, mean)], scales: [far] });
            // The error of a mean enters its square.
            this.add(`${what}, variance`, [got.variance[c]!], { values: [mixed(running?.variance, unbiased)], scales: [far * (1 + Math.sqrt(variance))] });
        });
    }
}
