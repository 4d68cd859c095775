// A team is a subgroup, of whatever size the driver chose: the subgroups of a workgroup share its TEAM_ROWS rows.
const TEAM_THREADS: u32 = 64u;

// Rows first_row, first_row + row_step, ... below end_row, which may lie behind the last; columns lane, lane + lanes, ...
struct Team { first_row: u32, row_step: u32, end_row: u32, lane: u32, lanes: u32 }

// The kernel's entry point, under its name. work_of() is the kernel's own. (Members of a struct, subgroup builtins have no HLSL in
// naga 30.)
@compute @workgroup_size(TEAM_THREADS)
fn KERNEL(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(subgroup_id) team: u32,
    @builtin(num_subgroups) teams: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let first = group_index(workgroup, workgroups) * TEAM_ROWS;
    // A subgroup may be larger than the workgroup, and has no more lanes then.
    work_of(Team(first + team, teams, first + TEAM_ROWS, lane, min(lanes, TEAM_THREADS)));
}

// The sum over the team's lanes, in every lane.
fn team_sum(x: f32, lane: u32) -> f32 {
    return subgroupAdd(x);
}
