// Which parameters belong to a slice, of norms whose slices are not channels.
//
//   parameter of a slice = slice / parameter_slices mod parameter_rows · parameter_step
//
// its own, or, where they vary within the slice, the first of them. An absent parameter is read as the 0 that its binding holds, with a
// step of 0: so gamma is gamma_base, 1, and beta is 0. Where gamma is stored as its distance from 1, gamma_base is 1 too.
//
// Bindings: gamma, beta: tensor/parameter_*.wgsl.

fn parameter_of(slice: u32) -> u32 {
    return slice / params.parameter_slices % params.parameter_rows * params.parameter_step;
}

fn gamma_parameter(i: u32) -> f32 {
    return params.gamma_base + gamma_of(i * params.gamma_step);
}
