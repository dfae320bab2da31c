// Statistics of a slice from their record, with the means that dx subtracts; the parameters from their tensors.
//
// Bindings: means: [statistics]; gamma, beta.

@group(0) @binding(19) var<storage, read> means: array<MeansRecord>;

fn record_statistics(i: u32) -> Statistics {
    let record = means[i];
    var s = statistics_of_record(record.slice);
    s.mean_dz = Stat(record.dz);
    s.mean_dz_xhat = Stat(record.dz_xhat);
    return s;
}
