@group(1) @binding(2) var<storage, read> bias: array<vec4<f32>>;  // [OUT4]; if BIAS

fn biased(sum: vec4<f32>, column: u32) -> vec4<f32> {
    if BIAS {
        return sum + bias[column];
    }
    return sum;
}
