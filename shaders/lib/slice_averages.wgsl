// Sums of means and variances of slices, as a monoid: divided by their number what instance norm's running statistics take.

struct SliceAverages {
    mean: Stat,
    variance: Stat,
}

// What `lib/tree.wgsl` and the folds reduce in kernels that include this file.
alias Partial = SliceAverages;
alias Record = SliceRecord;

fn identity() -> SliceAverages {
    return SliceAverages(Stat(0.0), Stat(0.0));
}

fn with_record(sums: SliceAverages, k: u32, record: SliceRecord) -> SliceAverages {
    return SliceAverages(
        with_component(sums.mean, k, record.shift + record.delta),
        with_component(sums.variance, k, record.variance),
    );
}

fn merge(a: SliceAverages, b: SliceAverages) -> SliceAverages {
    return SliceAverages(a.mean + b.mean, a.variance + b.variance);
}
