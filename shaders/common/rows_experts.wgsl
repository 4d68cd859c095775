// A product of each expert's rows with the expert's matrix. (rows_all.wgsl: of all rows with one.)
@group(1) @binding(2) var<storage, read> blocks: array<vec2<u32>>; // [block_count()]: as mixture_place.wgsl wrote it
struct Share { rows: u32, matrix: u32 }

// What a workgroup whose first row this is computes: rows up to this one, and by which matrix of the weight. No workgroup has rows
// of two blocks.
fn share_of(first: u32) -> Share {
    // Without a branch: FXC would take what is returned for different from thread to thread, and refuse barriers behind it.
    let block = first / BLOCK;
    let count = block_count();
    let found = blocks[min(block, count - 1u)];
    return Share(select(0u, found.x, block < count), found.y);
}
