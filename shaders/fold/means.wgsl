// Statistics and means of a slice from their record; the parameters from their tensors.
//
// Bindings: means: [statistics]; gamma, beta.

@group(0) @binding(19) var<storage, read> means: array<MeansRecord>;

fn record_statistics(i: u32) -> Statistics {
    let record = means[i];
    return statistics_of(Stat(record.shift), Stat(record.delta), Stat(record.inv_std), Stat(1.0), Stat(0.0), Stat(0.0));
}

fn record_means(i: u32) -> GradientSums {
    let record = means[i];
    return GradientSums(Stat(record.dz), Stat(record.dz_xhat));
}
