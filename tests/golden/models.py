"""The tiny checkpoints, one function per family. Each model is a folder of its own under models/."""

import shutil

import torch
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from torch import nn

from build import SMALL, backbone, compact, edit_json, old_style, read_json, saved, write_json
from overlay import shrink

MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]

# Every element-wise class of torch.nn that needs no argument, so that Dense can store its class path.
ACTIVATIONS = [
    "Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU", "Mish", "ELU", "LeakyReLU", "SELU", "CELU", "Softplus",
    "Softsign", "ReLU6", "Hardswish", "Hardsigmoid", "Hardtanh", "LogSigmoid", "Tanhshrink", "Hardshrink", "Softshrink",
    "RReLU", "PReLU",
]  # fmt: skip

# Other tests read these folders as they lie there: tests/encode.rs, crates/lexel-cli/tests.
WHOLE = ["pool-mean", "plain", "prompts", "similarity-euclidean"]

PROMPTS = {"query": "what is: ", "passage": "text: ", "classification": "The red school "}


class Builder:
    def __init__(self, root):
        self.root = root
        self.scratch = root.parent / "scratch"

    def save(self, name, modules, **options):
        return saved(self.root / name, modules, self.scratch, **options)


def pooling(b):
    for mode in MODES:
        b.save(f"pool-{mode}", [Pooling(16, mode)])

    folder = b.save("pool-several", [Pooling(16, ("lasttoken", "mean", "cls"))])
    assert read_json(folder / "1_Pooling/config.json")["pooling_mode"] == ["lasttoken", "mean", "cls"]

    # The boolean keys: concatenated in the library's own order, whatever their order in the file.
    folder = b.save("pool-several-old", [Pooling(16, ("cls", "max", "mean", "weightedmean"))])
    write_json(
        folder / "1_Pooling/config.json",
        {
            "word_embedding_dimension": 16,
            "pooling_mode_weightedmean_tokens": True,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_cls_token": True,
            "pooling_mode_max_tokens": True,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_lasttoken": False,
            "include_prompt": True,
        },
    )
    folder = b.save("pool-none-old", [Pooling(16, "mean")])  # no mode chosen: mean
    write_json(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False},
    )

    # All six modes side by side: columns 16*i to 16*i + 15 are MODES[i].
    prompts = {"query": "what is: ", "document": "embed", "long": "the old man and the sea " * 10}
    b.save("noprompt", [Pooling(16, MODES, include_prompt=False)], prompts=prompts)
    # A tokenizer that adds no special tokens: the prompt has no [SEP] to spare. (The class name in
    # tokenizer_config.json must be the generic one, or transformers rebuilds the post-processor.)
    folder = b.save("noprompt-nospecial", [Pooling(16, MODES, include_prompt=False)], prompts=prompts)
    edit_json(folder / "tokenizer.json", post_processor=None)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", do_lower_case=...)


