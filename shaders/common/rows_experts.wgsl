// A product of each expert's rows with the expert's matrix. (rows_all.wgsl: of all rows with one.)
@group(1) @binding(2) var<storage, read> blocks: array<vec2<u32>>; // [block_count()]: as mixture_place.wgsl wrote it
struct Share { rows: u32, matrix: u32 }

// What a workgroup whose first row this is computes: rows up to this one, and by which matrix of the weight. No workgroup has rows
// of two blocks.
fn share_of(first: u32) -> Share {
    let block = first / BLOCK;
    if block >= block_count() {
        return Share();
    }
    return Share(blocks[block].x, blocks[block].y);
}
