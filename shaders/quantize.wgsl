// x in 8 bits: every GROUP columns of a row as their middle, and what they are off it by over a scale of their own.
// A workgroup takes ROWS rows, 4 threads a group.
@group(1) @binding(0) var<storage, read> x: array<Elem4>;          // [rows, IN4]
@group(1) @binding(1) var<storage, read_write> out: array<u32>;    // [rows, STRIDE]: words of 4 columns, GROUPS scales, GROUPS middles

const GROUP4: u32 = GROUP / 4u;
const THREADS_A_GROUP: u32 = 4u;
const_assert GROUP4 % THREADS_A_GROUP == 0u;
const VECTORS: u32 = GROUP4 / THREADS_A_GROUP;
const ITEMS: u32 = 64u / THREADS_A_GROUP; // groups at a time
var<workgroup> extremes: array<vec2<f32>, 64>; // least, most

// Behind the last column there are zeros.
fn load(row: u32, c: u32) -> vec4<f32> {
    if c >= IN4 {
        return vec4<f32>();
    }
    let exists = vec4<u32>(4u * c) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COLS);
    return select(vec4<f32>(), vec4<f32>(x[row * IN4 + c]), exists);
}

@compute @workgroup_size(64)
fn quantize(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = group_index(workgroup, workgroups) * ROWS;
    let rows = share_of(first).rows;
    if first >= rows {
        return; // the whole workgroup
    }
    for (var done = 0u; done < ROWS * GROUPS; done += ITEMS) {
        let item = done + index / THREADS_A_GROUP;
        // Items behind the last do what the last does.
        let row = min(first + min(item / GROUPS, ROWS - 1u), rows - 1u);
        let group = item % GROUPS;
        let column = group * GROUP4 + index % THREADS_A_GROUP;
        var least = vec4<f32>(3.4028234e38);
        var most = -least;
        for (var i = 0u; i < VECTORS; i++) {
            let value = load(row, column + i * THREADS_A_GROUP);
            least = min(least, value);
            most = max(most, value);
        }
        extremes[index] = vec2<f32>(min(min(least.x, least.y), min(least.z, least.w)), max(max(most.x, most.y), max(most.z, most.w)));
        workgroupBarrier();
        var of_group = extremes[index / THREADS_A_GROUP * THREADS_A_GROUP];
        for (var i = 1u; i < THREADS_A_GROUP; i++) {
            let other = extremes[index / THREADS_A_GROUP * THREADS_A_GROUP + i];
            of_group = vec2<f32>(min(of_group.x, other.x), max(of_group.y, other.y));
        }
        workgroupBarrier(); // before the next groups overwrite it
        let middle = 0.5 * of_group.x + 0.5 * of_group.y;
        let scale = (of_group.y - middle) / 127.0;
        let inverse = select(0.0, 1.0 / scale, scale > 0.0);
        if item < ROWS * GROUPS && first + item / GROUPS < rows {
            for (var i = 0u; i < VECTORS; i++) {
                let c = column + i * THREADS_A_GROUP;
                let q = vec4<u32>(vec4<i32>(clamp(round((load(row, c) - middle) * inverse), vec4<f32>(-127.0), vec4<f32>(127.0)))) & vec4<u32>(0xffu);
                out[row * STRIDE + c] = q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
            }
            if index % THREADS_A_GROUP == 0u {
                out[row * STRIDE + GROUPS * GROUP4 + group] = bitcast<u32>(scale);
                out[row * STRIDE + GROUPS * (GROUP4 + 1u) + group] = bitcast<u32>(middle);
            }
        }
    }
}
