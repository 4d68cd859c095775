// Leaves a mark: the last workgroup of a dispatch copies the one at its place.
@group(0) @binding(0) var<storage, read> given: array<u32>;
@group(0) @binding(1) var<storage, read_write> copied: array<u32>;

const ROW: u32 = 1024u; // as in mark.rs

@compute @workgroup_size(1)
fn mark(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    if workgroup.x + 1u == workgroups.x && workgroup.y + 1u == workgroups.y {
        let place = workgroup.y * ROW + workgroup.x;
        copied[place] = given[place];
    }
}
