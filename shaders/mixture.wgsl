// The experts of a mixture, weighted in place: x = g * x by blocks of WIDTH columns, an expert each. g is the softmax of the row's
// logits where they are among its TOP largest, else 0.
// A workgroup takes a row: a thread finds the gates of some experts, then multiplies some columns.
@group(1) @binding(0) var<storage, read> logits: array<Elem>;  // [rows, LOGITS_STRIDE]
@group(1) @binding(1) var<storage, read_write> x: array<Elem>; // [rows, STRIDE]

var<workgroup> gates: array<f32, EXPERTS>;

fn gate(row: u32, expert: u32) -> f32 {
    let at = row * LOGITS_STRIDE;
    let logit = f32(logits[at + expert]);
    var largest = logit;
    var before = 0u;
    for (var i = 0u; i < EXPERTS; i++) {
        let other = f32(logits[at + i]);
        largest = max(largest, other);
        // Of equal logits the first counts.
        before += u32(other > logit || (other == logit && i < expert));
    }
    var total = 0.0;
    for (var i = 0u; i < EXPERTS; i++) {
        total += exp(f32(logits[at + i]) - largest);
    }
    return select(0.0, exp(logit - largest) / total, before < TOP);
}

@compute @workgroup_size(64)
fn mixture(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group_index(workgroup, workgroups);
    if row >= row_count(ROWS_ARE_TOKENS) {
        return; // the whole workgroup
    }
    for (var expert = lane; expert < EXPERTS; expert += 64u) {
        gates[expert] = gate(row, expert);
    }
    workgroupBarrier();
    for (var c = lane; c < EXPERTS * WIDTH; c += 64u) {
        x[row * STRIDE + c] = Elem(gates[c / WIDTH] * f32(x[row * STRIDE + c]));
    }
}
