// Statistics of a slice, or of the group that it belongs to, from their record; the parameters from their tensors.
//
// Bindings: saved: [statistics]; gamma, beta.

@group(0) @binding(13) var<storage, read> saved: array<SliceRecord>;

fn record_statistics(i: u32) -> Statistics {
    return statistics_of_record(saved[i]);
}
