// What a forward map writes. Bindings: y: any rank, walked as words.

@group(0) @binding(3) var<storage, read_write> out: array<Word>;

fn out_offset() -> u32 {
    return params.y_offset;
}
