//! The definition of every op in f64, straight from the formulas in `src/program/op.rs`: plain loops over plain indices, no
//! blocking, nothing shared with an executor. What it says is right.

use lexel::batch::Batch;
use lexel::matrix::Matrix;
use lexel::program::alibi_slope;
use lexel::program::{
    Activation, Attention, Embed, Glu, Half, HeadNorm, Index, Linear, Mixture, Norm, NormKind, Op, Pool,
};
use lexel::program::{PoolMode, PositionBias, Program, Rotary, RowNorm, Rows, Sum, Value, WeightId, WeightSource};

/// A matrix of f64, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Wide {
    pub rows: usize,
    pub cols: usize,
    pub data: Vec<f64>,
}

impl Wide {
    fn zeros(rows: usize, cols: usize) -> Wide {
        Wide { rows, cols, data: vec![0.0; rows * cols] }
    }

    pub fn row(&self, row: usize) -> &[f64] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }

    fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.data[row * self.cols..(row + 1) * self.cols]
    }
}

impl From<&Matrix> for Wide {
    fn from(matrix: &Matrix) -> Wide {
        Wide { rows: matrix.rows, cols: matrix.cols, data: matrix.data.iter().map(|&x| f64::from(x)).collect() }
    }
}

/// Every step's value, in order.
pub fn run(program: &Program, weights: &dyn WeightSource, batch: &Batch) -> Vec<Wide> {
    let mut values: Vec<Wide> = Vec::new();
    for i in 0..program.steps.len() {
        let value = step(program, weights, batch, i, |input| values[input.index()].clone());
        values.push(value);
    }
    values
}

/// The value of step `i`, from the values that it reads.
pub fn step(
    program: &Program,
    weights: &dyn WeightSource,
    batch: &Batch,
    i: usize,
    value: impl Fn(Value) -> Wide,
) -> Wide {
    let weight = |id: WeightId| {
        let spec = program.weight(id);
        let data = spec.read_all(weights).expect("the weights of a test exist");
        Wide { rows: spec.rows, cols: spec.cols, data: data.into_iter().map(f64::from).collect() }
    };
    match &program.steps[i].op {
        Op::Embed(op) => embed(op, batch, weight),
        Op::Linear(op) => linear(op, &value(op.x), op.residual.map(value), weight),
        Op::Norm(op) => norm(op, &value(op.x), op.residual.map(value), weight),
        Op::Glu(op) => glu(op, &value(op.x)),
        Op::Mixture(op) => mixture(op, &value(op.x), &value(op.logits), op.residual.map(value), weight),
        Op::HeadNorm(op) => head_norm(op, &value(op.qkv), weight),
        Op::ShortConv(op) => short_conv(batch, &value(op.bcx), &weight(op.weight), op.bias.map(&weight)),
        Op::Rotary(op) => rotary(op, batch, &value(op.qkv), &weight(op.table)),
        Op::Attention(op) => attention(op, batch, &value(op.qkv), op.table().map(weight)),
        Op::Sum(op) => sum(op, &value(op.x), &value(op.other)),
        Op::Join(op) => join(&op.parts.iter().map(|&part| value(part)).collect::<Vec<_>>()),
        Op::Pool(op) => pool(op, batch, &value(op.x)),
        Op::Normalize(op) => normalize(&value(op.x)),
    }
}

/// Rows of a value of this batch.
pub fn rows(rows: Rows, batch: &Batch) -> usize {
    match rows {
        Rows::Tokens => batch.ids.len(),
        Rows::Sequences => batch.starts.len() - 1,
    }
}

fn embed(op: &Embed, batch: &Batch, weight: impl Fn(WeightId) -> Wide) -> Wide {
    let tables: Vec<Wide> = op.lookups.iter().map(|lookup| weight(lookup.table)).collect();
    let mut y = Wide::zeros(batch.ids.len(), tables[0].cols);
    for t in 0..y.rows {
        for (lookup, table) in op.lookups.iter().zip(&tables) {
            let number = match lookup.index {
                Index::Ids => batch.ids[t],
                Index::Positions => batch.positions[t],
                Index::Types => batch.types[t],
            };
            for c in 0..y.cols {
                y.row_mut(t)[c] += table.row((number + lookup.offset) as usize)[c];
            }
        }
    }
    match &op.norm {
        Some(by) => row_norm(by, &y, weight),
        None => y,
    }
}

