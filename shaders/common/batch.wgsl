// The batch: the same for every step. Rewritten before each run.
struct Batch {
    tokens: u32,
    sequences: u32,
    query_tiles: u32,
    // Groups of a grid that other dispatches compute, before this one's first.
    first_group: u32,
}
@group(0) @binding(0) var<uniform> batch: Batch;
// [tokens] (id, position, type, sequence)
@group(0) @binding(1) var<storage, read> tokens: array<vec4<u32>>;
// [sequences] (first token, token behind the last, leading tokens that pooling leaves out, 0)
@group(0) @binding(2) var<storage, read> sequences: array<vec4<u32>>;
// [query_tiles] (first query, queries, first token of the sequence, token behind the last that attention looks at); longest
// sequence first
@group(0) @binding(3) var<storage, read> query_tiles: array<vec4<u32>>;

// The workgroup's place in its grid, whose x and y axes are folded. May lie behind the last item: always compare with its count.
fn group_index(workgroup: vec3<u32>, workgroups: vec3<u32>) -> u32 {
    return batch.first_group + workgroup.y * workgroups.x + workgroup.x;
}

// Rows of a value of tokens or of sequences.
fn row_count(rows_are_tokens: bool) -> u32 {
    return select(batch.sequences, batch.tokens, rows_are_tokens);
}
