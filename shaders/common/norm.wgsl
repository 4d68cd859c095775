// Normalisation of a row: (x - mean) / sqrt(variance + EPS) * weight + bias, with a mean of 0 unless CENTRED. A kernel says what
// a `Row` is and reads four columns of it with `row_at`. The variance is taken around the mean in a second pass over the row,
// which lies in the cache: the one-pass formula cancels. That pass also finds what rounding left in the mean: it matters where
// the row's values lie close together.
struct Moments { mean: f32, shift: f32, scale: f32 }

// Which of the four columns at c exist.
fn exists(c: u32) -> vec4<bool> {
    return vec4<u32>(4u * c) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COLS);
}

// By a team (team_*.wgsl), all lanes together.
fn moments_of(row: Row, team: Team) -> Moments {
    var mean = 0.0;
    if CENTRED {
        var sum = vec4<f32>(0.0);
        for (var c = team.lane; c < STRIDE4; c += team.lanes) {
            sum += select(vec4<f32>(0.0), row_at(row, c), exists(c));
        }
        mean = team_sum(dot(sum, vec4<f32>(1.0)), team.lane) / f32(COLS);
    }
    var left = vec4<f32>(0.0);
    var squares = vec4<f32>(0.0);
    for (var c = team.lane; c < STRIDE4; c += team.lanes) {
        let d = select(vec4<f32>(0.0), row_at(row, c) - mean, exists(c));
        left += d;
        squares += d * d;
    }
    var shift = 0.0;
    if CENTRED {
        shift = team_sum(dot(left, vec4<f32>(1.0)), team.lane) / f32(COLS);
    }
    let variance = team_sum(dot(squares, vec4<f32>(1.0)), team.lane) / f32(COLS) - shift * shift;
    return Moments(mean, shift, 1.0 / sqrt(max(variance, 0.0) + EPS));
}

// `affine` is [STRIDE4] weights and then, if BIAS, as many biases; zero behind COLS.
fn normalised(row: Row, c: u32, moments: Moments) -> vec4<f32> {
    // As fma, because compilers that may reorder sums would subtract the mean's rest from the mean, which it is too small for.
    let d = row_at(row, c) - moments.mean;
    var y = fma(d, vec4<f32>(moments.scale), vec4<f32>(-moments.shift * moments.scale)) * affine[c];
    if BIAS {
        y += affine[STRIDE4 + c];
    }
    return y;
}