fn linear(op: &Linear, x: &Wide, residual: Option<Wide>, weight: impl Fn(WeightId) -> Wide) -> Wide {
    let (w, bias) = (weight(op.weight), op.bias.map(&weight));
    let mut y = Wide::zeros(x.rows, w.rows);
    for r in 0..y.rows {
        for c in 0..y.cols {
            let mut sum: f64 = x.row(r).iter().zip(w.row(c)).map(|(a, b)| a * b).sum();
            sum += bias.as_ref().map_or(0.0, |bias| bias.data[c]);
            let residual = residual.as_ref().map_or(0.0, |residual| residual.row(r)[c]);
            y.row_mut(r)[c] = activation(op.activation, sum) + residual;
        }
    }
    y
}

fn norm(op: &Norm, x: &Wide, residual: Option<Wide>, weight: impl Fn(WeightId) -> Wide) -> Wide {
    let mut y = row_norm(&op.norm, x, weight);
    if let Some(residual) = &residual {
        y.data.iter_mut().zip(&residual.data).for_each(|(y, residual)| *y += residual);
    }
    y
}

fn row_norm(by: &RowNorm, x: &Wide, weight: impl Fn(WeightId) -> Wide) -> Wide {
    let (w, bias) = (weight(by.weight), by.bias.map(&weight));
    let bias = bias.as_ref().map(|bias| &bias.data[..]);
    let mut y = Wide::zeros(x.rows, x.cols);
    for r in 0..x.rows {
        y.row_mut(r).copy_from_slice(&normalised(by.kind, x.row(r), &w.data, bias, by.eps));
    }
    y
}

fn normalised(kind: NormKind, x: &[f64], weight: &[f64], bias: Option<&[f64]>, eps: f32) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = match kind {
        NormKind::Layer => x.iter().sum::<f64>() / n,
        NormKind::Rms => 0.0,
    };
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let y = |(c, x): (usize, &f64)| {
        (x - mean) / (variance + f64::from(eps)).sqrt() * weight[c] + bias.map_or(0.0, |bias| bias[c])
    };
    x.iter().enumerate().map(y).collect()
}

fn glu(op: &Glu, x: &Wide) -> Wide {
    let half = x.cols / 2;
    let mut y = Wide::zeros(x.rows, half);
    for r in 0..x.rows {
        let (first, second) = x.row(r).split_at(half);
        for c in 0..half {
            y.row_mut(r)[c] = match op.activated {
                Half::First => activation(op.activation, first[c]) * second[c],
                Half::Second => first[c] * activation(op.activation, second[c]),
            };
        }
    }
    y
}

fn mixture(op: &Mixture, x: &Wide, logits: &Wide, residual: Option<Wide>, weight: impl Fn(WeightId) -> Wide) -> Wide {
    let (up, down, bias) = (weight(op.up), weight(op.down), op.bias.map(&weight));
    let width = up.rows / logits.cols;
    let mut y = residual.unwrap_or(Wide::zeros(x.rows, down.rows));
    for r in 0..x.rows {
        let total: f64 = logits.row(r).iter().map(|logit| logit.exp()).sum();
        let mut best: Vec<usize> = (0..logits.cols).collect();
        best.sort_by(|&a, &b| logits.row(r)[b].total_cmp(&logits.row(r)[a]));
        for (c, bias) in bias.iter().flat_map(|bias| bias.data.iter().enumerate()) {
            y.row_mut(r)[c] += bias;
        }
        for &expert in &best[..op.top] {
            for i in expert * width..(expert + 1) * width {
                let sum: f64 = x.row(r).iter().zip(up.row(i)).map(|(a, b)| a * b).sum();
                let inner = logits.row(r)[expert].exp() / total * activation(op.activation, sum);
                (0..y.cols).for_each(|c| y.row_mut(r)[c] += inner * down.row(c)[i]);
            }
        }
    }
    y
}

fn head_norm(op: &HeadNorm, qkv: &Wide, weight: impl Fn(WeightId) -> Wide) -> Wide {
    let (w, bias) = (weight(op.weight), op.bias.map(&weight));
    let mut y = qkv.clone();
    for r in 0..qkv.rows {
        let parts = op.groups.iter().enumerate().flat_map(|(part, groups)| std::iter::repeat_n(part, *groups));
        for (group, part) in parts.enumerate() {
            let columns = group * op.group..(group + 1) * op.group;
            let part = part * op.group..(part + 1) * op.group;
            let bias = bias.as_ref().map(|bias| &bias.data[part.clone()]);
            let normalised = normalised(op.kind, &qkv.row(r)[columns.clone()], &w.data[part], bias, op.eps);
            y.row_mut(r)[columns].copy_from_slice(&normalised);
        }
    }
    y
}

