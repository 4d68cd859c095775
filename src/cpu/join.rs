//! Values side by side.

/// Copies the parts, each with its columns, into rows of `cols` in all.
pub fn join<'a>(parts: impl Iterator<Item = (&'a [f32], usize)>, cols: usize, out: &mut [f32]) {
    let mut first = 0;
    for (part, part_cols) in parts {
        for (row, out) in part.chunks_exact(part_cols).zip(out.chunks_exact_mut(cols)) {
            out[first..first + part_cols].copy_from_slice(row);
        }
        first += part_cols;
    }
}
