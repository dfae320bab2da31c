// Where gamma is constant within a slice, its gradient sums are taken without, and multiplied before they are merged.
//
// Bindings: gamma: tensor/parameter_*.wgsl.

fn times(slice: u32, partial: Partial) -> Partial {
    let gamma = gamma_parameter(parameter_of(slice));
    return GradientSums(partial.dz * gamma, partial.dz_xhat * gamma);
}
