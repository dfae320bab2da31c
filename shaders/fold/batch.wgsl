// Statistics of a slice from the moments of the batch.
//
// The team that walks split 0 also writes what outlives the dispatch: the saved statistics for the backward pass and, if
// asked for, the running statistics with their counter of batches, which nobody else reads or writes. What is saved of gamma and beta
// is what `corrected` makes of them: fold/no_renorm.wgsl or fold/renorm.wgsl.
//
// Bindings: gamma, beta: tensor/parameter_*.wgsl; running: running_mean [slices] and running_var [slices] as f32 bits,
// batches [slices]; saved: [slices].

@group(0) @binding(8) var<storage, read_write> running: array<u32>;
@group(0) @binding(12) var<storage, read_write> saved: array<StatisticsRecord>;

// The affine map that follows x̂, and how it differs from that of the layer.
struct Corrected {
    gamma: f32,
    beta: f32,
    r: f32,
    d: f32,
}

fn batch_statistics(tile: Tile, zero: u32, m: Moments) -> Statistics {
    // Moments of nothing, because all values are masked: x̂ is 0 and y is beta. Moments that were never computed: NaN, not a
    // plausible number.
    let of_nothing = select(params.nan, 0.0, flag(zero, FLAG_MASKED));
    let inv_std = select(inv_std_of(m.variance), Stat(of_nothing), count_of(m) == Stat(0.0));
    var s = statistics_of(m.shift, m.delta, inv_std, Stat(1.0), Stat(0.0), count_of(m));
    for (var k = 0u; k < STATS; k += 1u) {
        let slice = slice_of(tile, k);
        if (flag(zero, FLAG_GAMMA)) {
            s.gamma = with_component(s.gamma, k, gamma_of(slice));
        }
        if (flag(zero, FLAG_BETA)) {
            s.beta = with_component(s.beta, k, beta_of(slice));
        }
        if (writes(tile, k)) {
            let batch = record_of_component(m, k);
            if (flag(zero, FLAG_SAVE)) {
                let c = corrected(slice, batch, component(inv_std, k), component(s.gamma, k), component(s.beta, k));
                saved[slice] = StatisticsRecord(
                    batch.shift,
                    batch.delta,
                    component(inv_std, k),
                    batch.variance,
                    c.gamma,
                    c.beta,
                    status_of(zero, c.gamma),
                    count_f32(batch.count),
                    c.r,
                    c.d,
                );
            }
            if (flag(zero, FLAG_TRACK) && any(batch.count != vec2<u32>(0u))) {
                update_running(zero, slice, batch);
            }
        }
    }
    return s;
}

fn status_of(zero: u32, gamma: f32) -> u32 {
    let lost = flag(zero, FLAG_RECOVER) && !(abs(gamma) >= params.least_gamma);
    return select(0u, STATUS_LOST, lost);
}

// running = old_weight·running + new_weight·batch. A weight of zero excludes its value instead of
// multiplying it, so that a NaN which counts for nothing does not spread.
fn update_running(zero: u32, slice: u32, batch: MomentsRecord) {
    let var_at = params.slices + slice;
    let batches_at = var_at + params.slices;
    let before = running[batches_at];
    let batches = before + select(1u, 0u, before == 0xffffffffu);

    var old_weight = params.old_weight;
    var new_weight = params.new_weight;
    if (flag(zero, FLAG_CUMULATIVE)) {
        new_weight = 1.0 / f32(batches);
        old_weight = f32(batches - 1u) / f32(batches);
    }
    var variance = batch.variance;
    if (flag(zero, FLAG_UNBIASED)) {
        // n / max(n − 1, 1), with n − 1 taken before it is rounded to f32.
        let n = count_f32(batch.count);
        let borrow = select(0u, 1u, batch.count.x == 0u);
        let less_one = count_f32(vec2<u32>(batch.count.x - 1u, batch.count.y - borrow));
        variance *= n / max(less_one, 1.0);
    }
    let mean_before = bitcast<f32>(running[slice]);
    let var_before = bitcast<f32>(running[var_at]);
    let mean = batch.shift + batch.delta;
    running[slice] = bitcast<u32>(weighted(old_weight, mean_before, new_weight, mean));
    running[var_at] = bitcast<u32>(weighted(old_weight, var_before, new_weight, variance));
    running[batches_at] = batches;
}

fn count_f32(count: vec2<u32>) -> f32 {
    return f32(count.y) * 4294967296.0 + f32(count.x);
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
