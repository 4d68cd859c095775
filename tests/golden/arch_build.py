"""Writes checkpoints of any architecture as repositories: the backbone, its tokenizer, and the modules after it."""

import shutil

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch import nn

from build import edit_json, read_json, write_json
from formula import randomise

__all__ = ["Builder", "Dense", "Normalize", "Pooling", "dense", "edit_json", "read_json", "write_json"]


def dense(inputs, outputs, seed, bias=False, activation=None):
    """A Dense module with random weights; without bias and activation, as EmbeddingGemma and GTR have them."""
    module = Dense(inputs, outputs, bias=bias, activation_function=activation or nn.Identity())
    return randomise(module, seed)


class Builder:
    def __init__(self, root):
        self.root = root
        self.scratch = root.parent / "scratch"
        self.models = {}  # name: family, and what the recorder needs to know

    def folder(self, name, family, base=None, **more):
        assert name not in self.models, name
        self.models[name] = {"family": family, "base": base, **more}
        folder = self.root / name
        folder.mkdir(parents=True)
        return folder

    def backbone(self, folder, model, words, *, seed, dtype=torch.float16, scale=None, bias=None, shards=None):
        """A plain transformers repository."""
        randomise(model, seed, scale, bias).to(dtype)
        model.save_pretrained(folder, **({} if shards is None else {"max_shard_size": shards}))
        words.save_pretrained(folder, save_jinja_files=True)
        (folder / "generation_config.json").unlink(missing_ok=True)
        config = read_json(folder / "tokenizer_config.json")
        if config.get("model_max_length", 0) > 1e9:  # unset; a number the readers of other languages stumble over
            edit_json(folder / "tokenizer_config.json", model_max_length=...)

    def sentence(self, name, family, model, words, modules, *, seed, wrong=(), options=None, **backbone):
        """SentenceTransformer([backbone, *modules]), saved as the library does.

        `wrong` are changes of config.json that must change the result: see `sensitivity` in arch_cases.py.
        """
        folder = self.folder(name, family, wrong=list(wrong))
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        self.backbone(self.scratch, model, words, seed=seed, **backbone)
        dtype = backbone.get("dtype", torch.float16)
        transformer = Transformer(str(self.scratch), model_kwargs={"dtype": dtype})
        for module in modules:
            module.to(dtype)
        whole = SentenceTransformer(modules=[transformer, *modules], device="cpu", **(options or {}))
        whole.save(str(folder), create_model_card=False)
        if "shards" in backbone:
            (folder / "model.safetensors").unlink()
            transformer.model.save_pretrained(folder, max_shard_size=backbone["shards"])
        (folder / "generation_config.json").unlink(missing_ok=True)
        return folder

    def plain(self, name, family, model, words, *, seed, wrong=(), chat=False, **backbone):
        """A repository of transformers alone; for classifiers too."""
        cross = type(model).__name__.endswith(("Classification", "CausalLM"))
        folder = self.folder(name, family, wrong=list(wrong), cross=cross, chat=chat)
        self.backbone(folder, model, words, seed=seed, **backbone)
        return folder

    def overlay(self, name, base, *, wrong=(), chat=False, family=None, same_as=None, adapters=(), **changes):
        """A folder with only what differs from another: keys of JSON files, by the files' names without .json.

        `same_as`: the reference cannot load it, and it must compute what that model does. `adapters` are folders in it,
        to be filled; see `adapted` in arch_adapters.py for others.
        """
        more = {key: value for key, value in self.models[base].items() if key not in ("family", "base", "wrong")}
        more.update({"chat": True} if chat else {})
        more.update({"same_as": same_as} if same_as else {})
        more.update({"adapters": list(adapters)} if adapters else {})
        folder = self.folder(name, family or self.models[base]["family"], base, wrong=list(wrong), **more)
        for file, change in changes.items():
            original = self.root / base / f"{file}.json"
            write_json(folder / f"{file}.json", read_json(original) if original.exists() else {})
            edit_json(folder / f"{file}.json", **change)
        return folder
