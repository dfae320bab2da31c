// z + (√(z² + 1) − 1) / 2. Where z² is beyond f32, or 1 is nothing beside it, the root is |z|.
fn root(z: f32) -> f32 {
    return select(sqrt(z * z + 1.0), abs(z), abs(z) > 1e4);
}

fn activate(z: f32) -> f32 {
    // (√(z² + 1) − 1) = z² / (√(z² + 1) + 1), z by z.
    return z + 0.5 * z * (z / (root(z) + 1.0));
}

fn derivative(z: f32) -> f32 {
    return 1.0 + 0.5 * (z / root(z));
}

fn inverse(y: f32) -> f32 {
    let w = y + 0.5;
    let r = select(sqrt(4.0 * w * w + 3.0), 2.0 * abs(w), abs(w) > 1e4);
    // (4w − r) / 3 = (16w² − r²) / (3·(4w + r)) = (4w² − 1) / (4w + r), which w above 0 can.
    let above = y * 4.0 * (w + 0.5) / (4.0 * w + r);
    return select((4.0 * w - r) / 3.0, above, w > 0.0);
}
