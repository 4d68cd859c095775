// Normalisation of each row: y = (x - mean) / sqrt(variance + eps) * weight + bias + residual, with a mean of 0 unless CENTRED.
// A workgroup normalises TEAM_ROWS rows, each by one team (common/team_*.wgsl). The variance is taken around the mean in a
// second pass over the row, which lies in the cache: the one-pass formula cancels. That pass also finds what rounding left
// in the mean: it matters where the row's values lie close together.
@group(1) @binding(0) var<storage, read> x: array<Elem4>;          // [rows, STRIDE4]
@group(1) @binding(1) var<storage, read> weight: array<vec4<f32>>; // [STRIDE4], zero behind COLS
@group(1) @binding(2) var<storage, read> bias: array<vec4<f32>>;   // [STRIDE4], zero behind COLS; if BIAS
@group(1) @binding(3) var<storage, read> residual: array<Elem4>;   // [rows, STRIDE4]; if RESIDUAL
@group(1) @binding(4) var<storage, read_write> out: array<Elem4>;  // [rows, STRIDE4]

// Which of the four columns at c exist.
fn exists(c: u32) -> vec4<bool> {
    return vec4<u32>(4u * c) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COLS);
}

@compute @workgroup_size(TEAM_THREADS)
fn norm(input: TeamInput) {
    let team = team_of(input, row_count(ROWS_ARE_TOKENS));
    for (var row = team.first_row; row < team.end_row; row += team.row_step) {
        let at = row * STRIDE4;
        var mean = 0.0;
        if CENTRED {
            var sum = vec4<f32>(0.0);
            for (var c = team.lane; c < STRIDE4; c += team.lanes) {
                sum += select(vec4<f32>(0.0), vec4<f32>(x[at + c]), exists(c));
            }
            mean = team_sum(dot(sum, vec4<f32>(1.0)), team.lane) / f32(COLS);
        }
        var left = vec4<f32>(0.0);
        var squares = vec4<f32>(0.0);
        for (var c = team.lane; c < STRIDE4; c += team.lanes) {
            let d = select(vec4<f32>(0.0), vec4<f32>(x[at + c]) - mean, exists(c));
            left += d;
            squares += d * d;
        }
        var shift = 0.0;
        if CENTRED {
            shift = team_sum(dot(left, vec4<f32>(1.0)), team.lane) / f32(COLS);
        }
        let variance = team_sum(dot(squares, vec4<f32>(1.0)), team.lane) / f32(COLS) - shift * shift;
        let scale = 1.0 / sqrt(variance + EPS);
        for (var c = team.lane; c < STRIDE4; c += team.lanes) {
            var y = ((vec4<f32>(x[at + c]) - mean) - shift) * scale * weight[c];
            if BIAS {
                y += bias[c];
            }
            if RESIDUAL {
                y += vec4<f32>(residual[at + c]);
            }
            out[at + c] = Elem4(y);
        }
    }
}