fn short_conv(batch: &Batch, bcx: &Wide, weight: &Wide, bias: Option<Wide>) -> Wide {
    let (taps, cols) = (weight.rows, weight.cols);
    let mut y = Wide::zeros(bcx.rows, cols);
    for bounds in batch.starts.windows(2) {
        for t in bounds[0] as usize..bounds[1] as usize {
            for c in 0..cols {
                let mut sum = bias.as_ref().map_or(0.0, |bias| bias.data[c]);
                for k in (0..taps).filter(|k| t + k + 1 >= bounds[0] as usize + taps) {
                    let row = bcx.row(t + k + 1 - taps);
                    sum += weight.row(k)[c] * row[c] * row[2 * cols + c];
                }
                y.row_mut(t)[c] = bcx.row(t)[cols + c] * sum;
            }
        }
    }
    y
}

fn rotary(op: &Rotary, batch: &Batch, qkv: &Wide, table: &Wide) -> Wide {
    let half = op.head_dim / 2;
    let mut y = qkv.clone();
    for t in 0..qkv.rows {
        let (cosines, sines) = table.row(batch.positions[t] as usize).split_at(half);
        for head in 0..op.heads {
            for i in 0..half {
                let (first, second) = (head * op.head_dim + i, head * op.head_dim + half + i);
                let (a, b) = (qkv.row(t)[first], qkv.row(t)[second]);
                y.row_mut(t)[first] = a * cosines[i] - b * sines[i];
                y.row_mut(t)[second] = b * cosines[i] + a * sines[i];
            }
        }
    }
    y
}

fn attention(op: &Attention, batch: &Batch, qkv: &Wide, table: Option<Wide>) -> Wide {
    let (d, all) = (op.head_dim, op.heads * op.head_dim);
    let sees = |query: usize, key: usize| {
        !(op.causal && key > query) && op.window.is_none_or(|window| query.abs_diff(key) <= window)
    };
    let bias = |head: usize, query: usize, key: usize| match (op.bias, &table) {
        (Some(PositionBias::Alibi), _) => -f64::from(alibi_slope(head, op.heads)) * query.abs_diff(key) as f64,
        (Some(PositionBias::Relative { .. }), Some(table)) => {
            let furthest = (table.cols / 2) as i64;
            table.row(head)[((key as i64 - query as i64).clamp(-furthest, furthest) + furthest) as usize]
        }
        _ => 0.0,
    };
    let disentangled = |head: usize, query: usize, key: usize| match (op.bias, &table) {
        (Some(PositionBias::Disentangled { distances, .. }), Some(table)) => {
            let row = distances.row(query as i64 - key as i64);
            let of = |row: usize, column: usize| &table.row(row)[column..column + d];
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (q, k) = (&qkv.row(query)[head * d..][..d], &qkv.row(key)[all + head * d..][..d]);
            f64::from(op.scale) * (dot(q, of(row, head * d)) + dot(k, of(2 * distances.span + row, head * d)))
        }
        _ => 0.0,
    };
    let mut y = Wide::zeros(qkv.rows, all);
    for s in 0..batch.starts.len() - 1 {
        let tokens = batch.starts[s] as usize..batch.starts[s + 1] as usize;
        for head in 0..op.heads {
            let shared = head / (op.heads / op.kv_heads) * d;
            let (q, k, v) = (head * d, all + shared, all + op.kv_heads * d + shared);
            for t in tokens.clone() {
                let query = &qkv.row(t)[q..q + d];
                let seen: Vec<usize> = batch.seen(s).filter(|&u| sees(t, u)).collect();
                let score = |u: usize| {
                    let key = &qkv.row(u)[k..k + d];
                    let dot = query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
                    let score = f64::from(op.scale) * dot + disentangled(head, t, u);
                    let most = op.softcap.map(f64::from);
                    most.map_or(score, |most| most * (score / most).tanh()) + bias(head, t, u)
                };
                let scores: Vec<f64> = seen.iter().map(|&u| score(u)).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let exps: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = exps.iter().sum();
                for (&u, e) in seen.iter().zip(&exps) {
                    for c in 0..d {
                        y.row_mut(t)[q + c] += e / total * qkv.row(u)[v + c];
                    }
                }
            }
        }
    }
    y
}

