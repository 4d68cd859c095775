// Gives every row a place with each of its experts: the rows of an expert lie one behind the other, in the order of the batch, and
// begin with a block of their own.
// A workgroup takes an expert. Its threads share out the routes, count, and then write; so places do not depend on who is first.
@group(1) @binding(0) var<storage, read> routes: array<vec2<u32>>;           // [rows, TOP] (expert, gate as bits)
@group(1) @binding(1) var<storage, read_write> places: array<vec2<u32>>;     // [rows, TOP] (place, gate as bits)
// [block_count()] (place behind the expert's last row, expert), in the last ones (0, 0)
@group(1) @binding(2) var<storage, read_write> blocks: array<vec2<u32>>;

const THREADS: u32 = 256u;
var<workgroup> counts: array<atomic<u32>, EXPERTS>;
var<workgroup> sums: array<u32, THREADS>;

fn blocks_of(rows: u32) -> u32 {
    return (rows + BLOCK - 1u) / BLOCK;
}

@compute @workgroup_size(THREADS)
fn mixture_place(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let expert = workgroup.z;
    let all = row_count(ROWS_ARE_TOKENS) * TOP;
    let share = (all + THREADS - 1u) / THREADS;
    let begin = min(lane * share, all);
    let end = min(begin + share, all);
    for (var i = lane; i < EXPERTS; i += THREADS) {
        atomicStore(&counts[i], 0u);
    }
    workgroupBarrier();
    var mine = 0u;
    for (var i = begin; i < end; i++) {
        let other = routes[i].x;
        atomicAdd(&counts[other], 1u);
        mine += u32(other == expert);
    }
    // Of this thread and all before it.
    sums[lane] = mine;
    workgroupBarrier();
    for (var step = 1u; step < THREADS; step *= 2u) {
        var before = 0u;
        if lane >= step {
            before = sums[lane - step];
        }
        workgroupBarrier();
        sums[lane] += before;
        workgroupBarrier();
    }
    var first_block = 0u;
    for (var other = 0u; other < expert; other++) {
        first_block += blocks_of(atomicLoad(&counts[other]));
    }
    let count = atomicLoad(&counts[expert]);
    var place = first_block * BLOCK + sums[lane] - mine;
    for (var i = begin; i < end; i++) {
        let route = routes[i];
        if route.x == expert {
            places[i] = vec2<u32>(place, route.y);
            place++;
        }
    }
    let end_block = first_block + blocks_of(count);
    for (var block = first_block + lane; block < end_block; block += THREADS) {
        blocks[block] = vec2<u32>(first_block * BLOCK + count, expert);
    }
    if expert == EXPERTS - 1u {
        for (var block = end_block + lane; block < block_count(); block += THREADS) {
            blocks[block] = vec2<u32>();
        }
    }
}
