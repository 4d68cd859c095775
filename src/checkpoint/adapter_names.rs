//! Where an adapter's layers are in a checkpoint: transformers names some layers otherwise than they are stored, and an adapter names
//! them as transformers does.

/// A part of a stored matrix: its rows are cut into so many equal parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Without the backbone's prefix, and without `.weight`.
    pub name: String,
    pub part: usize,
    pub parts: usize,
}

/// The end of a layer's name in transformers, then that of the stored matrix, which of its parts the layer is, and of how many.
/// Of jina-embeddings-v3, nomic_bert and gte (transformers' `conversion_mapping.py`).
const STORED: [(&str, &str, usize, usize); 15] = [
    ("self_attn.q_proj", "mixer.Wqkv", 0, 3),
    ("self_attn.k_proj", "mixer.Wqkv", 1, 3),
    ("self_attn.v_proj", "mixer.Wqkv", 2, 3),
    ("self_attn.o_proj", "mixer.out_proj", 0, 1),
    ("self_attn.q_proj", "attn.Wqkv", 0, 3),
    ("self_attn.k_proj", "attn.Wqkv", 1, 3),
    ("self_attn.v_proj", "attn.Wqkv", 2, 3),
    ("self_attn.o_proj", "attn.out_proj", 0, 1),
    ("mlp.up_proj", "mlp.fc11", 0, 1),
    ("mlp.gate_proj", "mlp.fc12", 0, 1),
    ("mlp.down_proj", "mlp.fc2", 0, 1),
    ("self_attn.q_proj", "attention.qkv_proj", 0, 3),
    ("self_attn.k_proj", "attention.qkv_proj", 1, 3),
    ("self_attn.v_proj", "attention.qkv_proj", 2, 3),
    ("self_attn.o_proj", "attention.o_proj", 0, 1),
];

/// The parts of gte's gate.
const GATE: [(&str, usize); 2] = [("mlp.up_proj", 0), ("mlp.gate_proj", 1)];

/// The places where the layer `path` may be stored, the first that is there counts.
pub(super) fn places(path: &str) -> Vec<Place> {
    let whole = |name: String| Place { name, part: 0, parts: 1 };
    let mut places = vec![whole(path.to_string())];
    let Some(rest) = path.strip_prefix("layers.") else { return places };
    for layers in ["encoder.layers.", "encoder.layer."] {
        places.push(whole(format!("{layers}{rest}")));
        for (name, stored, part, parts) in STORED {
            if let Some(layer) = rest.strip_suffix(name) {
                places.push(Place { name: format!("{layers}{layer}{stored}"), part, parts });
            }
        }
        for (name, part) in GATE {
            if let Some(layer) = rest.strip_suffix(name) {
                places.push(Place { name: format!("{layers}{layer}mlp.up_gate_proj"), part, parts: 2 });
            }
        }
    }
    places
}

/// Whether a layer is a head that embeddings do without: an adapter may change one that the checkpoint has not.
pub(super) fn is_head(path: &str) -> bool {
    ["pooler.", "lm_head", "cls."].iter().any(|head| path.starts_with(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_parts_of_what_is_stored() {
        let place = |name: &str, part, parts| Place { name: name.into(), part, parts };
        assert_eq!(places("encoder.layer.3.output.dense"), [place("encoder.layer.3.output.dense", 0, 1)]);
        let key = places("layers.7.self_attn.k_proj");
        assert_eq!(key[0], place("layers.7.self_attn.k_proj", 0, 1));
        assert!(key.contains(&place("encoder.layers.7.mixer.Wqkv", 1, 3)));
        assert!(key.contains(&place("encoder.layer.7.attention.qkv_proj", 1, 3)));
        assert!(places("layers.0.mlp.gate_proj").contains(&place("encoder.layer.0.mlp.up_gate_proj", 1, 2)));
        assert!(is_head("pooler.dense") && is_head("lm_head") && !is_head("layers.0.mlp.fc1"));
    }
}
