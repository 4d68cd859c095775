"""Builds the tiny checkpoints: random BERT backbones with non-trivial weights, and the modules after them."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from transformers import BertConfig, BertModel, BertTokenizer

from texts import cased_vocabulary, uncased_vocabulary


def randomise(module, seed):
    """Overwrites every parameter, so that no bias is zero, no norm is one and attention is not uniform."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape, std, mean=0.0):
        return torch.randn(shape, generator=generator) * std + mean

    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            shape = parameter.shape
            is_norm = "LayerNorm" in name or name.startswith("norm.")
            if is_norm and name.endswith("weight"):
                value = normal(shape, 0.2, 1.0)
            elif is_norm:
                value = normal(shape, 0.2)
            elif "activation_function" in name:  # PReLU carries a weight
                value = normal(shape, 0.1, 0.3)
            elif "embeddings" in name:
                value = normal(shape, 0.6 if "word" in name else 0.3)
            elif len(shape) == 1:
                value = normal(shape, 0.1)
            else:  # a linear layer; queries and keys larger, for pointed attention
                gain = 1.5 if "query" in name or "key" in name else 1.2
                value = normal(shape, gain / shape[1] ** 0.5)
            parameter.copy_(value)
    return module


def tokenizer(cased=False, **kwargs):
    if cased:
        return BertTokenizer(vocab=cased_vocabulary(), do_lower_case=False, **kwargs)
    return BertTokenizer(vocab=uncased_vocabulary(), do_lower_case=True, **kwargs)


def backbone(folder, *, seed=1, cased=False, model_max_length=None, dtype=torch.float32, shards=None, **config):
    """Writes a plain transformers repository (BertModel and tokenizer) into `folder`."""
    kwargs = {} if model_max_length is None else {"model_max_length": model_max_length}
    words = tokenizer(cased, **kwargs)
    settings = dict(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        type_vocab_size=2,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )
    settings.update(config)
    model = randomise(BertModel(BertConfig(**settings)), seed).to(dtype)
    model.save_pretrained(folder, **({} if shards is None else {"max_shard_size": shards}))
    words.save_pretrained(folder)
    return folder


# The backbone of the many models that differ only in what follows it.
SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=48)


def saved(folder, modules, scratch, *, backbone_options=None, shards=None, **options):
    """Saves SentenceTransformer([backbone, *modules]) as the library does."""
    if scratch.exists():
        shutil.rmtree(scratch)
    backbone(scratch, **({**SMALL} if backbone_options is None else backbone_options))
    dtype = (backbone_options or {}).get("dtype", torch.float32)
    transformer = Transformer(str(scratch), model_kwargs={"dtype": dtype})
    for number, module in enumerate(modules):
        randomise(module, 100 + number)
    model = SentenceTransformer(modules=[transformer, *modules], device="cpu", **options)
    model.save(str(folder), create_model_card=False)
    if shards is not None:
        (folder / "model.safetensors").unlink()
        transformer.model.save_pretrained(folder, max_shard_size=shards)
    return folder


def read_json(path):
    return json.loads(Path(path).read_text("utf-8"))


def write_json(path, value):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def edit_json(path, **changes):
    """Sets keys of a JSON object; a value of ... removes the key."""
    value = read_json(path) if Path(path).exists() else {}
    for key, change in changes.items():
        if change is ...:
            value.pop(key, None)
        else:
            value[key] = change
    write_json(path, value)


def compact(models):
    """Rewrites every JSON file without indentation, which is half of the bytes, and gives all files the same modes."""
    for path in sorted(models.rglob("*.json")):
        path.write_text(dumps(read_json(path)) + "\n", "utf-8")
    for path in models.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def dumps(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def write_cases(path, sections):
    """One case a line: readable, and a changed case is a changed line."""
    parts = [f"{dumps(name)}:[\n" + ",\n".join(map(dumps, entries)) + "\n]" for name, entries in sections.items()]
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")


def write_golden(root, recorder, **more):
    """What was recorded: expected.safetensors and cases.json in the folder root, the latter beginning with `more`."""
    from safetensors.numpy import save_file

    save_file(recorder.tensors, root / "expected.safetensors")
    (root / "expected.safetensors").chmod(0o644)
    write_cases(root / "cases.json", {**more, **recorder.sections})
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and "__pycache__" not in str(path))
    counts = ", ".join(f"{len(entries)} {name}" for name, entries in recorder.sections.items())
    print(f"{counts}; {len(recorder.tensors)} tensors; {size:,} bytes")


def rename_tensors(path, rename, extra=None):
    """Rewrites a safetensors file with other tensor names, and more tensors."""
    tensors = {rename(name): tensor for name, tensor in load_file(path).items()}
    tensors.update(extra or {})
    save_file(tensors, path, metadata={"format": "pt"})


def old_style(folder, *, prefix, transformer_folder, normalize):
    """A repository as sentence-transformers 2 to 5 wrote it, from the modern folder already there.

    The backbone moves into `transformer_folder` ("" is the root), modules.json takes the old class paths, the
    pooling config the old keys, sentence_bert_config.json the two keys of version 5. With a prefix the tensors are
    named as in a checkpoint saved from BertForMaskedLM long ago: `bert.` in front, gamma and beta, stored buffers, and
    the parts of a head that a loader must ignore.
    """
    root = folder / transformer_folder
    if transformer_folder:
        root.mkdir()
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).rename(root / name)
    (folder / "sentence_bert_config.json").unlink()
    write_json(root / "sentence_bert_config.json", {"max_seq_length": 40, "do_lower_case": False})

    types = ["Transformer", "Pooling"] + (["Normalize"] if normalize else [])
    paths = [transformer_folder] + [f"{i}_{name}" for i, name in enumerate(types) if i > 0]
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (path, name) in enumerate(zip(paths, types))
        ],
    )
    if normalize:  # Normalize had no config file
        shutil.rmtree(folder / "2_Normalize", ignore_errors=True)
    config = read_json(root / "config.json")
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": config["hidden_size"],
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    versions = {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}
    write_json(folder / "config_sentence_transformers.json", {"__version__": versions})

    # Real old repositories store truncation and padding in tokenizer.json; the library overrides both.
    edit_json(
        root / "tokenizer.json",
        truncation={"direction": "Right", "max_length": 12, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 12},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
    )
    if prefix:
        hidden, positions = config["hidden_size"], config["max_position_embeddings"]
        generator = torch.Generator().manual_seed(7)

        def rename(name):
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            return "bert." + name

        rename_tensors(
            root / "model.safetensors",
            rename,
            {
                "bert.embeddings.position_ids": torch.arange(positions).unsqueeze(0),
                "cls.predictions.bias": torch.randn(config["vocab_size"], generator=generator),
                "cls.predictions.transform.dense.weight": torch.randn(hidden, hidden, generator=generator),
                "cls.predictions.transform.dense.bias": torch.randn(hidden, generator=generator),
                "cls.predictions.transform.LayerNorm.gamma": torch.randn(hidden, generator=generator),
                "cls.predictions.transform.LayerNorm.beta": torch.randn(hidden, generator=generator),
                "cls.seq_relationship.weight": torch.randn(2, hidden, generator=generator),
                "cls.seq_relationship.bias": torch.randn(2, generator=generator),
            },
        )
        edit_json(root / "config.json", architectures=["BertForMaskedLM"])
