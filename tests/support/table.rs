//! The table of op cases, at awkward sizes.
//!
//! To add an op: a function here that returns its cases, a line in `table`.

use super::attentions;
use super::case::{Case, input};
use super::compare::Tolerance;
use super::data::{EDGES, Fill, POSITIONS, TestWeights, VOCABULARY, batch, odd_batches, single};
use super::sentences;
use lexel::program::*;

/// Columns that are no multiples of a vector or of a tile.
pub(super) const COLS: [usize; 8] = [1, 2, 3, 5, 30, 36, 37, 384];

/// For a kernel that differs from one in `table`'s full run by how it loads or by its subgroup size only: a case of each op,
/// at sizes that no tile divides. Pipelines are what a run costs.
pub fn short_table() -> Vec<Case> {
    let names = [
        "embed 37",
        "embed and norm 37",
        "pool and normalize 37",
        "linear 65 -> 129",
        "linear behind pool",
        "norm 37",
        "norm 384 around 1000",
    ];
    let more = ["attention 3 heads of 5", "attention 1 heads of 80", "pool 37", "normalize 37", "glu 37"];
    let cases: Vec<Case> =
        table().into_iter().filter(|case| [&names[..], &more].concat().contains(&case.name.as_str())).collect();
    assert_eq!(cases.len(), names.len() + more.len());
    cases
}

/// Every case.
pub fn table() -> Vec<Case> {
    let ops = [
        embed(),
        embed_norm(),
        linear(),
        activations(),
        norm(),
        glu(),
        mixture(),
        sum(),
        join(),
        head_norm(),
        rotary(),
        short_conv(),
        attentions::attention(),
        attentions::variants(),
        attentions::of_expanded(),
        attentions::disentangled(),
        sentences::pool(),
        sentences::pool_normalize(),
        sentences::normalize(),
    ];
    ops.into_iter().flatten().collect()
}

fn embed() -> Vec<Case> {
    let mut cases = Vec::new();
    for cols in COLS {
        let mut b = Builder::new();
        let mut lookup = |name: &str, rows, index, offset| Lookup { table: b.matrix(name, rows, cols), index, offset };
        let lookups = vec![
            lookup("x.ids", VOCABULARY, Index::Ids, 0),
            lookup("x.positions", POSITIONS + 2, Index::Positions, 2),
            lookup("x.types", 2, Index::Types, 0),
        ];
        let one = vec![lookup("x.offset", VOCABULARY + 5, Index::Ids, 5)];
        b.label("one table");
        b.embed(one);
        b.label("three tables");
        let x = b.embed(lookups);
        cases.push(Case::new(format!("embed {cols}"), b, x));
    }
    cases
}

/// Embeddings whose sum is normalised, of one table and of three.
fn embed_norm() -> Vec<Case> {
    let build = |cols: usize| {
        let mut b = Builder::new();
        let (weight, bias) = (b.vector("norm.weight", cols), Some(b.vector("norm.bias", cols)));
        let mut lookup = |name: &str, rows, index, offset| Lookup { table: b.matrix(name, rows, cols), index, offset };
        let ids = lookup("x.ids", VOCABULARY, Index::Ids, 0);
        let more = [lookup("x.positions", POSITIONS + 2, Index::Positions, 2), lookup("x.types", 2, Index::Types, 0)];
        b.label("one table, root mean square");
        b.embed_normed(vec![ids.clone()], RowNorm { kind: NormKind::Rms, weight, bias: None, eps: 1e-6 });
        b.label("three tables, with bias");
        let norm = RowNorm { kind: NormKind::Layer, weight, bias, eps: 1e-12 };
        let x = b.embed_normed([vec![ids], more.to_vec()].concat(), norm);
        let twice = Tolerance::new("the sum is rounded to f16 before its norm, and the result again", 6e-4, 1.1e-3);
        Case::new(format!("embed and norm {cols}"), b, x).f16(twice)
    };
    [5, 30, 36, 37, 384, 1030].into_iter().map(build).collect()
}

/// Inner and outer sizes of a linear.
const LINEARS: [(usize, usize); 11] =
    [(1, 1), (3, 2), (5, 30), (30, 5), (37, 36), (64, 64), (65, 129), (128, 127), (37, 384), (384, 256), (96, 200)];

