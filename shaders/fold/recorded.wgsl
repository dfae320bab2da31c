// Statistics of a slice, or of the group that it belongs to, from their record; the parameters from their tensors.
//
// Bindings: saved: [statistics]; gamma, beta.

@group(0) @binding(13) var<storage, read> saved: array<SliceRecord>;

fn record_statistics(i: u32) -> Statistics {
    let record = saved[i];
    return statistics_of(Stat(record.shift), Stat(record.delta), Stat(record.inv_std), Stat(1.0), Stat(0.0), Stat(0.0));
}
