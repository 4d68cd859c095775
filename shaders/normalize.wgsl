// Each row divided by max(its L2 norm, 1e-12), as torch.nn.functional.normalize.
// A workgroup takes TEAM_ROWS rows, each by one team (common/team_*.wgsl).
@group(1) @binding(0) var<storage, read> x: array<Elem4>;         // [rows, STRIDE4]
@group(1) @binding(1) var<storage, read_write> out: array<Elem4>; // [rows, STRIDE4]

// Which of the four columns at c exist.
fn exists(c: u32) -> vec4<bool> {
    return vec4<u32>(4u * c) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COLS);
}

fn work_of(team: Team) {
    let end_row = min(team.end_row, row_count(ROWS_ARE_TOKENS));
    for (var row = team.first_row; row < end_row; row += team.row_step) {
        let at = row * STRIDE4;
        var squares = 0.0;
        for (var c = team.lane; c < STRIDE4; c += team.lanes) {
            let v = select(vec4<f32>(0.0), vec4<f32>(x[at + c]), exists(c));
            squares += dot(v, v);
        }
        let scale = 1.0 / max(sqrt(team_sum(squares, team.lane)), 1e-12);
        for (var c = team.lane; c < STRIDE4; c += team.lanes) {
            out[at + c] = Elem4(vec4<f32>(x[at + c]) * scale);
        }
    }
}
