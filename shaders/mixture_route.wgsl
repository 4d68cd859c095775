// Which experts a row of a mixture goes to: those of its TOP largest logits, the largest first, with gates: the softmax of all.
// A workgroup takes a row, a thread some experts.
@group(1) @binding(0) var<storage, read> logits: array<Elem>;                // [rows, LOGITS_STRIDE]
@group(1) @binding(1) var<storage, read_write> routes: array<vec2<u32>>;     // [rows, TOP] (expert, gate as bits)

// In the order of the numbers, NaNs included: so every expert has a rank of its own.
fn order(logit: f32) -> i32 {
    let bits = bitcast<i32>(logit);
    return select(select(bits ^ 0x7fffffff, bits, bits >= 0), 0, logit == 0.0);
}

@compute @workgroup_size(64)
fn mixture_route(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group_index(workgroup, workgroups);
    if row >= row_count(ROWS_ARE_TOKENS) {
        return;
    }
    let at = row * LOGITS_STRIDE;
    for (var expert = lane; expert < EXPERTS; expert += 64u) {
        let logit = f32(logits[at + expert]);
        let mine = order(logit);
        var largest = logit;
        var rank = 0u;
        for (var i = 0u; i < EXPERTS; i++) {
            let other = f32(logits[at + i]);
            let its = order(other);
            largest = max(largest, other);
            // Of equal logits the first counts.
            rank += u32(its > mine || (its == mine && i < expert));
        }
        if rank < TOP {
            var total = 0.0;
            for (var i = 0u; i < EXPERTS; i++) {
                total += exp(f32(logits[at + i]) - largest);
            }
            routes[row * TOP + rank] = vec2<u32>(expert, bitcast<u32>(exp(logit - largest) / total));
        }
    }
}
