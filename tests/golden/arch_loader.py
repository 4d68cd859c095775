"""Loads the tiny models: by the reference library, or, where it cannot, by arch_reference.py."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.base.modules.input_module import InputModule
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer

from arch_reference import model_of
from build import read_json

KWARGS = {
    "device": "cpu",
    "local_files_only": True,
    "model_kwargs": {"dtype": torch.float32, "attn_implementation": "eager"},
}


class ReferenceTransformer(InputModule):
    """The first module of an embedding model that arch_reference.py computes."""

    def __init__(self, folder):
        super().__init__()
        folder = Path(folder)
        self.config = read_json(folder / "config.json")
        self.model = model_of(self.config)
        stored = load_file(folder / "model.safetensors")
        known = self.model.state_dict()
        prefix = "" if all(name in stored for name in known) else "new."
        self.model.load_state_dict({name: stored[prefix + name].float() for name in known})
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = folder / "sentence_bert_config.json"
        self.max_seq_length = read_json(settings if settings.exists() else folder / "tokenizer_config.json")
        self.max_seq_length = self.max_seq_length.get("max_seq_length") or self.max_seq_length["model_max_length"]
        self.tokenizer.no_padding()

    def ids(self, first, second=None):
        self.tokenizer.enable_truncation(self.max_seq_length, strategy="longest_first")
        found = self.tokenizer.encode(first, second)
        return torch.tensor(found.ids), torch.tensor(found.type_ids)

    def preprocess(self, inputs, prompt=None, **kwargs):
        assert len(inputs) == 1
        ids, types = self.ids((prompt or "") + inputs[0])
        return {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None], "token_type_ids": types[None]}

    def forward(self, features, **kwargs):
        hidden = self.model(features["input_ids"][0], features["token_type_ids"][0])
        return {**features, "token_embeddings": hidden[None]}

    def get_embedding_dimension(self):
        return self.config.get("hidden_size") or self.config["n_embd"]

    def save(self, *args, **kwargs):
        raise NotImplementedError


def reference_encoder(folder):
    classes = {"Pooling": Pooling, "Normalize": Normalize}
    modules = [ReferenceTransformer(folder)]
    for entry in read_json(Path(folder) / "modules.json")[1:]:
        kind = classes[entry["type"].rsplit(".", 1)[1]]
        modules.append(kind() if kind is Normalize else kind.load(str(folder), subfolder=entry["path"]))
    settings = Path(folder) / "config_sentence_transformers.json"
    stored = read_json(settings) if settings.exists() else {}
    return SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=stored.get("prompts"),
        default_prompt_name=stored.get("default_prompt_name"),
    )


class ReferenceCrossEncoder:
    """A classifier that arch_reference.py computes: sigmoid for one label."""

    def __init__(self, folder):
        self.module = ReferenceTransformer(folder)
        self.model = self.module.model
        self.num_labels = len(self.module.config["id2label"])
        self.max_seq_length = self.module.max_seq_length
        self.activation_fn = torch.nn.Sigmoid() if self.num_labels == 1 else torch.nn.Identity()
        self.prompts, self.default_prompt_name = {}, None

    def preprocess(self, pairs, prompt=None):
        assert len(pairs) == 1
        ids, types = self.module.ids((prompt or "") + pairs[0][0], pairs[0][1])
        return {"input_ids": ids[None], "token_type_ids": types[None]}

    def predict(self, pairs, activation_fn=None, prompt=None, **kwargs):
        rows = []
        for pair in pairs:
            found = self.preprocess([pair], prompt)
            logits = self.model(found["input_ids"][0], found["token_type_ids"][0])
            rows.append((activation_fn or self.activation_fn)(logits))
        values = torch.stack(rows).numpy()
        return values[:, 0] if self.num_labels == 1 else values


def load(folder, model, **options):
    """As float32 on the CPU, with eager attention, whatever the stored type. `model` is the builder's entry."""
    if model.get("reference"):
        with torch.inference_mode():
            return (ReferenceCrossEncoder if model.get("cross") else reference_encoder)(folder)
    found = (CrossEncoder if model.get("cross") else SentenceTransformer)(str(folder), **KWARGS, **options)
    found = found.eval().float()
    for module in found.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            assert config._attn_implementation in ("eager", None), config._attn_implementation
    return found


def as_array(values):
    return values.numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
