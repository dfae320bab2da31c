// What dx needs to know of a slice: its statistics and the means of its gradient sums. Written by fold/means_alone.wgsl, read by maps.

struct MeansRecord {
    slice: SliceRecord,
    // What is subtracted of gamma·dz, and of each x̂.
    dz: f32,
    dz_xhat: f32,
}
