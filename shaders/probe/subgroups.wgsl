// Whether the invocations of a workgroup are in the order of their index in subgroups of a fixed size, so that
// lib/tree_subgroups.wgsl finds the members of a team where it expects them. WGSL promises neither.
//
// Grid: any number of workgroups. Bindings: differences: a counter. Features: SUBGROUP.

override WORKGROUP_SIZE: u32 = 64u;
override SUBGROUP_SIZE: u32 = 32u;

@group(0) @binding(0) var<storage, read_write> differences: atomic<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn probe_subgroups(
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) place: u32,
    @builtin(subgroup_size) size: u32,
) {
    // As many as there are, where a workgroup is less than a subgroup.
    let many = min(SUBGROUP_SIZE, WORKGROUP_SIZE);
    let expected = lane - lane % many + (lane + 1u) % many;
    let next = subgroupShuffle(lane, (place + 1u) % many);
    if (size != SUBGROUP_SIZE || place != lane % SUBGROUP_SIZE || next != expected) {
        atomicAdd(&differences, 1u);
    }
}
