// The two sums that the backward pass takes over a slice, as a monoid: Σ dy and Σ dy·x̂.
// They are dbeta and dgamma, and divided by the count what dx subtracts. Rust twin:
// `reference::GradientSums`.

struct GradientSums {
    dy: f32,
    dy_xhat: f32,
}

// What `lib/tree.wgsl` reduces in kernels that include this file.
alias Partial = GradientSums;

fn identity() -> GradientSums {
    return GradientSums(0.0, 0.0);
}

fn merge(a: GradientSums, b: GradientSums) -> GradientSums {
    return GradientSums(a.dy + b.dy, a.dy_xhat + b.dy_xhat);
}
