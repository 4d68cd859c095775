"""The tiny cross-encoders: one checkpoint per architecture and number of labels, and overlays that store them otherwise.

An overlay is a folder with only the files that differ from another model, its base: copy the base, then the overlay.
"""

import json
import shutil

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertConfig, BertForSequenceClassification, CamembertConfig, CamembertForSequenceClassification, CamembertTokenizer,
    DistilBertConfig, DistilBertForSequenceClassification, DistilBertTokenizer, ElectraConfig,
    ElectraForSequenceClassification, RobertaConfig, RobertaForSequenceClassification, RobertaTokenizer, XLMRobertaConfig,
    XLMRobertaForSequenceClassification, XLMRobertaTokenizer,
)  # fmt: skip

from build import compact, edit_json, randomise, read_json, rename_tensors, tokenizer, write_json
from texts import NORMAL, uncased_vocabulary

IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
TANH = "torch.nn.modules.activation.Tanh"
FOREIGN = "my_package.activations.Squash"
PROMPTS = {"query": "what is: ", "passage": "the text: ", "empty": ""}

# What `CrossEncoder.save_pretrained` of 6.2.0 writes.
MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]


def byte_level_bpe(texts, size):
    """A vocabulary in RoBERTa's order, and its merges."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary = {**model["vocab"], "<mask>": len(model["vocab"])}
    return vocabulary, [tuple(merge) for merge in model["merges"]]


def roberta_tokenizer(texts=NORMAL, size=361, **kwargs):
    vocabulary, merges = byte_level_bpe(texts, size)
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return RobertaTokenizer(vocab=vocabulary, merges=merges, mask_token=mask, **kwargs)


def pieces():
    """Words, parts of words and letters with scores that make the best split a choice."""
    words = [word for word in uncased_vocabulary() if len(word) > 2 and word.isalpha()]
    scored = [("▁" + word, -4 - 0.013 * i) for i, word in enumerate(words)]
    parts = ["ing", "er", "ed", "ly", "in", "an", "st", "or", "te", "re", "▁s", "▁t", "▁a", "▁the", "ee", "oo", "en", "at"]
    scored += [(part, -6 - 0.017 * i) for i, part in enumerate(parts)]
    letters = "▁etaoinshrdlucmfwypvbgkjqxzTAHSWRPÉéü0123456789.,!?;:'-()中🙂"
    scored += [(letter, -9 - 0.019 * i) for i, letter in enumerate(letters)]
    return list({piece: (piece, round(score, 3)) for piece, score in reversed(scored)}.values())[::-1]


def xlm_roberta_tokenizer(**kwargs):
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return XLMRobertaTokenizer(vocab=special + pieces() + [("<mask>", 0.0)], mask_token=mask, **kwargs)


def camembert_tokenizer(**kwargs):
    """As CamemBERT's own: `<s>` is 5 and `<pad>` is 1, so positions do not count from the first token's id."""
    special = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0), ("<unk>NOTUSED", -100.0)]
    vocabulary = special + [("<s>", 0.0), ("</s>", 0.0)] + pieces() + [("<mask>", 0.0)]
    return CamembertTokenizer(vocab=vocabulary, **kwargs)


def distilbert_tokenizer(**kwargs):
    return DistilBertTokenizer(vocab=uncased_vocabulary(), do_lower_case=True, **kwargs)


FAMILIES = {
    "bert": (BertConfig, BertForSequenceClassification, tokenizer),
    "roberta": (RobertaConfig, RobertaForSequenceClassification, roberta_tokenizer),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaForSequenceClassification, xlm_roberta_tokenizer),
    "camembert": (CamembertConfig, CamembertForSequenceClassification, camembert_tokenizer),
    "distilbert": (DistilBertConfig, DistilBertForSequenceClassification, distilbert_tokenizer),
    "electra": (ElectraConfig, ElectraForSequenceClassification, tokenizer),
}


# Between attention and the residual: large, so that the first token's state is more than its own embedding.
CONTEXT = ("value.weight", "v_lin.weight", "attention.output.dense.weight", "out_lin.weight")


def randomise_classifier(model, seed, spread, shift):
    """Weights under which every part of the computation shows in the logits: see `sensitivity` in cross_cases.py.

    `spread` is the gain of the last layer, `shift` its bias: chosen so that logits are around 0, a few units apart.
    """
    randomise(model, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "layer_norm" in name:  # DistilBERT's name for it
                parameter.copy_(noise * 0.2 + (1.0 if name.endswith("weight") else 0.0))
            elif "token_type" in name:
                parameter.copy_(noise)
            elif name.endswith(CONTEXT):
                parameter.mul_(1.3)
            elif name in ("classifier.weight", "classifier.out_proj.weight"):
                parameter.copy_(noise * spread / parameter.shape[1] ** 0.5)
            elif name in ("classifier.bias", "classifier.out_proj.bias"):
                parameter.add_(shift)
    return model


def classifier(folder, family, labels, *, seed, spread=2.5, shift=0.0, model_max_length=None, dtype=torch.float16, **config):
    """Writes a plain transformers repository: config.json, model.safetensors, tokenizer files."""
    config_class, model_class, tokenizer_class = FAMILIES[family]
    words = tokenizer_class(**({} if model_max_length is None else {"model_max_length": model_max_length}))
    if isinstance(labels, int):
        labels = [f"LABEL_{i}" for i in range(labels)]
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    settings = dict(vocab_size=len(words), type_vocab_size=2, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)  # fmt: skip
    if family == "distilbert":
        settings = dict(vocab_size=len(words), dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    if family in ("roberta", "xlm-roberta", "camembert"):
        settings.update(type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1)
        settings.update(bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id)
    settings.update(config)
    model = randomise_classifier(model_class(config_class(**settings, **names)), seed, spread, shift).to(dtype)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if model_max_length is None:  # written as 1e30, which the readers of other languages stumble over
        edit_json(folder / "tokenizer_config.json", model_max_length=...)


class CrossBuilder:
    def __init__(self, root):
        self.root = root
        self.scratch = root.parent / "scratch"
        self.bases = {}

    def model(self, name, family, labels, **options):
        classifier(self.root / name, family, labels, **options)

    def overlay(self, name, base, **changes):
        """Keys of JSON files to set: `config`, `tokenizer_config`, `settings` (config_sentence_transformers.json),
        `transformer` (sentence_bert_config.json), `tokenizer`; `modules` writes modules.json as it is."""
        files = {"settings": "config_sentence_transformers", "transformer": "sentence_bert_config"}
        self.bases[name] = base
        for key, change in changes.items():
            path = self.root / name / f"{files.get(key, key)}.json"
            original = self.root / base / path.name
            if key == "modules":
                write_json(path, change)
                continue
            write_json(path, read_json(original) if original.exists() else {})
            edit_json(path, **change)

    def saved(self, name, base, **options):
        """What `CrossEncoder.save_pretrained` makes of the base; only the files that differ are kept."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.bases[name] = base
        (self.root / name).mkdir()
        CrossEncoder(str(self.root / base), device="cpu", local_files_only=True, **options).save_pretrained(
            str(self.scratch), create_model_card=False
        )
        for path in sorted(self.scratch.iterdir()):
            original = self.root / base / path.name
            if original.exists() and original.suffix == ".json" and read_json(original) == read_json(path):
                continue
            if not original.exists() or original.read_bytes() != path.read_bytes():
                shutil.copy(path, self.root / name / path.name)


