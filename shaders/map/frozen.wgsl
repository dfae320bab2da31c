// dx through frozen statistics: dx = dy·gamma·inv_std. Finite even where x is not.
//
// Bindings: dx: any rank, walked as words.

@group(0) @binding(4) var<storage, read_write> dx: array<Word>;

fn emit_dx(word: u32, upstream: Word, s: Statistics) {
    dx[params.dx_offset + word] = upstream * (s.gamma * s.inv_std);
}
