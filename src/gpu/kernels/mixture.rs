//! A mixture of experts: every row is copied to a place with each of its experts, those of an expert one behind the other; the
//! experts' two products go over these places; and what comes of a row is added up by its gates. Nobody but the device knows how
//! many rows an expert has, so grids cover the most blocks of places that there may be, and workgroups behind the last row of
//! their block end at once.

use super::linear::{By, Product};
use crate::error::Result;
use crate::gpu::compile::{Between, Context, Count, Grid, Launch, Room, Routing, Row, Slot};
use crate::gpu::kernel::{Binding, Kernel, Prelude, stride4};
use crate::gpu::weights::{VECTOR, WeightUse};
use crate::program::{Activation, Blocks, Mixture, Rows};

static ROUTE: Kernel = Kernel {
    name: "mixture_route",
    source: include_str!("../../../shaders/mixture_route.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Write],
};

static PLACE: Kernel = Kernel {
    name: "mixture_place",
    source: include_str!("../../../shaders/mixture_place.wgsl"),
    parts: &[EXPERTS_PART],
    bindings: &[Binding::Read, Binding::Write, Binding::Write],
};

static GATHER: Kernel = Kernel {
    name: "mixture_gather",
    source: include_str!("../../../shaders/mixture_gather.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Read, Binding::Write],
};

static SUM: Kernel = Kernel {
    name: "mixture_sum",
    source: include_str!("../../../shaders/mixture_sum.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Read, Binding::Read, Binding::Read, Binding::Write],
};

/// How many blocks there are.
pub(super) const EXPERTS_PART: &str = include_str!("../../../shaders/common/experts.wgsl");

/// The launches of a mixture.
pub fn launches(op: &Mixture, context: &Context) -> Result<Vec<Launch>> {
    let (shape, cols, experts) = (context.out_shape(), context.shape(op.x).cols, context.shape(op.logits).cols);
    let width = context.weight(op.up).rows / experts;
    let routing = Routing { rows: shape.rows, experts, top: op.top };
    let between = |room, rows, row| Slot::Between(Between { room, rows, row });
    let of_rows = |room| between(room, shape.rows.into(), Row::Words(2 * op.top));
    let (routes, places) = (of_rows(Room::Routes), of_rows(Room::Places));
    let owners = between(Room::Blocks, Count::Blocks(routing), Row::Words(2));
    let of_experts = |room, cols| between(room, Count::Places(routing), Row::Numbers(cols));
    let (gathered, inner) = (of_experts(Room::Experts, cols), of_experts(Room::Inner, width));
    let computed = of_experts(Room::Experts, shape.cols);
    let launch =
        |kernel, prelude, slots, grid| Launch { kernel, prelude, params: vec![], slots, grid, items: Launch::ALWAYS };
    let a_row = Grid { count: shape.rows.into(), per_group: 1, columns: 1 };
    // One, however many rows there are, for each expert.
    let an_expert = Grid { count: shape.rows.into(), per_group: u32::MAX, columns: experts as u32 };
    let constants = || with_rows(context.prelude(), routing);
    let route = launch(
        &ROUTE,
        constants().constant("LOGITS_STRIDE", 4 * stride4(experts)),
        vec![Slot::Value(op.logits), routes.clone()],
        a_row,
    );
    let place = launch(&PLACE, constants(), vec![routes, places.clone(), owners.clone()], an_expert);
    let gather = launch(
        &GATHER,
        constants().constant("STRIDE4", stride4(cols)),
        vec![places.clone(), Slot::Value(op.x), gathered.clone()],
        a_row,
    );
    let product = |x, weight, matrices, activation, out| Product {
        rows: shape.rows,
        x,
        weight,
        by: By::Experts { routing, owners: owners.clone(), matrices },
        activation,
        residual: None,
        out,
    };
    let up = product(gathered, op.up, Blocks::Stacked(experts), op.activation, inner.clone());
    let down = product(inner, op.down, Blocks::Beside(experts), Activation::Identity, computed.clone());
    let bias = op.bias.map(|bias| Slot::Weight(WeightUse::whole(bias, context.weight(bias), &VECTOR)));
    let sum = launch(
        &SUM,
        constants()
            .constant("STRIDE4", stride4(shape.cols))
            .constant("BIAS", op.bias.is_some())
            .constant("RESIDUAL", op.residual.is_some()),
        vec![
            places,
            computed,
            bias.unwrap_or(Slot::Unused),
            op.residual.map_or(Slot::Unused, Slot::Value),
            Slot::Value(context.out),
        ],
        a_row,
    );
    Ok([vec![route, place, gather], up.launches(context), down.launches(context), vec![sum]].concat())
}

/// What kernels know of a mixture's rows.
pub(super) fn with_rows(prelude: Prelude, Routing { rows, experts, top }: Routing) -> Prelude {
    let prelude = prelude.constant("EXPERTS", experts).constant("TOP", top).constant("BLOCK", Routing::BLOCK);
    prelude.constant("ROWS_ARE_TOKENS", rows == Rows::Tokens)
}
