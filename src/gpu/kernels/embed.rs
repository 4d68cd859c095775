//! Rows of tables, summed, and normalised if there is a norm. A table that is larger than one binding is cut into pieces of rows, each with a launch that
//! writes only the tokens whose row lies in its piece.

use super::{norm, team};
use crate::error::{Error, Result};
use crate::gpu::compile::{Context, Count, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::gpu::weights::{ROWS, WeightUse};
use crate::program::{Blocks, Embed, Index, Lookup};

const EMBED_PART: &str = include_str!("../../../shaders/common/embed.wgsl");

static EMBED: Kernel = Kernel {
    name: "embed",
    source: include_str!("../../../shaders/embed.wgsl"),
    parts: &[EMBED_PART],
    bindings: &[Binding::Params, Binding::Read, Binding::Read, Binding::Read, Binding::Write],
};

static EMBED_NORM: Kernel = Kernel {
    name: "embed_norm",
    source: include_str!("../../../shaders/embed_norm.wgsl"),
    parts: &[EMBED_PART, norm::NORM_PART],
    bindings: &[Binding::Params, Binding::Read, Binding::Read, Binding::Read, Binding::Read, Binding::Write],
};

/// Tables that the kernel can bind.
const TABLES: usize = 3;

/// The launches of an embedding.
pub fn launches(op: &Embed, context: &Context) -> Result<Vec<Launch>> {
    if op.lookups.len() > TABLES {
        return Err(Error::Device(format!("an embedding of {} tables; the kernel binds {TABLES}", op.lookups.len())));
    }
    let cols = context.out_shape().cols;
    let limits = &context.target.limits;
    let binding = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    let rows_that_fit = (binding / ROWS.bytes(1, cols, context.target.dtype).max(1)).max(1) as usize;
    let rows = |lookup: &Lookup| context.weight(lookup.table).rows;

    // The largest table comes first: it is the one that may be cut.
    let mut lookups = op.lookups.clone();
    lookups.sort_by_key(|lookup| std::cmp::Reverse(rows(lookup)));
    if let Some(second) = lookups.get(1)
        && rows(second) > rows_that_fit
    {
        return Err(Error::Device(format!(
            "two tables of more than {rows_that_fit} rows in one embedding: '{}' and '{}'; the device binds {binding} bytes",
            context.weight(lookups[0].table).name(),
            context.weight(second.table).name(),
        )));
    }

    let table = |lookup: Option<&Lookup>| match lookup {
        Some(lookup) => Slot::Weight(WeightUse::whole(lookup.table, context.weight(lookup.table), &ROWS)),
        None => Slot::Unused,
    };
    let component = |lookup: Option<&Lookup>| match lookup.map(|lookup| lookup.index) {
        Some(Index::Ids) | None => 0usize,
        Some(Index::Positions) => 1,
        Some(Index::Types) => 2,
    };
    let prelude = context
        .prelude()
        .constant("TABLES", lookups.len())
        .constant("INDEX_A", component(lookups.first()))
        .constant("INDEX_B", component(lookups.get(1)))
        .constant("INDEX_C", component(lookups.get(2)));
    let (kernel, prelude, affine, per_group) = match &op.norm {
        None => (&EMBED, prelude.constant("STRIDE4", stride4(cols)), None, 1),
        Some(by) => {
            let (prelude, per_group) = team(&EMBED_NORM, prelude, context.target);
            let (prelude, affine) = norm::affine(by, cols, prelude, context);
            (&EMBED_NORM, prelude, Some(affine), per_group)
        }
    };
    let offset = |i: usize| lookups.get(i).map_or(0, |lookup: &Lookup| lookup.offset);

    let largest = &lookups[0];
    let pieces = (0..rows(largest)).step_by(rows_that_fit).map(|first| {
        let range = first..(first + rows_that_fit).min(rows(largest));
        // As `Params` in common/embed.wgsl.
        let params = [offset(0), offset(1), offset(2), range.start as u32, range.end as u32, 0, 0, 0];
        let tables = [
            Slot::Weight(WeightUse { weight: largest.table, rows: range, blocks: Blocks::WHOLE, packing: &ROWS }),
            table(lookups.get(1)),
            table(lookups.get(2)),
        ];
        Launch {
            kernel,
            prelude: prelude.clone(),
            items: Launch::ALWAYS,
            params: bytemuck::cast_slice(&params).to_vec(),
            slots: tables.into_iter().chain(affine.clone()).chain([Slot::Value(context.out)]).collect(),
            grid: Grid { count: Count::Tokens, per_group, columns: 1 },
        }
    });
    Ok(pieces.collect())
}
