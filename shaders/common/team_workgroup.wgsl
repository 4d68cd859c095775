// A team is the whole workgroup, which takes its TEAM_ROWS rows one by one: for devices without subgroup operations.
const TEAM_THREADS: u32 = 64u;

// Rows first_row, first_row + row_step, ... below end_row, which may lie behind the last; columns lane, lane + lanes, ...
struct Team { first_row: u32, row_step: u32, end_row: u32, lane: u32, lanes: u32 }

// The kernel's entry point, under its name. work_of() is the kernel's own.
@compute @workgroup_size(TEAM_THREADS)
fn KERNEL(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group_index(workgroup, workgroups) * TEAM_ROWS;
    work_of(Team(first, 1u, first + TEAM_ROWS, lane, TEAM_THREADS));
}

var<workgroup> team_scratch: array<f32, TEAM_THREADS>;

// The sum over the team's lanes, in every lane. All lanes of the workgroup must call it together.
fn team_sum(x: f32, lane: u32) -> f32 {
    team_scratch[lane] = x;
    for (var half = TEAM_THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            team_scratch[lane] += team_scratch[lane + half];
        }
    }
    workgroupBarrier();
    let sum = team_scratch[0];
    workgroupBarrier(); // before the next sum overwrites it
    return sum;
}