def architectures(b):
    b.model("bert-1", "bert", 1, seed=31, spread=3, shift=0.6, hidden_size=24, num_attention_heads=3, max_position_embeddings=56, model_max_length=40)  # fmt: skip
    # Stored as long ago: gamma and beta, a buffer of positions; no limit in the tokenizer: max_position_embeddings.
    b.model("bert-3", "bert", ["contradiction", "entailment", "neutral"], seed=32, spread=3, max_position_embeddings=48)
    rename_tensors(
        b.root / "bert-3/model.safetensors",
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
        {"bert.embeddings.position_ids": torch.arange(48).unsqueeze(0)},
    )
    # Old files of RoBERTa also carry positions, and a pooler that the head does not use.
    b.model("roberta-1", "roberta", 1, seed=33, spread=6, shift=-3, max_position_embeddings=42, model_max_length=40)  # fmt: skip
    generator = torch.Generator().manual_seed(34)
    rename_tensors(
        b.root / "roberta-1/model.safetensors",
        lambda name: name,
        {
            "roberta.embeddings.position_ids": torch.arange(42).unsqueeze(0),
            "roberta.pooler.dense.weight": torch.randn(16, 16, generator=generator).half(),
            "roberta.pooler.dense.bias": torch.randn(16, generator=generator).half(),
        },
    )
    b.model("roberta-3", "roberta", 3, seed=35, max_position_embeddings=50, model_max_length=33)
    b.model("xlm-roberta-1", "xlm-roberta", 1, seed=36, spread=6, shift=-3.9, max_position_embeddings=46, model_max_length=44)
    b.model("camembert-1", "camembert", 1, seed=37, spread=12, shift=-10.7, max_position_embeddings=40, model_max_length=37)
    b.model("distilbert-1", "distilbert", 1, seed=38, spread=2.5, shift=-1.4, n_heads=4, max_position_embeddings=40, model_max_length=32)
    b.model("distilbert-3", "distilbert", 3, seed=39, max_position_embeddings=44)
    b.model("electra-1", "electra", 1, seed=40, spread=3.5, shift=-2.5, embedding_size=12, hidden_size=24, num_attention_heads=3, max_position_embeddings=44, model_max_length=39)  # fmt: skip
    b.model("electra-3", "electra", 3, seed=41, spread=1.5, embedding_size=16, num_attention_heads=1, max_position_embeddings=40, dtype=torch.bfloat16)


