// The sums that the backward pass of a curve takes over a slice, as a monoid: those of lib/gradient_sums.wgsl, and what the slice
// adds to dalpha and dshift, u = alpha·x + shift:
//
//   alpha: gamma·Σ dz·f'(u)·x        shift: gamma·Σ dz·f'(u)
//
// Rust twin: `reference::curve::Gradients`, but for the sum over slices.

struct GradientSums {
    dz: Stat,
    dz_xhat: Stat,
    alpha: Stat,
    shift: Stat,
}

// Sums of one slice in memory.
struct GradientSumsRecord {
    dz: f32,
    dz_xhat: f32,
    alpha: f32,
    shift: f32,
}

// What `lib/tree.wgsl` and the folds reduce in kernels that include this file.
alias Partial = GradientSums;
alias Record = GradientSumsRecord;

fn identity() -> GradientSums {
    return GradientSums(Stat(0.0), Stat(0.0), Stat(0.0), Stat(0.0));
}

fn record_of_component(sums: GradientSums, k: u32) -> GradientSumsRecord {
    return GradientSumsRecord(
        component(sums.dz, k),
        component(sums.dz_xhat, k),
        component(sums.alpha, k),
        component(sums.shift, k),
    );
}

fn with_record(sums: GradientSums, k: u32, record: GradientSumsRecord) -> GradientSums {
    return GradientSums(
        with_component(sums.dz, k, record.dz),
        with_component(sums.dz_xhat, k, record.dz_xhat),
        with_component(sums.alpha, k, record.alpha),
        with_component(sums.shift, k, record.shift),
    );
}

fn merge(a: GradientSums, b: GradientSums) -> GradientSums {
    return GradientSums(a.dz + b.dz, a.dz_xhat + b.dz_xhat, a.alpha + b.alpha, a.shift + b.shift);
}
