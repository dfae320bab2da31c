// What a backward map writes. Bindings: dx: any rank, walked as words.

@group(0) @binding(4) var<storage, read_write> out: array<Word>;

fn out_offset() -> u32 {
    return params.dx_offset;
}
