// dgamma and dbeta from the gradient sums of a slice:
//
//   dgamma[slice] (+)= Σ dz·x̂        dbeta[slice] (+)= Σ dz
//
// with batch renorm dgamma takes both sums: fold/dgamma.wgsl or fold/dgamma_renorm.wgsl.
//
// Bindings: dgamma, dbeta: tensor/parameter_gradient_*.wgsl. Member 0 of split 0 writes.

fn write_sums(tile: Tile, zero: u32, sums: GradientSums) {
    for (var k = 0u; k < STATS; k += 1u) {
        if (writes(tile, k)) {
            let slice = slice_of(tile, k);
            if (flag(zero, FLAG_DGAMMA)) {
                let dgamma = dgamma_of(slice, component(sums.dz, k), component(sums.dz_xhat, k));
                put_dgamma(params.dgamma_offset + slice, dgamma, flag(zero, FLAG_ACCUMULATE));
            }
            if (flag(zero, FLAG_DBETA)) {
                put_dbeta(params.dbeta_offset + slice, component(sums.dz, k), flag(zero, FLAG_ACCUMULATE));
            }
        }
    }
}
