// dgamma of batch renorm, whose gamma multiplies x̂·r + d (fold/renorm.wgsl): r·Σ dz·x̂ + d·Σ dz.
//
// Bindings: saved: fold/saved.wgsl.

fn dgamma_of(slice: u32, dz: f32, dz_xhat: f32) -> f32 {
    let d = saved[slice].d;
    let scaled = saved[slice].r * dz_xhat;
    return select(fma(d, dz, scaled), scaled, d == 0.0);
}
