// A team is a subgroup, of whatever size the driver chose: the subgroups of a workgroup share its TEAM_ROWS rows.
const TEAM_THREADS: u32 = 64u;

struct TeamInput {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(subgroup_id) team: u32,
    @builtin(num_subgroups) teams: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
}

// Rows first_row, first_row + row_step, ... below end_row; columns lane, lane + lanes, ...
struct Team { first_row: u32, row_step: u32, end_row: u32, lane: u32, lanes: u32 }

fn team_of(input: TeamInput, rows: u32) -> Team {
    let first = group_index(input.workgroup, input.workgroups) * TEAM_ROWS;
    return Team(first + input.team, input.teams, min(first + TEAM_ROWS, rows), input.lane, input.lanes);
}

// The sum over the team's lanes, in every lane.
fn team_sum(x: f32, lane: u32) -> f32 {
    return subgroupAdd(x);
}
