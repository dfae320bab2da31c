// Reduction over a workgroup of whatever monoid the kernel includes (`Partial`, `merge`).
//
// A tree of radix 8: two or three levels and as many barriers instead of log2(WORKGROUP_SIZE).
// The shape depends on WORKGROUP_SIZE alone, so the bits do not change from run to run.

const TREE_RADIX: u32 = 8u;

var<workgroup> tree: array<Partial, WORKGROUP_SIZE>;

// Merges the values of all invocations; the result is valid in invocation 0.
fn workgroup_merge(lane: u32, mine: Partial) -> Partial {
    var merged = mine;
    tree[lane] = mine;
    var width = WORKGROUP_SIZE;
    while (width > 1u) {
        let next = (width + TREE_RADIX - 1u) / TREE_RADIX;
        workgroupBarrier();
        // Invocation i merges i, i + next, i + 2·next, …: nobody else reads what it overwrites.
        if (lane < next) {
            for (var i = lane + next; i < width; i += next) {
                merged = merge(merged, tree[i]);
            }
            tree[lane] = merged;
        }
        width = next;
    }
    return merged;
}

// The result of the preceding `workgroup_merge`, in every invocation.
fn workgroup_merged() -> Partial {
    workgroupBarrier();
    return tree[0];
}