fn sum(op: &Sum, x: &Wide, other: &Wide) -> Wide {
    let (a, b) = (f64::from(op.x_factor), f64::from(op.factor));
    Wide { data: x.data.iter().zip(&other.data).map(|(x, other)| a * x + b * other).collect(), ..*x }
}

fn pool(op: &Pool, batch: &Batch, x: &Wide) -> Wide {
    let mut y = Wide::zeros(batch.starts.len() - 1, op.modes.len() * x.cols);
    for s in 0..y.rows {
        let (first, end) = (batch.starts[s] as usize, batch.starts[s + 1] as usize);
        let taking_part: Vec<usize> = (first..end).skip(batch.skip[s] as usize).collect();
        for (block, mode) in op.modes.iter().enumerate() {
            for c in 0..x.cols {
                let column = || taking_part.iter().map(|&t| x.row(t)[c]);
                let count = taking_part.len() as f64;
                y.row_mut(s)[block * x.cols + c] = match (mode, taking_part.first(), taking_part.last()) {
                    (PoolMode::Cls, None, _) if first < end => x.row(first)[c],
                    (_, None, _) | (_, _, None) => 0.0,
                    (PoolMode::Cls, Some(&t), _) => x.row(t)[c],
                    (PoolMode::LastToken, _, Some(&t)) => x.row(t)[c],
                    (PoolMode::Max, ..) => column().fold(f64::NEG_INFINITY, f64::max),
                    (PoolMode::Mean, ..) => column().sum::<f64>() / count,
                    (PoolMode::Sum, ..) => column().sum::<f64>(),
                    (PoolMode::MeanSqrtLenTokens, ..) => column().sum::<f64>() / count.sqrt(),
                    (PoolMode::WeightedMean, ..) => {
                        let place = |t: usize| (t - first + 1) as f64;
                        let weighted: f64 = taking_part.iter().map(|&t| place(t) * x.row(t)[c]).sum();
                        weighted / taking_part.iter().map(|&t| place(t)).sum::<f64>()
                    }
                };
            }
        }
    }
    if op.normalize { normalize(&y) } else { y }
}

fn join(parts: &[Wide]) -> Wide {
    let mut y = Wide::zeros(parts[0].rows, parts.iter().map(|part| part.cols).sum());
    for r in 0..y.rows {
        let row: Vec<f64> = parts.iter().flat_map(|part| part.row(r)).copied().collect();
        y.row_mut(r).copy_from_slice(&row);
    }
    y
}

fn normalize(x: &Wide) -> Wide {
    let mut y = x.clone();
    for r in 0..x.rows {
        let length = x.row(r).iter().map(|x| x * x).sum::<f64>().sqrt();
        y.row_mut(r).iter_mut().for_each(|x| *x /= length.max(1e-12));
    }
    y
}

/// PyTorch's functions with their default parameters; erf from libm.
pub fn activation(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p(); // ln(1 + e^x) without overflow
    let elu = |x: f64| if x > 0.0 { x } else { x.exp_m1() };
    let hardsigmoid = |x: f64| (x / 6.0 + 0.5).clamp(0.0, 1.0);
    match activation {
        Activation::Identity => x,
        Activation::Gelu => x * 0.5 * libm::erfc(-x / 2f64.sqrt()), // 1 + erf(z) = erfc(-z)
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::LeakyRelu(slope) => x.max(0.0) + f64::from(slope.value()) * x.min(0.0),
        Activation::Elu => elu(x),
        Activation::Selu if x > 0.0 => SELU_SCALE * x,
        Activation::Selu => SELU_SCALE * SELU_ALPHA * x.exp_m1(),
        Activation::Mish => x * softplus(x).tanh(),
        Activation::Softplus => softplus(x),
        Activation::Softsign => x / (1.0 + x.abs()),
        Activation::LogSigmoid => -softplus(-x),
        Activation::Tanhshrink => x - x.tanh(),
        Activation::Hardshrink if x.abs() > 0.5 => x,
        Activation::Hardshrink => 0.0,
        Activation::Softshrink => (x.abs() - 0.5).max(0.0).copysign(x),
        Activation::Hardsigmoid => hardsigmoid(x),
        Activation::Hardswish => x * hardsigmoid(x),
        Activation::Hardtanh => x.clamp(-1.0, 1.0),
        Activation::Log1pRelu => x.max(0.0).ln_1p(),
        Activation::Log1pLog1pRelu => x.max(0.0).ln_1p().ln_1p(),
    }
}

/// PyTorch's constants in full.
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