/// Rows around every tile's edge. The combinations of bias, residual and activation take turns, but for one size that has
/// all of them: each costs a pipeline on a GPU.
fn linear() -> Vec<Case> {
    let mut cases = Vec::new();
    for (turn, (inner, outer)) in LINEARS.into_iter().enumerate() {
        let mut b = Builder::new();
        let x = input(&mut b, "x", inner);
        let other = input(&mut b, "x.residual", outer);
        let weight = b.matrix("weight", outer, inner);
        let offset = b.vector("bias", outer);
        let mut y = x;
        for combination in 0..8 {
            if combination != turn % 8 && (inner, outer) != (37, 36) {
                continue;
            }
            let bias = (combination & 1 != 0).then_some(offset);
            let residual = (combination & 2 != 0).then_some(other);
            let activation = if combination & 4 != 0 { Activation::Gelu } else { Activation::Identity };
            b.label(format!("bias {}, residual {}", bias.is_some(), residual.is_some()));
            y = b.linear(Linear { x, weight, bias, activation, residual });
        }
        let every_row = matches!((inner, outer), (1, 1) | (5, 30) | (37, 36) | (65, 129));
        let rows = if every_row { single(&EDGES) } else { single(&[1, 33, 128]) };
        cases.push(Case::new(format!("linear {inner} -> {outer}"), b, y).batches(rows));
    }

    let mut b = Builder::new();
    let x = input(&mut b, "x", 37);
    let (weight, bias) = (b.tensor("weight", vec![150, 37]), b.tensor("bias", vec![150]));
    let mut blocks = Vec::new();
    for (first, rows) in [(0, 100), (100, 50)] {
        let [weight, bias] = [&weight, &bias].map(|tensor| b.weight(vec![Part::Rows(tensor.clone(), first, rows)]));
        blocks.push(b.linear(Linear { x, weight, bias: Some(bias), activation: Activation::Relu, residual: None }));
    }
    let y = b.join(blocks);
    cases.push(Case::new("linear in blocks of its rows", b, y).batches(single(&[1, 33, 128])));

    let mut b = Builder::new();
    let x = input(&mut b, "x", 37);
    let pooled = b.pool(Pool { x, modes: vec![PoolMode::Mean, PoolMode::Max], normalize: false });
    b.label("rows are sequences");
    let weight = b.matrix("dense.weight", 30, 74);
    let bias = Some(b.vector("dense.bias", 30));
    let dense = b.linear(Linear { x: pooled, weight, bias, activation: Activation::Tanh, residual: None });
    let sentences = b.normalize(dense);
    let mut batches = odd_batches();
    batches.push(batch(&[2; 65]));
    cases.push(Case::of("linear behind pool", b.finish(sentences, x)).batches(batches));
    cases
}

/// Every activation over [-30, 30]. The weight is an identity, so that the function's argument is known to the last bit,
/// also beside the steps of the hard ones. Rows are sequences of one token: those kernels compile faster.
fn activations() -> Vec<Case> {
    let mut b = Builder::new();
    let table = b.matrix("ramp", VOCABULARY, 64);
    b.label("ramp");
    let tokens = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
    let x = b.pool(Pool::new(tokens, PoolMode::Cls));
    let weight = b.matrix("identity", 64, 64);
    let mut y = x;
    for activation in Activation::ALL {
        b.label(activation.name());
        y = b.linear(Linear { x, weight, bias: None, activation, residual: None });
    }
    let weights =
        TestWeights::default().with("ramp", Fill::Ramp { from: -30.0, to: 30.0 }).with("identity", Fill::Identity);
    let case = Case::of("activations", b.finish(y, tokens));
    vec![case.weights(weights).batches(vec![batch(&[1; VOCABULARY])])]
}

