// DeBERTa's disentangled attention (He et al. 2021) in tiles: scores also have what the query and what the key make of the
// distance between them. Every query and key of a tile meets every distance that occurs in it, in register tiles of 4 x 4, and a
// score picks two of these products. SPAN, TABLE_STRIDE4 and table_row() are generated (kernels/attention/bias.rs).
// Distances of a tile are counted from that of its first query to its last key on; there is one less than this.
const DISTANCES: u32 = QUERY_TILE + KEYS;
const_assert HEAD_DIM % 4u == 0u && HEADS_A_GROUP == 1u;
// Where the row of each distance begins in either half of the table.
var<workgroup> table_at: array<u32, DISTANCES>;
// [QUERY_TILE, DISTANCES] of the queries, then [KEYS, DISTANCES] of the keys.
var<workgroup> of_distances: array<f32, DISTANCES * DISTANCES>;

// The products of the tile's queries and keys with the table.
fn meet_distances(at: Place, keys: Keys) {
    let count = keys.end - keys.first;
    let quarter = (at.tile.y + count + 2u) / 4u;
    for (var i = at.lane; i < 4u * quarter; i += LANES) {
        table_at[i] = table_row(at.tile.x + i, keys.end - 1u) * TABLE_STRIDE4 + at.head * HEAD4;
    }
    workgroupBarrier();
    for (var i = at.lane; i < (at.quarter + keys.quarter) * quarter; i += LANES) {
        var row = i / quarter;
        var first_row = 0u;
        var to = 0u;
        var half = 0u;
        var apart = at.quarter;
        if row >= at.quarter {
            row -= at.quarter;
            first_row = KEYS_AT;
            to = QUERY_TILE * DISTANCES;
            half = 2u * SPAN * TABLE_STRIDE4;
            apart = keys.quarter;
        }
        let distance = i % quarter;
        let a = half + table_at[distance];
        let b = half + table_at[distance + quarter];
        let c = half + table_at[distance + 2u * quarter];
        let d = half + table_at[distance + 3u * quarter];
        var sums: Four;
        for (var column = 0u; column < HEAD4; column++) {
            let table = Four(
                vec4<f32>(bias[a + column]),
                vec4<f32>(bias[b + column]),
                vec4<f32>(bias[c + column]),
                vec4<f32>(bias[d + column]),
            );
            sums.a += dots(row_at(first_row, row, column), table);
            sums.b += dots(row_at(first_row, row + apart, column), table);
            sums.c += dots(row_at(first_row, row + 2u * apart, column), table);
            sums.d += dots(row_at(first_row, row + 3u * apart, column), table);
        }
        keep_products(to + row * DISTANCES + distance, quarter, sums.a);
        keep_products(to + (row + apart) * DISTANCES + distance, quarter, sums.b);
        keep_products(to + (row + 2u * apart) * DISTANCES + distance, quarter, sums.c);
        keep_products(to + (row + 3u * apart) * DISTANCES + distance, quarter, sums.d);
    }
    workgroupBarrier();
}

fn keep_products(to: u32, apart: u32, products: vec4<f32>) {
    of_distances[to] = products.x;
    of_distances[to + apart] = products.y;
    of_distances[to + 2u * apart] = products.z;
    of_distances[to + 3u * apart] = products.w;
}

// The products of a query and the four keys of a register tile, with those of their distances.
fn with_distances(products: vec4<f32>, at: Place, keys: Keys, query: u32, key: u32) -> vec4<f32> {
    let row = min(query, at.tile.y - 1u);
    let last = keys.end - keys.first - 1u;
    let of_tile = min(key + keys.quarter * vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last));
    let of_query = row * DISTANCES + row + last - of_tile;
    let of_key = (QUERY_TILE + of_tile) * DISTANCES + row + last - of_tile;
    return products + vec4<f32>(
        of_distances[of_query.x] + of_distances[of_key.x],
        of_distances[of_query.y] + of_distances[of_key.y],
        of_distances[of_query.z] + of_distances[of_key.z],
        of_distances[of_query.w] + of_distances[of_key.w],
    );
}
