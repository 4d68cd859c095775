// A product of all rows with one matrix. (rows_experts.wgsl: of each expert's rows with the expert's.)
struct Share { rows: u32, matrix: u32 }

// What a workgroup whose first row this is computes: rows up to this one, and by which matrix of the weight.
fn share_of(first: u32) -> Share {
    return Share(row_count(ROWS_ARE_TOKENS), 0u);
}
