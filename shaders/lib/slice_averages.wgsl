// Sums of means and variances of slices, as a monoid: divided by their number what PyTorch's instance norm tracks, not the moments of the channel.

struct SliceAverages {
    mean: Stat,
    variance: Stat,
}

// What the folds reduce in kernels that include this file; the total is a `MomentsRecord` of lib/moments.wgsl in words.
alias Partial = SliceAverages;
alias Record = SliceRecord;
alias Total = array<u32, 6>;

fn identity() -> SliceAverages {
    return SliceAverages(Stat(0.0), Stat(0.0));
}

fn with_record(sums: SliceAverages, k: u32, record: SliceRecord) -> SliceAverages {
    return SliceAverages(
        with_component(sums.mean, k, record.shift + record.delta),
        with_component(sums.variance, k, record.variance),
    );
}

fn record_of_component(sums: SliceAverages, k: u32) -> Total {
    let mean = component(sums.mean, k) / f32(params.partials);
    let variance = component(sums.variance, k) / f32(params.partials);
    return Total(u32(params.count), 0u, bitcast<u32>(mean), 0u, bitcast<u32>(variance), 0u);
}

fn merge(a: SliceAverages, b: SliceAverages) -> SliceAverages {
    return SliceAverages(a.mean + b.mean, a.variance + b.variance);
}
