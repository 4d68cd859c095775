//! Whole models, as small or as large as a test needs them.

use super::data::{POSITIONS, VOCABULARY};
use lexel::program::*;

/// The sizes of a BERT encoder.
#[derive(Debug, Clone, Copy)]
pub struct BertShape {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub intermediate: usize,
    pub vocabulary: usize,
    pub positions: usize,
}

/// Two layers with sizes that are no multiples of a tile.
pub const SMALL_BERT: BertShape =
    BertShape { layers: 2, hidden: 36, heads: 3, intermediate: 100, vocabulary: VOCABULARY, positions: POSITIONS };

/// all-MiniLM-L6-v2, with few rows of its vocabulary.
pub const MINILM: BertShape =
    BertShape { layers: 6, hidden: 384, heads: 12, intermediate: 1536, vocabulary: 200, positions: 512 };

/// A post-norm BERT encoder with mean pooling and normalisation. Steps are labelled `embeddings`, `layer.0.qkv`, ...
pub fn bert(shape: BertShape) -> Program {
    let BertShape { layers, hidden, heads, .. } = shape;
    let mut b = Builder::new();
    b.label("embeddings");
    let mut lookup = |name: &str, rows, index| Lookup { table: b.matrix(name, rows, hidden), index, offset: 0 };
    let lookups = vec![
        lookup("embeddings.word", shape.vocabulary, Index::Ids),
        lookup("embeddings.position", shape.positions, Index::Positions),
        lookup("embeddings.type", 2, Index::Types),
    ];
    let norm_of_sum = row_norm(&mut b, "embeddings.norm", hidden);
    let mut x = b.embed_normed(lookups, norm_of_sum);
    for layer in 0..layers {
        let name = |part: &str| format!("layer.{layer}.{part}");
        let qkv = linear(&mut b, &name("qkv"), x, 3 * hidden, Activation::Identity, None);
        b.label(name("attention"));
        let head_dim = hidden / heads;
        let context = b.attention(Attention::new(qkv, heads, head_dim));
        let h = linear(&mut b, &name("out"), context, hidden, Activation::Identity, Some(x));
        let h = norm(&mut b, &name("out.norm"), h);
        let up = linear(&mut b, &name("up"), h, shape.intermediate, Activation::Gelu, None);
        let y = linear(&mut b, &name("down"), up, hidden, Activation::Identity, Some(h));
        x = norm(&mut b, &name("down.norm"), y);
    }
    b.label("pool");
    let sentences = b.pool(Pool { normalize: true, ..Pool::new(x, PoolMode::Mean) });
    b.finish(sentences, x)
}

/// A linear with a bias, under a label that also names its weights.
pub fn linear(
    b: &mut Builder,
    label: &str,
    x: Value,
    out: usize,
    activation: Activation,
    residual: Option<Value>,
) -> Value {
    b.label(label);
    let weight = b.matrix(format!("{label}.weight"), out, b.shape(x).cols);
    let bias = Some(b.vector(format!("{label}.bias"), out));
    b.linear(Linear { x, weight, bias, activation, residual })
}

/// A norm with a bias, under a label that also names its weights.
pub fn norm(b: &mut Builder, label: &str, x: Value) -> Value {
    b.label(label);
    let norm = row_norm(b, label, b.shape(x).cols);
    b.norm(Norm { x, norm, residual: None })
}

/// The weights of a norm with a bias, whose names begin with `name`.
pub fn row_norm(b: &mut Builder, name: &str, cols: usize) -> RowNorm {
    let weight = b.vector(format!("{name}.weight"), cols);
    let bias = Some(b.vector(format!("{name}.bias"), cols));
    RowNorm { kind: NormKind::Layer, weight, bias, eps: 1e-12 }
}
