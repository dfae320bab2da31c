// Statistics of a slice from its moments, for layer, RMS, group and instance norm and their kin.
//
//   centred: x − mean, else x                      mean square v of that over n values
//   inv_std = 1 / sqrt(v + eps)                    FLAG_DEVIATION: 1 / (sqrt(v) + eps)        FLAG_LENGTH: 1 / max(sqrt(v·n), eps)
//
// The team that walks split 0 also writes the record that the backward pass reads.
//
// Bindings: saved: [slices].

@group(0) @binding(12) var<storage, read_write> saved: array<SliceRecord>;

fn spread_of(zero: u32, variance: Stat) -> Stat {
    // As `inv_std_of`: a variance that has overflowed gives NaN, not a constant.
    let finite = variance <= Stat(0x1.fffffep+127f);
    var inv_std = inverseSqrt(variance + Stat(params.eps));
    if (flag(zero, FLAG_DEVIATION)) {
        inv_std = 1.0 / (sqrt(variance) + Stat(params.eps));
    }
    if (flag(zero, FLAG_LENGTH)) {
        inv_std = 1.0 / max(sqrt(variance) * sqrt(params.count), Stat(params.eps));
    }
    return select(Stat(params.nan), inv_std, finite);
}

fn batch_statistics(tile: Tile, zero: u32, m: Moments) -> Statistics {
    var s = without_statistics();
    var variance = m.variance;
    if (flag(zero, FLAG_UNCENTRED)) {
        let mean = m.shift + m.delta;
        variance = fma(mean, mean, variance);
    } else {
        s.shift = m.shift;
        s.delta = m.delta;
    }
    s.inv_std = select(spread_of(zero, variance), Stat(params.nan), count_of(m) == Stat(0.0));
    if (flag(zero, FLAG_SAVE)) {
        for (var k = 0u; k < STATS; k += 1u) {
            if (writes(tile, k)) {
                saved[slice_of(tile, k)] = SliceRecord(
                    component(s.shift, k),
                    component(s.delta, k),
                    component(s.inv_std, k),
                    component(variance, k),
                );
            }
        }
    }
    return with_parameters(tile, s);
}
