// Which keys a query of attention sees: those of its sequence, from tile.z to tile.w, that are at most WINDOW away and, if CAUSAL,
// not behind it.
const SMALLEST: f32 = -3.4028234e38; // the score of a key that is not seen
// What scores are at least relative to: far above SMALLEST and below every other, so that a key that is not seen has no weight,
// whatever else a query sees.
const LEAST: f32 = -1.7014117e38;

// What a query's weights add up to, to divide by: one that sees no key gets 0.
fn divisor(total: f32) -> f32 {
    return select(total, 1.0, total == 0.0);
}

// The head of k and v that a head of q meets.
fn kv_head(head: u32) -> u32 {
    return head / (HEADS / KV_HEADS);
}

// The keys that the queries of a tile see: the first, and the one behind the last.
fn seen_by(tile: vec4<u32>) -> vec2<u32> {
    let begin = max(tile.z, tile.x - min(tile.x, WINDOW));
    let last = tile.x + tile.y - 1u;
    let end = last + 1u + select(min(WINDOW, tile.w), 0u, CAUSAL);
    return vec2<u32>(begin, min(end, tile.w));
}

// Which of four keys a query does not see; it sees none from `end` on.
fn hidden_keys(query: u32, keys: vec4<u32>, end: u32) -> vec4<bool> {
    var hidden = keys >= vec4<u32>(end);
    if CAUSAL {
        hidden = hidden | (keys > vec4<u32>(query));
    }
    if WINDOW < 0xffffffffu {
        hidden = hidden | (max(keys, vec4<u32>(query)) - min(keys, vec4<u32>(query)) > vec4<u32>(WINDOW));
    }
    return hidden;
}
