"""The tiny multi-vector encoders. Their JSON files are written by hand; this makes the weights that no other model has."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers import MultiVectorEncoder
from transformers import BertConfig, BertModel

from arch_weights import randomise
from build import compact, read_json
from overlay import together

BASES = {
    # As 6.2.0 stores it. The tokenizer does not know "[Q] ", which is ordinary text, nor "…".
    "bert": "../../models/plain",
    "bert-attend": "bert",
    "bert-min": "bert",  # at least 8 tokens, by one that is named
    "bert-plain": "bert",  # no expansion, no skiplist, the mean
    "bert-masks": "bert",  # queries skip, too, and documents keep a few tokens only
    "bert-pooled": "bert",  # a second Dense with a residual, and pooled
    "bert-pooled-old": "bert-pooled",  # before normalize_embeddings was stored
    "converted": "bert",  # a dense encoder of 5.x
    "stanford-bare": "../../models/plain",  # the projection beside the backbone; its tokenizer has what PyLate adds, too
    "stanford": "stanford-bare",
    "stanford-other": "stanford-bare",
    "pylate": "stanford-bare",  # prefixes are tokens, padding is by [MASK], what follows the Dense is not stored
    "pylate-unused": "pylate",  # prefixes are words that are not special, one without a space, before prompts
    "pylate-plain": "pylate",  # no expansion, and no words, so all punctuation
    "pylate-old": "pylate",  # before model_type was stored: taken for a dense encoder
    "modernbert": "../../architectures/models/modernbert-mean",  # PyLate's; no token is "[Q] ", nor "∗"
    "modernbert-long": "modernbert",  # beyond max_seq_length, and beyond the window: some see nothing
    "xlm-roberta": "../../architectures/models/xlm-roberta",
}


def matrix(seed, *shape):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 3).half()


def build_multi_vector_encoders(root):
    """Writes all weights; returns the models' names, each with its base."""
    for seed, name, width in ((801, "bert", 32), (802, "pylate", 8), (823, "modernbert", 24), (804, "xlm-roberta", 16)):
        save_file({"linear.weight": matrix(seed, 4, width)}, root / name / "1_Dense/model.safetensors")
    second = {"linear.weight": matrix(805, 6, 4), "linear.bias": matrix(806, 6), "residual.weight": matrix(807, 6, 4)}
    save_file(second, root / "bert-pooled/2_Dense/model.safetensors")
    config = BertConfig.from_json_file(root / "stanford-bare/config.json")
    backbone = randomise(BertModel(config, add_pooling_layer=False), 808).half().state_dict()
    weights = {**{f"bert.{name}": value for name, value in backbone.items()}, "linear.weight": matrix(809, 4, 8)}
    save_file(weights, root / "stanford-bare/model.safetensors")
    compact(root)
    with tempfile.TemporaryDirectory() as scratch:
        encoder = MultiVectorEncoder(str(together(root, BASES, "bert", Path(scratch))), device="cpu")
        encoder.save_pretrained(f"{scratch}/saved", create_model_card=False)
        for path in (root / "bert").rglob("*.json"):
            assert read_json(path) == read_json(f"{scratch}/saved" / path.relative_to(root / "bert")), path
    return BASES
