"""Models of other modules: static embeddings, routes for queries and documents, weighted layers; and ways to store weights."""

import shutil

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import StaticEmbedding, Transformer, WeightedLayerPooling
from torch import nn
from transformers import BertConfig, BertModel

import arch_tokenizers as tokenizers
from arch_build import Normalize, Pooling, dense, edit_json, write_json
from formula import randomise

MODELS = "sentence_transformers.models"


def embedding(rows, width, seed):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def modules_json(folder, *entries):
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"{MODELS}.{kind}"}
            for i, (path, kind) in enumerate(entries)
        ],
    )


def static(b):
    words = tokenizers.bert().backend_tokenizer
    module = StaticEmbedding(words, embedding_weights=embedding(words.get_vocab_size(), 20, 401))
    folder = b.folder("static", "static", wrong=[])
    SentenceTransformer(modules=[module], device="cpu").save(str(folder), create_model_card=False)
    # Truncation that stands in tokenizer.json stays in force: the module only turns padding off.
    stored = {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0}
    where = "tokenizer" if (folder / "tokenizer.json").exists() else "0_StaticEmbedding/tokenizer"
    b.overlay("static-truncated", "static", **{where: {"truncation": stored}})

    def model2vec(name, tensors, normalize):
        """As Model2Vec writes it (potion): the embedding at the root, path "." in modules.json."""
        folder = b.folder(name, "static", wrong=[])
        words.save(str(folder / "tokenizer.json"))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        write_json(
            folder / "config.json",
            {
                "model_type": "model2vec",
                "architectures": ["StaticModel"],
                "tokenizer_name": "baai/bge-base-en-v1.5",
                "apply_pca": 20,
                "apply_zipf": True,
                "hidden_dim": 20,
                "seq_length": 1000000,
                "normalize": normalize,
            },
        )
        modules_json(folder, (".", "StaticEmbedding"), *([("1_Normalize", "Normalize")] if normalize else []))

    count = words.get_vocab_size()
    model2vec("model2vec", {"embeddings": embedding(count, 20, 402)}, True)
    generator = torch.Generator().manual_seed(403)
    mapping = torch.randint(0, 40, (count,), generator=generator)
    weights = torch.rand(count, generator=generator) + 0.2
    model2vec("model2vec-mapped", {"embeddings": embedding(40, 20, 404), "mapping": mapping, "weights": weights}, True)
    model2vec(
        "model2vec-weighted",
        {"embeddings": embedding(count, 16, 405).half(), "weights": weights.flip(0).double()},
        False,
    )


def backbone(b, words, seed, dtype=torch.float16, **changes):
    """A small BERT as a Transformer module."""
    config = BertConfig(
        **{
            **dict(
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=24,
                vocab_size=len(words),
                max_position_embeddings=100,
            ),
            **changes,
        }
    )
    shutil.rmtree(b.scratch, ignore_errors=True)
    b.scratch.mkdir()
    b.backbone(b.scratch, BertModel(config), words, seed=seed, dtype=dtype)
    return Transformer(str(b.scratch), model_kwargs={"dtype": dtype})


