// Blocks that the rows of all experts take at most.
fn block_count() -> u32 {
    let routes = row_count(ROWS_ARE_TOKENS) * TOP;
    return min((routes + EXPERTS * (BLOCK - 1u) + BLOCK - 1u) / BLOCK, routes);
}