def activations(b):
    """Where the default activation may stand. First hit: config_sentence_transformers.json (only beside modules.json and
    with the model type CrossEncoder), `sentence_transformers` in config.json, its old key; else one of the number of
    labels. bert-1 itself stores none."""

    def config(name, activation, base="bert-1", **more):
        stored = {"activation_fn": activation, "version": "4.1.0"}
        b.overlay(name, base, config={"sentence_transformers": stored, **more})

    config("activation-config-identity", IDENTITY)
    config("activation-config-sigmoid", SIGMOID)
    config("activation-config-tanh", TANH)
    config("activation-config-short", "torch.nn.Identity")
    config("activation-config-foreign", FOREIGN)
    config("activation-config-unqualified", "Identity")  # not below torch, so not trusted
    config("activation-config-sigmoid-3", SIGMOID, base="bert-3")
    config("activation-config-foreign-3", FOREIGN, base="bert-3")
    config("activation-config-unknown", "torch.nn.Nonsense")  # an error
    config("activation-config-function", "torch.sigmoid")  # an error: called without an argument
    old = "sbert_ce_default_activation_function"
    b.overlay("activation-old-identity", "bert-1", config={old: IDENTITY})
    b.overlay("activation-old-null", "bert-1", config={old: None})
    config("activation-config-over-old", TANH, **{old: IDENTITY})
    config("activation-config-null-over-old", None, **{old: IDENTITY})  # the old key is not looked at
    config("activation-config-foreign-over-old", FOREIGN, **{old: IDENTITY})  # nor here
    b.overlay("activation-config-without-over-old", "bert-1", config={"sentence_transformers": {"version": "4.1.0"}, old: IDENTITY})  # fmt: skip

    def file(name, activation, config=None, modules=True, model_type="CrossEncoder", **more):
        settings = {"activation_fn": activation, "model_type": model_type, "prompts": {}, "default_prompt_name": None, **more}  # fmt: skip
        changes = {"settings": settings, "transformer": {"transformer_task": "sequence-classification"}}
        if config is not None:
            changes["config"] = config
        if modules:
            changes["modules"] = MODULES
        b.overlay(name, "bert-1", **changes)

    nested = {"sentence_transformers": {"activation_fn": IDENTITY, "version": "4.1.0"}, old: SIGMOID}
    file("activation-file-identity", IDENTITY)
    file("activation-file-sigmoid", SIGMOID)
    file("activation-file-short", "torch.nn.Tanh")
    file("activation-file-over-config", TANH, config=nested)
    file("activation-file-null-over-config", None, config=nested)
    file("activation-file-foreign", FOREIGN)
    file("activation-file-foreign-over-config", FOREIGN, config=nested)
    # Without modules.json, or for another type of model, the library does not read the settings at all.
    file("activation-file-without-modules", IDENTITY, modules=False)
    file("activation-file-other-type", IDENTITY, model_type=..., prompts=PROMPTS, default_prompt_name="query")