def routers(b):
    words = tokenizers.bert(model_max_length=100)
    raw = tokenizers.bert().backend_tokenizer

    def save(name, routes, modules, **options):
        folder = b.folder(name, "router", wrong=[], router=routes)
        SentenceTransformer(modules=modules, device="cpu", **options).save(str(folder), create_model_card=False)
        for path in folder.rglob("generation_config.json"):
            path.unlink()
        return folder

    # Queries by a table, documents by a transformer; what is neither is a document.
    query = [StaticEmbedding(raw, embedding_weights=embedding(len(words), 16, 411))]
    document = [backbone(b, words, 412), Pooling(16, "mean")]
    router = Router.for_query_document(query_modules=query, document_modules=document)
    save(
        "router", ["query", "document"], [router, Normalize()], prompts={"query": "what is: ", "document": "the text: "}
    )
    # Routes by mapping; one backbone shared by both; the first route is the default.
    shared = backbone(b, words, 413)
    routes = {
        "short": [shared, Pooling(16, "cls")],
        "long": [shared, Pooling(16, "mean"), dense(16, 16, 414, activation=nn.Tanh())],
    }
    mappings = {("query", None): "short", ("document", "text"): "long"}
    save("router-mapped", ["query", "document", "long"], [Router(routes, route_mappings=mappings)])
    # As version 2 wrote it: Asym after the pooling, in config.json of its folder.
    folder = b.folder("asym", "router", wrong=[], router=["query", "doc"])
    plain = SentenceTransformer(modules=[backbone(b, words, 415), Pooling(16, "mean")], device="cpu")
    plain.save(str(folder), create_model_card=False)
    structure, types = {}, {}
    for number, route in enumerate(("query", "doc")):
        name = f"{route}_{140190000000000 + number}_Dense"
        (folder / "2_Asym" / name).mkdir(parents=True)
        dense(16, 12, 416 + number, bias=True, activation=nn.Tanh()).save(str(folder / "2_Asym" / name))
        structure[route], types[name] = [name], f"{MODELS}.Dense.Dense" if number else f"{MODELS}.Dense"
    write_json(
        folder / "2_Asym/config.json", {"types": types, "structure": structure, "parameters": {"allow_empty_key": True}}
    )
    modules_json(folder, ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Asym", "Asym"))


def layers(b):
    """The mean of several layers, weighted; config.json asks for all of them."""
    words = tokenizers.bert(model_max_length=100)
    for name, start, changes in (("weighted-layers", 0, {}), ("weighted-layers-late", 2, {"num_hidden_layers": 4})):
        settings = {"num_hidden_layers": 3, "output_hidden_states": True, **changes}
        transformer = backbone(b, words, 421 + start, **settings)
        pooling = randomise(
            WeightedLayerPooling(16, num_hidden_layers=settings["num_hidden_layers"], layer_start=start), 431 + start
        )
        with torch.no_grad():
            pooling.layer_weights.add_(1.0)
        folder = b.folder(name, "bert", wrong=[])
        whole = SentenceTransformer(modules=[transformer, pooling, Pooling(16, "mean")], device="cpu")
        whole.save(str(folder), create_model_card=False)


def stored(b):
    """The same architectures, stored otherwise."""
    words = tokenizers.bert(model_max_length=100)
    for name, dtype in (("stored-bf16", torch.bfloat16), ("stored-f32", torch.float32)):
        folder = b.folder(name, "bert", wrong=[])
        modules = [backbone(b, words, 441, dtype=dtype), Pooling(16, "mean"), dense(16, 12, 442).to(dtype)]
        SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)

    def overlay(name, base, rename, extra=None, drop=(), config=None):
        """Other names for the tensors; more of them, or fewer."""
        folder = b.overlay(name, base, config=config or {})
        tensors = load_file(b.root / base / "model.safetensors")
        tensors = {rename(key): value for key, value in tensors.items() if not key.startswith(drop)}
        tensors.update(extra or {})
        return folder, tensors

    def shards(folder, tensors, count=3):
        """model.safetensors.index.json and its files; the folder's base must not have model.safetensors to look at."""
        index = {}
        for number in range(count):
            file = f"model-{number + 1:05}-of-{count:05}.safetensors"
            part = {key: value for i, (key, value) in enumerate(sorted(tensors.items())) if i % count == number}
            save_file(part, folder / file, metadata={"format": "pt"})
            index.update({key: file for key in part})
        total = sum(value.numel() * value.element_size() for value in tensors.values())
        write_json(
            folder / "model.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))},
        )

    noise = lambda *shape: embedding(shape[0], shape[1] if len(shape) > 1 else 1, 451).squeeze(-1).half()  # noqa: E731
    # Saved from the causal model: `model.` in front, an output matrix, in shards. Not an overlay: it has no model.safetensors.
    folder = b.folder("stored-sharded", "qwen3", wrong=[])
    shutil.copytree(b.root / "qwen3", folder, dirs_exist_ok=True)
    (folder / "model.safetensors").unlink()
    tensors = {"model." + key: value for key, value in load_file(b.root / "qwen3/model.safetensors").items()}
    shards(folder, {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    edit_json(folder / "config.json", architectures=["Qwen3ForCausalLM"])
    # Saved from the masked language model: `model.`, a head, and a decoder that is the embedding and so is missing.
    folder, tensors = overlay(
        "stored-prefix", "modernbert-mean", lambda key: "model." + key,
        {"head.dense.weight": noise(24, 24), "head.norm.weight": noise(24), "decoder.bias": noise(336)}, config={"architectures": ["ModernBertForMaskedLM"]},
    )  # fmt: skip
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # Without the pooler, which no embedding needs; and with the buffers that old versions stored.
    buffer = {"embeddings.position_ids": torch.arange(182)[None]}
    folder, tensors = overlay(
        "stored-buffers",
        "mpnet",
        lambda key: key,
        buffer,
        drop=("pooler.",),
        config={"architectures": ["MPNetForMaskedLM"]},
    )
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # Keys of config.json that are null where the library has a default or nothing to do.
    nulls = (
        "rope_scaling",
        "sliding_window",
        "torch_dtype",
        "dtype",
        "bos_token_id",
        "eos_token_id",
        "layer_types",
        "id2label",
    )
    b.overlay("stored-nulls", "qwen3", config=dict.fromkeys(nulls))


FAMILIES = (static, routers, layers, stored)
