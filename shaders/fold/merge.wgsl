// Merges two moments values slice by slice: moments[slice] = moments[slice] ⊕ partials[slice].
//
// Grid: one invocation per slice. Bindings: partials:
// [slices], the right side; moments: [slices], the left side and the result.
// Overrides: WORKGROUP_SIZE. Features: none.

@group(0) @binding(9) var<storage, read> partials: array<Moments>;
@group(0) @binding(11) var<storage, read_write> moments: array<Moments>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn merge_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let slice = (workgroup.y * workgroups.x + workgroup.x) * WORKGROUP_SIZE + lane;
    if (slice < params.slices) {
        moments[slice] = merge(moments[slice], partials[slice]);
    }
}