fn norm() -> Vec<Case> {
    let build = |cols| {
        let mut b = Builder::new();
        let x = input(&mut b, "x", cols);
        let (weight, offset) = (b.vector("norm.weight", cols), b.vector("norm.bias", cols));
        b.label("without bias");
        b.norm(Norm { x, norm: RowNorm { kind: NormKind::Layer, weight, bias: None, eps: 1e-5 }, residual: None });
        b.label("root mean square");
        b.norm(Norm { x, norm: RowNorm { kind: NormKind::Rms, weight, bias: None, eps: 1e-6 }, residual: None });
        b.label("with residual");
        b.norm(Norm {
            x,
            norm: RowNorm { kind: NormKind::Rms, weight, bias: Some(offset), eps: 1e-6 },
            residual: Some(x),
        });
        b.label("with bias");
        let y = b.norm(Norm {
            x,
            norm: RowNorm { kind: NormKind::Layer, weight, bias: Some(offset), eps: 1e-12 },
            residual: None,
        });
        (b, y)
    };
    let mut cases = Vec::new();
    for cols in [2, 3, 5, 30, 36, 37, 64, 384, 769, 1024] {
        let (b, y) = build(cols);
        let case = Case::new(format!("norm {cols}"), b, y);
        // Of two or three random elements, some are almost equal, and what is left is the rounding of their mean: here they
        // are 0.03 apart.
        let spread = Fill::Ramp { from: -3.0, to: 3.0 };
        let weights = TestWeights::default().with("x.ids", spread).with("x.positions", Fill::Constant(0.0));
        let near = Tolerance::new("the mean's rounding, 2e-7, over a deviation of 0.02", 1e-5, 1e-5);
        cases.push(if cols < 4 { case.weights(weights).f32(near) } else { case });
    }
    // Far from zero, the mean is known to 6e-5 (half a unit of 1000 in f32), and a deviation of 1 must not be lost.
    for cols in [37, 384] {
        let (b, y) = build(cols);
        let weights = TestWeights::default()
            .with("x", Fill::Random { mean: 0.0, deviation: 1.0 })
            .with("x.ids", Fill::Random { mean: 1000.0, deviation: 1.0 });
        let cancellation = Tolerance::new("the mean of numbers around 1000 is rounded to 6e-5", 2e-4, 2e-4);
        let cancellation_f16 = Tolerance::new("the mean of numbers around 1000 is rounded to 6e-5", 3e-4, 6e-4);
        cases.push(
            Case::new(format!("norm {cols} around 1000"), b, y)
                .weights(weights)
                .f32(cancellation)
                .f16(cancellation_f16),
        );
    }
    // Every element of a row the same: the variance is zero, and eps alone keeps the result finite.
    let (mut b, cols) = (Builder::new(), 36);
    let x = input(&mut b, "x", cols);
    let (weight, bias) = (b.vector("norm.weight", cols), Some(b.vector("norm.bias", cols)));
    let y = b.norm(Norm { x, norm: RowNorm { kind: NormKind::Layer, weight, bias, eps: 1e-5 }, residual: None });
    cases
        .push(Case::new("norm of equal elements", b, y).weights(TestWeights::default().with("x", Fill::Constant(0.5))));
    cases
}

fn glu() -> Vec<Case> {
    let build = |cols: usize| {
        let mut b = Builder::new();
        let x = input(&mut b, "x", 2 * cols);
        b.label("first");
        b.glu(Glu { x, activation: Activation::Gelu, activated: Half::First });
        let pooled = b.pool(Pool::new(x, PoolMode::Cls));
        b.label("rows are sequences");
        b.glu(Glu { x: pooled, activation: Activation::Silu, activated: Half::First });
        b.label("second");
        let y = b.glu(Glu { x, activation: Activation::Silu, activated: Half::Second });
        Case::new(format!("glu {cols}"), b, y)
    };
    [1, 2, 5, 30, 36, 37, 384].into_iter().map(build).collect()
}

fn sum() -> Vec<Case> {
    let build = |cols: usize| {
        let mut b = Builder::new();
        let (x, other) = (input(&mut b, "x", cols), input(&mut b, "x.other", cols));
        b.label("sum");
        let y = b.sum(Sum { x, x_factor: 0.25, other, factor: -1.5 });
        Case::new(format!("sum {cols}"), b, y)
    };
    [1, 5, 36, 384].into_iter().map(build).collect()
}

fn join() -> Vec<Case> {
    let build = |cols: &[usize]| {
        let mut b = Builder::new();
        let parts: Vec<Value> =
            cols.iter().enumerate().map(|(i, &cols)| input(&mut b, &format!("x.{i}"), cols)).collect();
        b.label("rows are sequences");
        let pooled = parts.iter().map(|&part| b.pool(Pool::new(part, PoolMode::Max))).collect();
        b.join(pooled);
        b.label("join");
        let y = b.join(parts);
        Case::new(format!("join {cols:?}"), b, y)
    };
    [&[4, 1][..], &[36, 128, 37], &[384, 260, 4, 4]].into_iter().map(build).collect()
}

