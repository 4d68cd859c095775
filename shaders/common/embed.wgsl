// Rows of up to three tables, summed: a[index_a[t] + offset_a] + b[..] + c[..].
struct Params {
    offset_a: u32,
    offset_b: u32,
    offset_c: u32,
    // Rows of the whole table that `table_a` holds: it may be a piece of a larger one.
    first_row: u32,
    end_row: u32,
}
@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> table_a: array<Elem4>; // [end_row - first_row, STRIDE4]
@group(1) @binding(2) var<storage, read> table_b: array<Elem4>; // [rows, STRIDE4]; if TABLES > 1
@group(1) @binding(3) var<storage, read> table_c: array<Elem4>; // [rows, STRIDE4]; if TABLES > 2

// Where a token's rows begin.
struct Row { a: u32, b: u32, c: u32 }

// Whether a token's row of the first table lies in the piece that is bound: another launch writes it otherwise.
fn is_here(token: vec4<u32>) -> bool {
    let row = token[INDEX_A] + params.offset_a;
    return row >= params.first_row && row < params.end_row;
}

// Of the first table, the piece's first row instead of one that is not here.
fn row_of(token: vec4<u32>) -> Row {
    return Row(
        select(0u, token[INDEX_A] + params.offset_a - params.first_row, is_here(token)) * STRIDE4,
        (token[INDEX_B] + params.offset_b) * STRIDE4,
        (token[INDEX_C] + params.offset_c) * STRIDE4,
    );
}

// Four columns of the sum, rounded to what values are stored in: with a norm in the same step or behind it, the numbers are the
// same.
fn row_at(row: Row, i: u32) -> vec4<f32> {
    var sum = vec4<f32>(table_a[row.a + i]);
    if TABLES > 1u {
        sum += vec4<f32>(table_b[row.b + i]);
    }
    if TABLES > 2u {
        sum += vec4<f32>(table_c[row.c + i]);
    }
    return vec4<f32>(Elem4(sum));
}
