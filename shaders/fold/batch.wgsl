// Statistics of a slice from the moments of the batch: the prologue of map_forward in training.
//
// Every workgroup of a slice folds the same partials in the same order. The one that walks split 0
// also writes what outlives the dispatch: the saved statistics for the backward pass and, if asked
// for, the running statistics with their counter of batches, which nobody else reads or writes.
//
// Bindings: partials: [slices × P] (fold/moments.wgsl); gamma, beta: [slices]; running: running_mean
// [slices] and running_var [slices] as f32 bits, batches [slices]; saved: [slices].

@group(0) @binding(5) var<storage, $INPUT> gamma: array<f32>;
@group(0) @binding(6) var<storage, $INPUT> beta: array<f32>;
@group(0) @binding(8) var<storage, read_write> running: array<u32>;
@group(0) @binding(12) var<storage, read_write> saved: array<Statistics>;

fn slice_statistics(tile: Tile, lane: u32) -> Statistics {
    let m = fold_moments_of(tile.slice, lane);
    var s = Statistics(m.shift, m.delta, inv_std_of(m.variance), m.variance, 1.0, 0.0, 0u, 0u);
    let empty = count_f32(m.count) == 0.0;
    if (empty) {
        // Moments that were never computed: NaN, not a plausible number.
        s.inv_std = params.nan;
    }
    if (flag(FLAG_GAMMA)) {
        s.gamma = gamma[params.gamma_offset + tile.slice];
    }
    if (flag(FLAG_BETA)) {
        s.beta = beta[params.beta_offset + tile.slice];
    }
    if (lane == 0u && tile.split == 0u && tile.live) {
        if (flag(FLAG_SAVE)) {
            saved[tile.slice] = s;
        }
        if (flag(FLAG_TRACK) && !empty) {
            update_running(tile.slice, m);
        }
    }
    return s;
}

// running = old_weight·running + new_weight·batch. A weight of zero excludes its value instead of
// multiplying it, so that a NaN which counts for nothing does not spread.
fn update_running(slice: u32, m: Moments) {
    let var_at = params.slices + slice;
    let batches_at = var_at + params.slices;
    let before = running[batches_at];
    let batches = before + select(1u, 0u, before == 0xffffffffu);

    var old_weight = params.old_weight;
    var new_weight = params.new_weight;
    if (flag(FLAG_CUMULATIVE)) {
        new_weight = 1.0 / f32(batches);
        old_weight = f32(batches - 1u) / f32(batches);
    }
    var variance = m.variance;
    if (flag(FLAG_UNBIASED)) {
        // n / max(n − 1, 1), with n − 1 taken before it is rounded to f32.
        let n = count_f32(m.count);
        let less_one = count_f32(vec2<u32>(m.count.x - 1u, m.count.y - select(0u, 1u, m.count.x == 0u)));
        variance *= n / max(less_one, 1.0);
    }
    let mean_before = bitcast<f32>(running[slice]);
    let var_before = bitcast<f32>(running[var_at]);
    running[slice] = bitcast<u32>(weighted(old_weight, mean_before, new_weight, m.shift + m.delta));
    running[var_at] = bitcast<u32>(weighted(old_weight, var_before, new_weight, variance));
    running[batches_at] = batches;
}

fn weighted(old_weight: f32, old: f32, new_weight: f32, new_value: f32) -> f32 {
    if (new_weight == 0.0) {
        return old;
    }
    if (old_weight == 0.0) {
        return new_weight * new_value;
    }
    return old_weight * old + new_weight * new_value;
}