/// Of few experts and of many, narrow and wide, where all of them count and where few do.
fn mixture() -> Vec<Case> {
    let build = |(experts, width, top, inner, outer): (usize, usize, usize, usize, usize)| {
        let mut b = Builder::new();
        let (x, logits) = (input(&mut b, "x", inner), input(&mut b, "x.logits", experts));
        let residual = input(&mut b, "x.residual", outer);
        let (up, down) = (b.matrix("up", experts * width, inner), b.matrix("down", outer, experts * width));
        let bias = b.vector("bias", outer);
        let mut mixture = |label, [x, logits]: [Value; 2], bias, residual| {
            b.label(label);
            b.mixture(Mixture { x, logits, top, up, activation: Activation::Gelu, down, bias, residual })
        };
        mixture("experts alone", [x, logits], None, None);
        let y = mixture("experts with bias and residual", [x, logits], Some(bias), Some(residual));
        let pooled = [x, logits].map(|x| b.pool(Pool::new(x, PoolMode::Cls)));
        b.label("rows are sequences");
        b.mixture(Mixture {
            x: pooled[0],
            logits: pooled[1],
            top,
            up,
            activation: Activation::Relu,
            down,
            bias: None,
            residual: None,
        });
        let between = Tolerance::new("what experts have in between is rounded to f16", 2e-3, 2e-3);
        // An expert with more rows than a GPU has in a block of places.
        let batches = [odd_batches(), vec![batch(&[300, 129])]].concat();
        Case::new(format!("mixture of {top} of {experts}, {inner} to {width} to {outer} columns"), b, y)
            .f16(between)
            .batches(batches)
    };
    [(1, 5, 1, 7, 3), (3, 1, 2, 12, 36), (8, 37, 2, 40, 37), (4, 64, 2, 96, 80), (70, 4, 3, 5, 9)].map(build).into()
}

fn head_norm() -> Vec<Case> {
    let build = |(heads, kv_heads, group): (usize, usize, usize)| {
        let mut b = Builder::new();
        let qkv = input(&mut b, "x", (heads + 2 * kv_heads) * group);
        let mut norm = |label, kind, of_v, with_bias: bool| {
            let parts = if of_v > 0 { 3 } else { 2 };
            b.label(label);
            let weight = b.vector(format!("{label}.weight"), parts * group);
            let bias = with_bias.then(|| b.vector(format!("{label}.bias"), parts * group));
            b.head_norm(HeadNorm { qkv, kind, groups: [heads, kv_heads, of_v], group, weight, bias, eps: 1e-6 })
        };
        norm("root mean square", NormKind::Rms, 0, false);
        norm("layer, with bias", NormKind::Layer, 0, true);
        let y = norm("v, too", NormKind::Rms, kv_heads, true);
        Case::new(format!("head_norm {heads} + {kv_heads} groups of {group}"), b, y)
    };
    [(4, 2, 8), (3, 1, 5), (1, 1, 36), (70, 2, 4), (1, 1, 384)].into_iter().map(build).collect()
}

fn short_conv() -> Vec<Case> {
    let build = |(cols, taps): (usize, usize)| {
        let mut b = Builder::new();
        let bcx = input(&mut b, "x", 3 * cols);
        let stored = b.tensor("conv.weight", vec![cols, 1, taps]);
        let weight = b.weight(vec![Part::Transposed(stored)]);
        b.label("without a bias");
        b.short_conv(ShortConv { bcx, weight, bias: None });
        let bias = Some(b.vector("conv.bias", cols));
        b.label("with a bias");
        let y = b.short_conv(ShortConv { bcx, weight, bias });
        Case::new(format!("short_conv of {taps} taps, {cols} columns"), b, y)
    };
    [(1, 1), (5, 3), (8, 4), (36, 3), (130, 2), (768, 3)].into_iter().map(build).collect()
}

fn rotary() -> Vec<Case> {
    let build = |(heads, kv_heads, head_dim): (usize, usize, usize)| {
        let mut b = Builder::new();
        let qkv = input(&mut b, "x", (heads + 2 * kv_heads) * head_dim);
        let table = b.weight(vec![Part::Rotary(RotaryTable::new(10_000.0, head_dim, super::data::POSITIONS))]);
        b.label("rotary");
        let y = b.rotary(Rotary { qkv, heads: heads + kv_heads, head_dim, table });
        Case::new(format!("rotary {heads} + {kv_heads} heads of {head_dim}"), b, y)
            .batches(vec![batch(&[1, 0, 17, 129])])
    };
    [(1, 1, 2), (3, 3, 6), (4, 2, 8), (3, 1, 10), (12, 12, 64)].into_iter().map(build).collect()
}