def dialects(b):
    # As 6.2.0 saves: modules.json and its companions.
    b.saved("saved", "bert-1")
    b.saved("saved-3", "roberta-3", activation_fn=torch.nn.Tanh())
    b.saved("saved-prompts", "bert-1", prompts=PROMPTS, default_prompt_name="query", activation_fn=torch.nn.Identity())
    b.saved("saved-prompts-3", "roberta-3", prompts=PROMPTS)
    b.saved("saved-length", "bert-1", max_length=21)  # in tokenizer_config.json
    b.saved("saved-length-bfloat16", "electra-3", max_length=18)
    # A limit in sentence_bert_config.json wins over the tokenizer's; without modules.json nobody reads it.
    transformer = {"transformer_task": "sequence-classification", "max_seq_length": 24}
    settings = {"model_type": "CrossEncoder"}
    b.overlay("length-file", "bert-1", modules=MODULES, settings=settings, transformer=transformer)
    b.overlay("length-file-null", "bert-1", modules=MODULES, settings=settings, transformer={**transformer, "max_seq_length": None})  # fmt: skip
    b.overlay("length-file-without-modules", "bert-1", transformer=transformer)
    b.overlay("length-file-other-type", "bert-1", modules=MODULES, settings={}, transformer=transformer)
    b.overlay("length-high", "bert-1", tokenizer_config={"model_max_length": 512})  # max_position_embeddings
    # The library sets the limit to 46, but the position table ends with the 44th token: longer pairs are an error.
    b.overlay("length-none-xlm-roberta", "xlm-roberta-1", tokenizer_config={"model_max_length": ...})
    b.overlay("truncation-left", "bert-1", tokenizer_config={"truncation_side": "left"})
    # Truncation and padding of training, left in the files: the library overrides them.
    b.overlay(
        "truncation-stored",
        "bert-1",
        tokenizer_config={"max_length": 12, "stride": 0, "truncation_strategy": "longest_first", "pad_to_multiple_of": None},
        tokenizer={
            "truncation": {"direction": "Right", "max_length": 12, "strategy": "OnlySecond", "stride": 2},
            "padding": {"strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        },
    )  # fmt: skip
    b.overlay("labels-number", "bert-1", config={"id2label": ..., "label2id": ..., "num_labels": 1})
    b.overlay("labels-missing", "bert-1", config={"id2label": ..., "label2id": ...})  # an error: the default is 2
    b.overlay("prompts-default-unknown", "saved-prompts", settings={"default_prompt_name": "nonsense"})  # an error


def build_cross_encoders(root):
    """Builds every model; returns the base of each overlay."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    builder = CrossBuilder(root)
    for family in (architectures, activations, dialects):
        family(builder)
    shutil.rmtree(builder.scratch)
    compact(root)
    return builder.bases
