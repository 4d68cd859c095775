// Rows of up to three tables, summed: y[t] = a[index_a[t] + offset_a] + b[..] + c[..].
// A workgroup writes one token's row; `a` may be a piece of a larger table, and then only the tokens whose row lies in it
// are written.
struct Params {
    offset_a: u32,
    offset_b: u32,
    offset_c: u32,
    // Rows of the whole table that binding `a` holds.
    first_row: u32,
    end_row: u32,
}
@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> a: array<Elem4>;         // [end_row - first_row, STRIDE4]
@group(1) @binding(2) var<storage, read> b: array<Elem4>;         // [rows, STRIDE4]; if TABLES > 1
@group(1) @binding(3) var<storage, read> c: array<Elem4>;         // [rows, STRIDE4]; if TABLES > 2
@group(1) @binding(4) var<storage, read_write> out: array<Elem4>; // [tokens, STRIDE4]

@compute @workgroup_size(64)
fn embed(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = group_index(workgroup, workgroups);
    if t >= batch.tokens {
        return;
    }
    let token = tokens[t];
    let row = token[INDEX_A] + params.offset_a;
    if row < params.first_row || row >= params.end_row {
        return;
    }
    let at_a = (row - params.first_row) * STRIDE4;
    let at_b = (token[INDEX_B] + params.offset_b) * STRIDE4;
    let at_c = (token[INDEX_C] + params.offset_c) * STRIDE4;
    for (var i = lane; i < STRIDE4; i += 64u) {
        var sum = vec4<f32>(a[at_a + i]);
        if TABLES > 1u {
            sum += vec4<f32>(b[at_b + i]);
        }
        if TABLES > 2u {
            sum += vec4<f32>(c[at_c + i]);
        }
        out[t * STRIDE4 + i] = Elem4(sum);
    }
}
