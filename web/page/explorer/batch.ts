// The batch that is looked at: eight channels of four positions, of which the first is under the sliders.

export const CHANNELS = 8;
export const POSITIONS = 4;
/** How often a batch is drawn again. */
export const REDRAWS = 64;

/** What the sliders say. */
export interface Settings {
    mode: "training" | "inference";
    batch: number;
    mean: number;
    deviation: number;
    outlier: number;
    gamma: number;
    beta: number;
    eps: number;
    momentum: number;
    drift: number;
}

// The other channels, which stay.
const MEANS = [0, 2, -1, 0.5, -2, 1, 3, -0.5];
const DEVIATIONS = [1, 0.5, 2, 1, 1.5, 0.7, 1, 1.2];

/** Numbers near N(0, 1), the same for the same seed. */
function* normal(seed: number): Generator<number> {
    let state = (seed * 2654435761) >>> 0;
    const uniform = () => {
        state = (state + 0x6d2b79f5) >>> 0;
        let t = Math.imul(state ^ (state >>> 15), 1 | state);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    for (;;) yield Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** `[N, 8, 4]` of a step: the mean has drifted by as many steps. */
export function batchOf(settings: Settings, step: number): Float32Array {
    const draws = normal(step + 1);
    const x = new Float32Array(settings.batch * CHANNELS * POSITIONS);
    for (let i = 0; i < x.length; i += 1) {
        const channel = Math.floor(i / POSITIONS) % CHANNELS;
        const z = draws.next().value as number;
        x[i] = channel === 0 ? settings.mean + settings.drift * step + settings.deviation * z : MEANS[channel]! + DEVIATIONS[channel]! * z;
    }
    x[0]! += settings.outlier;
    return x;
}

/** `[N, 64, 4]`: the channel under the sliders, drawn again and again. */
export function redrawsOf(settings: Settings, step: number, samples: number): Float32Array {
    const draws = normal(7919 + samples);
    const mean = settings.mean + settings.drift * step;
    return Float32Array.from({ length: samples * REDRAWS * POSITIONS }, () => mean + settings.deviation * (draws.next().value as number));
}

/** The values of a channel of a tensor `[N, C, 4]`. */
export function channel(values: ArrayLike<number>, index: number, channels = CHANNELS): number[] {
    return Array.from(values).filter((_, i) => Math.floor(i / POSITIONS) % channels === index);
}
