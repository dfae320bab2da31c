// Parameters of the dispatches over one window of an operation.
//
// Written once by the host when the operation is prepared and never changed. The Rust twin is
// `gpu::params::Params`; a unit test asserts that both have the same layout. A "word" is what a walk
// takes at once: four values (`lib/word_f32x4.wgsl`) or one (`lib/word_f32x1.wgsl`). Offsets and skips of
// tensors that are walked count words, those of values per channel values.
//
// A tensor that is too large for a binding, or lies in several buffers, is walked in windows: ranges of its
// values, each a dispatch with parameters of its own.

struct Params {
    // Geometry; what a field means to a walk is said in walk/segments.wgsl and walk/columns.wgsl.
    slices: u32,
    records: u32,
    blocks: u32,
    splits: u32,
    slice_words: u32,
    tile_words: u32,
    span_words: u32,
    span_tiles: u32,
    run_words: u32,
    slice_stride: u32,
    run_stride: u32,
    step_words: u32,
    step_stride: u32,
    step_runs: u32,
    // Values per run (positions of a sample, in columns), and in the window.
    inner: u32,
    elements: u32,
    // Place of the tensor's first value in a word.
    phase: u32,
    // Values of the window's first word that lie before it, and the last word that holds any of it.
    before: u32,
    last_word: u32,
    // Slices in the window, and the first of its slices and splits among all.
    window_slices: u32,
    first_slice: u32,
    first_split: u32,
    // Row of a sample at which the window begins (columns).
    first_row: u32,
    // Partial results per slice that a fold merges.
    partials: u32,
    // Bits: see FLAG_* below.
    flags: u32,

    x_offset: u32,
    dy_offset: u32,
    residual_offset: u32,
    y_offset: u32,
    dx_offset: u32,
    d_residual_offset: u32,
    addend_offset: u32,
    sum_offset: u32,
    d_sum_offset: u32,
    gamma_offset: u32,
    beta_offset: u32,
    dgamma_offset: u32,
    dbeta_offset: u32,
    // With STRIDED: words by which the rows (columns) and samples of a tensor are further apart than in a dense one.
    x_row_skip: u32,
    dy_row_skip: u32,
    residual_row_skip: u32,
    y_row_skip: u32,
    dx_row_skip: u32,
    d_residual_row_skip: u32,
    addend_row_skip: u32,
    sum_row_skip: u32,
    d_sum_row_skip: u32,
    x_sample_skip: u32,
    dy_sample_skip: u32,
    residual_sample_skip: u32,
    y_sample_skip: u32,
    dx_sample_skip: u32,
    d_residual_sample_skip: u32,
    addend_sample_skip: u32,
    sum_sample_skip: u32,
    d_sum_sample_skip: u32,

    eps: f32,
    // Weights of the old and the new value in the running statistics (exponential average).
    old_weight: f32,
    new_weight: f32,
    // A NaN, because WGSL refuses to write one and compilers may fold what would compute one.
    nan: f32,
    // Slope of the leaky ReLU below 0.
    slope: f32,
    // Least |gamma| with which x̂ is recovered from y: see lib/from_y.wgsl.
    least_gamma: f32,
    // Zero, but no compiler knows: see `opaque`.
    zero: u32,
    // The window's first word of a row (columns).
    first_column: u32,
    // With a mask: the bit of the window's first value, and how many values of its row come before it (columns).
    mask_first: u32,
    mask_lead: u32,
    // Limits of batch renorm, and the numbers of batches between which they open: see fold/renorm.wgsl.
    r_max: f32,
    d_max: f32,
    r_begin: u32,
    r_end: u32,
    d_begin: u32,
    d_end: u32,

    // Where partial results of a slice are: see fold/partial_of_slice.wgsl.
    record_slices: u32,
    record_matrix: u32,
    // Splits of a sample, where each is a matrix of its own (columns).
    matrix_splits: u32,
    // The window's first row among all (columns).
    window_row: u32,
    // Of norms whose slices are not channels: slices that share a statistic, values that it covers, and where the parameters of a
    // slice are (affine/parameters.wgsl).
    merged: u32,
    count: f32,
    parameter_slices: u32,
    parameter_rows: u32,
    parameter_step: u32,
    gamma_step: u32,
    beta_step: u32,
    gamma_base: f32,
    // The window's first value of its run, where a window has part of one (affine/of_place.wgsl).
    first_place: u32,
    // Slices of each of `samples` samples, and teams that share them out among each other (resident/of_slices.wgsl).
    samples: u32,
    sample_rows: u32,
    row_teams: u32,
    // Of values that all slices have in common: see curve/.
    alpha_offset: u32,
    shift_offset: u32,
    dalpha_offset: u32,
    dshift_offset: u32,
}

const FLAG_GAMMA: u32 = 1u;        // gamma is bound (else it is 1)
const FLAG_BETA: u32 = 2u;         // beta is bound (else it is 0)
const FLAG_TRACK: u32 = 4u;        // update the running statistics
const FLAG_CUMULATIVE: u32 = 8u;   // as a cumulative average: weight 1 / number of batches
const FLAG_UNBIASED: u32 = 16u;    // running_var stores the unbiased variance
const FLAG_DGAMMA: u32 = 32u;      // dgamma is bound and asked for
const FLAG_DBETA: u32 = 64u;       // dbeta is bound and asked for
const FLAG_ACCUMULATE: u32 = 128u; // add to dgamma and dbeta instead of writing them
const FLAG_SAVE: u32 = 256u;       // saved is bound: keep the statistics for the backward pass
const FLAG_RECOVER: u32 = 512u;    // y is written over x: the backward pass recovers x̂ from y
const FLAG_MASKED: u32 = 1024u;    // values are masked: moments may be those of nothing, though they were computed
const FLAG_UNCENTRED: u32 = 2048u; // the mean is not subtracted
const FLAG_DEVIATION: u32 = 4096u; // eps is added to the standard deviation
const FLAG_LENGTH: u32 = 8192u;    // divided by the length, of at least eps, instead of the root of the mean square
const FLAG_SHIFT: u32 = 1048576u;  // shift is bound (else it is 0)
const FLAG_DALPHA: u32 = 2097152u; // dalpha is bound and asked for
const FLAG_DSHIFT: u32 = 4194304u; // dshift is bound and asked for

// Invocations per workgroup, and how many of them walk the same slices together: a team. A tree
// merges what a team has found; a workgroup of many small teams serves many small slices.
override WORKGROUP_SIZE: u32 = 256u;
override TEAM_SIZE: u32 = 256u;
override TEAMS: u32 = WORKGROUP_SIZE / TEAM_SIZE;
// Whether slices, or the tensor, begin or end inside of words, rows or strips. Costs a comparison per word.
override EDGES: bool = false;
// Whether rows or samples of a tensor are further apart than those of a dense one.
override STRIDED: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
