// Normalisation of each group of columns of q, of k and of v by itself: a head (Qwen3, Gemma 3), or all heads (JinaBERT). What is
// in no group passes through.
// A workgroup takes a token. Its PARTS, the groups and what is in none, are each done by one team (common/team_*.wgsl): a group's columns twice
// around their mean, or once for the root mean square.
@group(1) @binding(0) var<storage, read> qkv: array<Elem>;       // [tokens, STRIDE]: all of q, all of k, all of v
@group(1) @binding(1) var<storage, read> weight: array<f32>;     // [2 or 3 * GROUP]: of q, of k, of v
@group(1) @binding(2) var<storage, read> bias: array<f32>;       // the same; if BIAS
@group(1) @binding(3) var<storage, read_write> out: array<Elem>; // [tokens, STRIDE]

const PARTS: u32 = TEAM_ROWS;

fn normalise(group: u32, at: u32, team: Team) {
    var mean = 0.0;
    if CENTRED {
        var sum = 0.0;
        for (var c = team.lane; c < GROUP; c += team.lanes) {
            sum += f32(qkv[at + c]);
        }
        mean = team_sum(sum, team.lane) / f32(GROUP);
    }
    var squares = 0.0;
    for (var c = team.lane; c < GROUP; c += team.lanes) {
        let d = f32(qkv[at + c]) - mean;
        squares += d * d;
    }
    let scale = 1.0 / sqrt(team_sum(squares, team.lane) / f32(GROUP) + EPS);
    let part = select(0u, GROUP, group >= FIRST_OF_K) + select(0u, GROUP, group >= FIRST_OF_V);
    for (var c = team.lane; c < GROUP; c += team.lanes) {
        var y = (f32(qkv[at + c]) - mean) * scale * weight[part + c];
        if BIAS {
            y += bias[part + c];
        }
        out[at + c] = Elem(y);
    }
}

fn work_of(team: Team) {
    let end_row = min(team.end_row, batch.tokens * PARTS);
    for (var i = team.first_row; i < end_row; i += team.row_step) {
        let row = i / PARTS * STRIDE;
        let part = i % PARTS;
        if part < GROUPS {
            normalise(part, row + part * GROUP, team);
        } else {
            for (var c = GROUPS * GROUP + team.lane; c < STRIDE; c += team.lanes) {
                out[row + c] = qkv[row + c];
            }
        }
    }
}
