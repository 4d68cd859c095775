// Normalisation of each row (common/norm.wgsl), and a residual added.
// A workgroup normalises TEAM_ROWS rows, each by one team (common/team_*.wgsl).
@group(1) @binding(0) var<storage, read> x: array<Elem4>;          // [rows, STRIDE4]
@group(1) @binding(1) var<storage, read> affine: array<vec4<f32>>; // [1 or 2, STRIDE4]
@group(1) @binding(2) var<storage, read> residual: array<Elem4>;   // [rows, STRIDE4]; if RESIDUAL
@group(1) @binding(3) var<storage, read_write> out: array<Elem4>;  // [rows, STRIDE4]

struct Row { at: u32 }

fn row_at(row: Row, c: u32) -> vec4<f32> {
    return vec4<f32>(x[row.at + c]);
}

fn work_of(team: Team) {
    let end_row = min(team.end_row, row_count(ROWS_ARE_TOKENS));
    for (var i = team.first_row; i < end_row; i += team.row_step) {
        let row = Row(i * STRIDE4);
        let moments = moments_of(row, team);
        for (var c = team.lane; c < STRIDE4; c += team.lanes) {
            var y = normalised(row, c, moments);
            if RESIDUAL {
                y += vec4<f32>(residual[row.at + c]);
            }
            out[row.at + c] = Elem4(y);
        }
    }
}