def modules_after(b):
    b.save("normalize", [Pooling(16, "mean"), Normalize()])
    for name in ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU"):
        dense = Dense(16, 12, activation_function=getattr(nn, name)())
        b.save(f"dense-{name.lower()}", [Pooling(16, "mean"), dense])
    rest = [name for name in ACTIVATIONS if name not in ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")]
    for part in range(4):  # chains, to keep the bytes low; residuals keep the signal alive through the "shrink" functions
        chain = [Dense(16, 16, activation_function=getattr(nn, name)(), use_residual=True) for name in rest[part::4]]
        b.save(f"dense-chain-{part + 1}", [Pooling(16, "mean"), *chain, LayerNorm(16)])
    b.save("dense-nobias", [Pooling(16, "mean"), Dense(16, 24, bias=False, activation_function=None), Normalize()])
    b.save("dense-residual", [Pooling(16, "mean"), Dense(16, 16, activation_function=nn.GELU(), use_residual=True)])
    b.save("dense-residual-projected", [Pooling(16, "mean"), Dense(16, 9, use_residual=True)])
    # An untrusted class path falls back to Tanh, an unknown key is ignored, a missing activation is Tanh.
    folder = b.save("dense-foreign", [Pooling(16, "mean"), Dense(16, 10), Dense(10, 11)])
    edit_json(folder / "2_Dense/config.json", activation_function="my_package.Swish", dropout_rate=0.5)
    edit_json(folder / "3_Dense/config.json", activation_function=..., module_input_name=..., module_output_name=...)
    b.save("dense-tokens", [Dense(16, 20, module_input_name="token_embeddings"), Pooling(20, ("mean", "max"))])
    b.save("normalize-tokens", [Normalize(module_input_name="token_embeddings"), Pooling(16, "mean")])
    b.save("layernorm", [Pooling(16, "mean"), LayerNorm(16)])
    b.save("dropout", [Pooling(16, "mean"), Dropout(0.4), Dense(16, 16), LayerNorm(16), Normalize()])


def backbones(b):
    def mean(name, width, **options):
        return b.save(name, [Pooling(width, "mean")], backbone_options=options)

    mean(
        "bert-36x3", 36, seed=3, hidden_size=36, num_attention_heads=3, intermediate_size=50, num_hidden_layers=3,
        layer_norm_eps=1e-5,
    )  # fmt: skip
    head64 = dict(hidden_size=128, num_attention_heads=2, num_hidden_layers=1, intermediate_size=56)
    mean("bert-head64", 128, seed=4, cased=True, max_position_embeddings=32, dtype=torch.float16, **head64)
    for number, act in enumerate(("gelu_new", "relu", "silu", "gelu_pytorch_tanh")):
        mean(f"bert-{act}", 16, **{**SMALL, "seed": 10 + number, "num_hidden_layers": 2, "hidden_act": act})
    mean("bert-eps", 16, **{**SMALL, "seed": 15, "layer_norm_eps": 0.1})
    mean("bert-onetype", 16, **{**SMALL, "seed": 16, "type_vocab_size": 1})

    mean("f16", 32, seed=5, dtype=torch.float16)
    mean("bf16", 32, seed=6, dtype=torch.bfloat16)
    b.save("sharded", [Pooling(32, "mean")], backbone_options=dict(seed=7), shards="45KB")
    # Later modules in half precision too.
    folder = b.save("f16-dense", [Pooling(16, "mean"), Dense(16, 8)], backbone_options={**SMALL, "dtype": torch.float16})
    from safetensors.torch import load_file, save_file

    path = folder / "2_Dense/model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


def dialects(b):
    folder = b.save("old", [Pooling(32, "mean"), Normalize()], backbone_options=dict(seed=8))
    old_style(folder, prefix=False, transformer_folder="0_Transformer", normalize=True)
    folder = b.save("old-prefix", [Pooling(16, "mean")], backbone_options={**SMALL, "seed": 9})
    old_style(folder, prefix=True, transformer_folder="", normalize=False)
    # As 6.x writes it: the limit stands in tokenizer_config.json only.
    b.save(
        "new", [Pooling(16, "mean"), Normalize()], prompts={"query": "query: ", "document": "text: "},
        backbone_options={**SMALL, "seed": 20, "model_max_length": 30},
    )  # fmt: skip
    # Just a transformers repository: Transformer and mean pooling.
    backbone(b.root / "plain", seed=21)

    # Maximum length: sentence_bert_config.json wins over tokenizer_config.json; without either,
    # max_position_embeddings; a tokenizer limit above it is lowered.
    folder = b.save("limit-both", [Pooling(16, "mean")], backbone_options={**SMALL, "model_max_length": 40})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    folder = b.save("limit-none", [Pooling(16, "mean")])
    edit_json(folder / "tokenizer_config.json", model_max_length=...)
    folder = b.save("limit-high", [Pooling(16, "mean")])
    edit_json(folder / "tokenizer_config.json", model_max_length=512)
    folder = b.save("limit-null", [Pooling(16, "mean")])
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": False})
    edit_json(folder / "tokenizer_config.json", model_max_length=33)

    # A cased tokenizer under do_lower_case: a Lowercase normalizer goes in front; accents stay.
    folder = b.save("lowered", [Pooling(16, "mean")], backbone_options={**SMALL, "seed": 22, "cased": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": True})
    # Contradiction between tokenizer.json (lower-casing) and tokenizer_config.json (not).
    folder = b.save("contradiction", [Pooling(16, "mean")])
    edit_json(folder / "tokenizer_config.json", do_lower_case=False)


def options(b):
    folder = b.save(
        "prompts", [Pooling(32, "mean")], prompts=PROMPTS, default_prompt_name="classification",
        backbone_options=dict(seed=23),
    )  # fmt: skip
    # The library adds an empty "document" when it saves; a hand-made repository has none.
    edit_json(folder / "config_sentence_transformers.json", prompts=PROMPTS)
    b.save(
        "truncated", [Pooling(16, "mean"), Normalize()], truncate_dim=10,
        prompts={"query": "query: ", "document": "the book: ", "passage": "text: "},
    )  # fmt: skip
    for name in ("cosine", "dot", "euclidean", "manhattan"):
        b.save(f"similarity-{name}", [Pooling(16, "mean")], similarity_fn_name=name)


def build_all(root):
    """Builds every model; returns the base of each overlay."""
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    builder = Builder(root)
    for family in (pooling, modules_after, backbones, dialects, options):
        family(builder)
    shutil.rmtree(builder.scratch)
    compact(root)
    return shrink(root, sorted(path.name for path in root.iterdir()), WHOLE)
