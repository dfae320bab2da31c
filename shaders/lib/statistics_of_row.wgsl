// A walk along columns over values whose statistics are those of their row (layer norm, RMS norm): the parameters are the slice's, the
// statistics the row's. Each row is one row of the walk.
//
// Bindings: saved: lib/slice_record.wgsl, or means: lib/means_record.wgsl, by row.

fn slice_statistics(tile: Tile, zero: u32) -> Statistics {
    return with_parameters(tile, without_statistics());
}

// Words of a strip are of one row.
fn statistics_at(at: Cursor, s: Statistics, before: Statistics, j: u32) -> Statistics {
    var t = before;
    if (j == 0u) {
        t = record_statistics(params.window_row + at.index);
    }
    t.gamma = s.gamma;
    t.beta = s.beta;
    return t;
}
