//! Static embeddings: a vector for each token, and no transformer. Stored by sentence-transformers or by Model2Vec, whose tokens
//! may share vectors and have factors. static-retrieval-mrl, static-similarity-mrl, potion.

use crate::error::{Error, Result};
use crate::program::{Builder, Index, Lookup, Mapped, Part, Pool, PoolMode, Value};

/// The vectors of tokens: `[tokens, dim]`.
pub(super) fn tokens(b: &mut Builder) -> Result<Value> {
    b.label("embedding");
    let tensor = |name: &str| b.stored_shape(name).map(|shape| b.tensor(name, shape));
    let table = match (tensor("embedding.weight"), tensor("embeddings")) {
        (Some(table), _) => Part::Tensor(table),
        (None, Some(table)) => {
            Part::Mapped(Box::new(Mapped { table, mapping: tensor("mapping"), factors: tensor("weights") }))
        }
        (None, None) => {
            let found = "neither 'embedding.weight' nor 'embeddings'".to_string();
            return Err(Error::Weight { name: "embedding.weight".into(), expected: "a table".into(), found });
        }
    };
    let table = b.weight(vec![table]);
    Ok(b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]))
}

/// Their mean, of length 1 with `normalize`; zeros for a text without tokens: `[sequences, dim]`.
pub(super) fn mean(b: &mut Builder, tokens: Value, normalize: bool) -> Value {
    b.label("mean");
    b.pool(Pool { normalize, ..Pool::new(tokens, PoolMode::Mean) })
}
