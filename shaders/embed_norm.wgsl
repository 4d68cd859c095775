// Rows of tables, summed (common/embed.wgsl), and the sum normalised (common/norm.wgsl). The sum is not kept but computed anew in
// each pass: its rows lie in the nearest cache by then.
// A workgroup writes TEAM_ROWS tokens' rows, each by one team (common/team_*.wgsl).
@group(1) @binding(4) var<storage, read> affine: array<vec4<f32>>; // [1 or 2, STRIDE4]
@group(1) @binding(5) var<storage, read_write> out: array<Elem4>;  // [tokens, STRIDE4]

fn work_of(team: Team) {
    let end_row = min(team.end_row, batch.tokens);
    for (var t = team.first_row; t < end_row; t += team.row_step) {
        let row = row_of(tokens[t]);
        // Of every row, so that all lanes of a workgroup come to the team's sums.
        let moments = moments_of(row, team);
        let end = select(0u, STRIDE4, is_here(tokens[t]));
        for (var i = team.lane; i < end; i += team.lanes) {
            out[t * STRIDE4 + i] = Elem4(normalised(row, i, moments));
        }
    }
}
