// Statistics of a slice as the forward pass of layer, RMS, group and instance norm saves them. Rust twin: `family::saved::SliceRecord`.

struct SliceRecord {
    // Zero where values are not centred.
    shift: f32,
    delta: f32,
    inv_std: f32,
    // The mean square of what is normalized: the biased variance, or that of the values themselves where they are not centred.
    variance: f32,
}

fn without_statistics() -> Statistics {
    return statistics_of_record(SliceRecord());
}

fn statistics_of_record(record: SliceRecord) -> Statistics {
    return statistics_of(Stat(record.shift), Stat(record.delta), Stat(record.inv_std), Stat(1.0), Stat(0.0), Stat(0.0));
}
