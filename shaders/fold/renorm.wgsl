// Batch renorm: x̂ of the batch is corrected towards what the running statistics would give.
//
//   σ = sqrt(running_var + eps)        σB = sqrt(var + eps)
//   r = σB / σ, from 1 / r_max to r_max        d = (mean − running_mean) / σ, from −d_max to d_max
//   (x̂·r + d)·gamma + beta = x̂·(gamma·r) + (beta + gamma·d)
//
// r and d are constants to the gradient, so all that follows is batch norm with another gamma and beta, but for dgamma
// (fold/dgamma_renorm.wgsl). The limits open linearly with the number of batches that the running statistics have seen. A limit that is
// closed does not look at them, not even at NaN. Source: Ioffe, "Batch Renormalization: Towards Reducing Minibatch Dependence in
// Batch-Normalized Models", 2017.
//
// Bindings: running: fold/batch.wgsl, before its update.

// `closed` up to batch `begin`, `open` from batch `end` on.
fn limit_at(batches: u32, closed: f32, open: f32, begin: u32, end: u32) -> f32 {
    let part = f32(batches - begin) / f32(max(end - begin, 1u));
    return select(select(closed + (open - closed) * part, closed, batches <= begin), open, batches >= end);
}

// By comparisons, so that NaN stays.
fn limited(value: f32, low: f32, high: f32) -> f32 {
    return select(select(value, low, value < low), high, value > high);
}

fn corrected(slice: u32, batch: MomentsRecord, inv_std: f32, gamma: f32, beta: f32) -> Corrected {
    let mean = bitcast<f32>(running[slice]);
    let variance = bitcast<f32>(running[params.slices + slice]);
    let batches = running[2u * params.slices + slice];
    let r_max = limit_at(batches, 1.0, params.r_max, params.r_begin, params.r_end);
    let d_max = limit_at(batches, 0.0, params.d_max, params.d_begin, params.d_end);
    let running_inv_std = component(inv_std_of(Stat(variance)), 0u);
    // The difference of the means before what the shift leaves of the batch's, which is far smaller.
    let between = component(opaque(Stat(batch.shift - mean)), 0u) + batch.delta;
    // Moments of nothing, because all values are masked: y is beta.
    let nothing = all(batch.count == vec2<u32>(0u));
    let r_limited = limited(running_inv_std / inv_std, 1.0 / r_max, r_max);
    let d_limited = limited(between * running_inv_std, -d_max, d_max);
    let r = select(r_limited, 1.0, r_max == 1.0 || nothing);
    let d = select(d_limited, 0.0, d_max == 0.0 || nothing);
    return Corrected(gamma * r, select(fma(gamma, d, beta), beta, d == 0.0), r, d);
}
