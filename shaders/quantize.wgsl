// x in 8 bits: every GROUP columns of a row by a scale of their own, their largest value over 127.
// A workgroup takes ROWS rows, 8 threads a group.
@group(1) @binding(0) var<storage, read> x: array<Elem4>;          // [rows, IN4]
@group(1) @binding(1) var<storage, read_write> out: array<u32>;    // [rows, STRIDE]: words of 4 columns, then GROUPS scales

const GROUP4: u32 = GROUP / 4u;
const THREADS_A_GROUP: u32 = 8u;
const VECTORS: u32 = GROUP4 / THREADS_A_GROUP;
const ITEMS: u32 = 64u / THREADS_A_GROUP; // groups at a time
var<workgroup> largest: array<f32, 64>;

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
    let rows = row_count(ROWS_ARE_TOKENS);
    let first = group_index(workgroup, workgroups) * ROWS;
    if first >= rows {
        return; // the whole workgroup
    }
    for (var done = 0u; done < ROWS * GROUPS; done += ITEMS) {
        let item = done + index / THREADS_A_GROUP;
        // Items behind the last do what the last does.
        let row = min(first + min(item / GROUPS, ROWS - 1u), rows - 1u);
        let group = item % GROUPS;
        let column = group * GROUP4 + index % THREADS_A_GROUP;
        var most = vec4<f32>();
        for (var i = 0u; i < VECTORS; i++) {
            most = max(most, abs(load(row, column + i * THREADS_A_GROUP)));
        }
        largest[index] = max(max(most.x, most.y), max(most.z, most.w));
        workgroupBarrier();
        var scale = 0.0;
        for (var i = 0u; i < THREADS_A_GROUP; i++) {
            scale = max(scale, largest[index / THREADS_A_GROUP * THREADS_A_GROUP + i]);
        }
        workgroupBarrier(); // before the next groups overwrite it
        scale /= 127.0;
        let inverse = select(0.0, 1.0 / scale, scale > 0.0);
        if item < ROWS * GROUPS && first + item / GROUPS < rows {
            for (var i = 0u; i < VECTORS; i++) {
                let c = column + i * THREADS_A_GROUP;
                let q = vec4<u32>(vec4<i32>(round(load(row, c) * inverse))) & vec4<u32>(0xffu);
                out[row * STRIDE + c] = q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
            }
            if index % THREADS_A_GROUP == 0u {
                out[row * STRIDE + GROUPS * GROUP4 + group] = bitcast<u32>(scale);
            }
        }
    }
}
