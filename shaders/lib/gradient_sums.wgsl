// The two sums that the backward pass takes over a slice, as a monoid: Σ dz and Σ dz·x̂, for each of
// the statistics that an invocation keeps; dz is the gradient of z, what comes before the activation. They are dbeta and
// dgamma, and divided by the count what dx subtracts. Rust twin: `reference::GradientSums`.

struct GradientSums {
    dz: Stat,
    dz_xhat: Stat,
}

// Sums of one slice in memory.
struct GradientSumsRecord {
    dz: f32,
    dz_xhat: f32,
}

// What `lib/tree.wgsl` and the folds reduce in kernels that include this file.
alias Partial = GradientSums;
alias Record = GradientSumsRecord;
alias Total = GradientSumsRecord;

fn identity() -> GradientSums {
    return GradientSums(Stat(0.0), Stat(0.0));
}

fn record_of_component(sums: GradientSums, k: u32) -> GradientSumsRecord {
    return GradientSumsRecord(component(sums.dz, k), component(sums.dz_xhat, k));
}

fn with_record(sums: GradientSums, k: u32, record: GradientSumsRecord) -> GradientSums {
    return GradientSums(with_component(sums.dz, k, record.dz), with_component(sums.dz_xhat, k, record.dz_xhat));
}

fn merge(a: GradientSums, b: GradientSums) -> GradientSums {
    return GradientSums(a.dz + b.dz, a.dz_xhat + b.dz_xhat);
}
