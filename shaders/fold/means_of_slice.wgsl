// The prologue of map_backward for norms whose slices are not channels: a record for each `merged` slices.

fn slice_statistics(tile: Tile, zero: u32) -> Statistics {
    var s = without_statistics();
    for (var k = 0u; k < STATS; k += 1u) {
        let record = means[slice_of(tile, k) / params.merged];
        s.shift = with_component(s.shift, k, record.shift);
        s.delta = with_component(s.delta, k, record.delta);
        s.inv_std = with_component(s.inv_std, k, record.inv_std);
    }
    return with_parameters(tile, s);
}

fn slice_means(tile: Tile, zero: u32, s: Statistics) -> GradientSums {
    var mean = identity();
    for (var k = 0u; k < STATS; k += 1u) {
        let record = means[slice_of(tile, k) / params.merged];
        mean = with_record(mean, k, GradientSumsRecord(record.dz, record.dz_xhat));
    }
    return mean;
}
