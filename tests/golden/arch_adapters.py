"""Low-rank adapters (PEFT's, and those of jina-embeddings-v3), and dialects that the reference does not load by itself."""

import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import AutoModel, XLMRobertaConfig, XLMRobertaForSequenceClassification

import arch_tokenizers as tokenizers
from arch_build import edit_json, read_json
from arch_recent import TINY
from formula import randomise

FLASH = {
    "AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.XLMRobertaFlashConfig",
    "AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_xlm_roberta.XLMRobertaModel",
}


def save(tensors, folder):
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def flash(b):
    """jina-embeddings-v3 as it was published first: the configuration, and the adapters of tasks beside every matrix."""
    config = {
        "architectures": ["XLMRobertaModel"], "auto_map": FLASH, "model_type": "xlm-roberta", "position_embedding_type": "rotary",
        "rope_parameters": ..., "rotary_emb_base": 20000.0, "use_flash_attn": True,
    }  # fmt: skip
    b.overlay("flash", "jina-v3", family="xlm-roberta", same_as="jina-v3", config=config)
    tasks = ["retrieval.query", "retrieval.passage", "separation"]
    config.update(lora_adaptations=tasks, lora_rank=3, lora_alpha=2, architectures=["XLMRobertaLoRA"])
    folder = b.overlay("flash-tasks", "jina-v3", family="xlm-roberta", same_as="jina-v3", config=config)
    stored = load_file(b.root / "jina-v3/model.safetensors")
    matrices = [name for name, value in stored.items() if value.dim() == 2]
    low = nn.Module()  # only holds what is to be random
    for i, name in enumerate(matrices):
        rows, cols = stored[name].shape
        is_table = "embeddings." in name
        low.register_parameter(f"a{i}", nn.Parameter(torch.empty(3, rows if is_table else 3, 3 if is_table else cols)))
        low.register_parameter(f"b{i}", nn.Parameter(torch.empty(3, 3 if is_table else rows, cols if is_table else 3)))
    low = {name: value.detach().half() for name, value in randomise(low, 161, {"b": 0.3}).named_parameters()}
    adapted = {}
    for task, name in enumerate(tasks):
        merged = dict(stored)
        for i, matrix in enumerate(matrices):
            a, c = low[f"a{i}"][task].float(), low[f"b{i}"][task].float()
            merged[matrix] = stored[matrix].float() + (a @ c if "embeddings." in matrix else c @ a) * (2 / 3)
        adapted[name] = Path(tempfile.mkdtemp()) / "merged"
        shutil.copytree(b.root / "jina-v3", adapted[name])
        save(merged, adapted[name])
    beside = {}
    for i, name in enumerate(matrices):
        stem = f"roberta.{name.removesuffix('weight')}parametrizations.weight"
        beside.update({f"{stem}.original": stored[name], f"{stem}.0.lora_A": low[f"a{i}"], f"{stem}.0.lora_B": low[f"b{i}"]})
    save({**{f"roberta.{name}": value for name, value in stored.items() if name not in matrices}, **beside}, folder)
    b.models["flash-tasks"].update(adapters=tasks, adapted=adapted)


def flash_reranker(b):
    """jina-reranker-v2: the same code with learned positions, which is XLM-RoBERTa by other names."""
    words = tokenizers.xlm_roberta(model_max_length=120)
    config = XLMRobertaConfig(
        **TINY, vocab_size=len(words), type_vocab_size=1, layer_norm_eps=1e-5, max_position_embeddings=122, pad_token_id=1, num_labels=1
    )  # fmt: skip
    model = XLMRobertaForSequenceClassification(config)
    b.plain("xlm-roberta-reranker", "xlm-roberta", model, words, seed=162, scale={"out_proj": 2.5})
    stored = load_file(b.root / "xlm-roberta-reranker/model.safetensors")
    parts = [("embeddings.LayerNorm", "emb_ln"), ("encoder.layer.", "encoder.layers."), ("attention.output.dense", "mixer.out_proj"),
             ("attention.output.LayerNorm", "norm1"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
             ("output.LayerNorm", "norm2")]  # fmt: skip
    renamed = {}
    for name, value in stored.items():
        if ".attention.self." in name:
            stem, end = name.split("attention.self.")
            if end.startswith("query"):
                whole = [stored[f"{stem}attention.self.{part}{end.removeprefix('query')}"] for part in ("query", "key", "value")]
                renamed[f"{stem}mixer.Wqkv{end.removeprefix('query')}".replace("layer.", "layers.")] = torch.cat(whole)
            continue
        for old, new in parts:
            name = name.replace(old, new)
        renamed[name] = value
    config = {"auto_map": FLASH, "use_flash_attn": True, "position_embedding_type": "absolute"}
    folder = b.overlay("flash-reranker", "xlm-roberta-reranker", same_as="xlm-roberta-reranker", config=config)
    save(renamed, folder)


def composite(b):
    """EmbeddingGemma 2 and Qwen3-VL as they are published: text, and images or sound. Their text alone is read."""
    folder = b.overlay("embedding-gemma2-whole", "embedding-gemma2", same_as="embedding-gemma2")
    text = read_json(b.root / "embedding-gemma2/config.json")
    edit_json(
        folder / "config.json", architectures=["EmbeddingGemma2Model"], model_type="embedding_gemma2", text_config=text,
        vision_config={"model_type": "gemma4_vision"}, audio_config=None, image_token_id=258880,
    )  # fmt: skip
    stored = load_file(b.root / "embedding-gemma2/model.safetensors")
    save({f"language_model.{name}": value for name, value in stored.items()}, folder)
    # The same of Qwen3-VL, in the dialect of its published files.
    folder = b.overlay("qwen3-vl-whole", "qwen3-vl", same_as="qwen3-vl")
    text = read_json(b.root / "qwen3-vl/config.json")
    rope = text.pop("rope_parameters")
    text.update(rope_theta=rope.pop("rope_theta"), rope_scaling=rope)
    edit_json(
        folder / "config.json", architectures=["Qwen3VLForConditionalGeneration"], model_type="qwen3_vl", text_config=text,
        vision_config={"model_type": "qwen3_vl"}, image_token_id=151655,
    )  # fmt: skip
    stored = load_file(b.root / "qwen3-vl/model.safetensors")
    save({f"model.language_model.{name}": value for name, value in stored.items()}, folder)


def peft(b):
    """Adapters that PEFT wrote: of matrices, of the table of tokens, and with the root of the rank."""
    kinds = {
        "adapter": dict(r=3, lora_alpha=6, target_modules=["query", "value", "output.dense"]),
        "adapter-table": dict(r=2, lora_alpha=3, target_modules=["word_embeddings", "key"]),
        "adapter-root": dict(r=4, lora_alpha=3, target_modules=["intermediate.dense"], use_rslora=True),
        "adapter-patterns": dict(
            r=3, lora_alpha=6, target_modules=["query", "value"], rank_pattern={"query": 2}, alpha_pattern={r"layer\.1\..*\.value": 1}
        ),
    }
    write_adapters(b, "lora", "xlm-roberta", kinds, 163)
    # Layers that are stored as parts of others, or by other names.
    of_decoders = ["q_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj", "fc1"]
    kinds = {"adapter": dict(r=3, lora_alpha=4, target_modules=of_decoders)}
    for i, base in enumerate(("jina-v3", "gte-native", "nomic-native")):
        write_adapters(b, f"lora-{base}", base, kinds, 180 + i)


def write_adapters(b, name, base, kinds, seed):
    from peft import LoraConfig, get_peft_model

    folder = b.overlay(name, base, adapters=kinds)
    for i, (adapter, settings) in enumerate(kinds.items()):
        model = get_peft_model(AutoModel.from_pretrained(b.root / base, dtype=torch.float32), LoraConfig(**settings))
        low = nn.Module()
        owners = {key.replace(".", "_"): value for key, value in model.named_parameters() if "lora_" in key}
        for key, value in owners.items():
            low.register_parameter(key, nn.Parameter(torch.empty(value.shape)))
        with torch.no_grad():
            for key, value in randomise(low, seed + i, {"lora_B": 0.3, "lora_embedding_B": 0.3}).named_parameters():
                owners[key].copy_(value)
        model.save_pretrained(folder / adapter, save_embedding_layers=False)
        (folder / adapter / "README.md").unlink()
        path = folder / adapter / "adapter_model.safetensors"
        save_file({key: value.half() for key, value in load_file(path).items()}, path, metadata={"format": "pt"})
        targets = sorted(settings["target_modules"])
        edit_json(folder / adapter / "adapter_config.json", base_model_name_or_path=base, target_modules=targets)


def peft_alone(b):
    """An adapter in the place of a model, as sentence-transformers saves what it trained with PEFT."""
    from peft import LoraConfig

    whole = SentenceTransformer(str(b.root / "xlm-roberta"), device="cpu", model_kwargs={"dtype": torch.float32})
    whole.add_adapter(LoraConfig(r=3, lora_alpha=4, target_modules=["key", "value"]))
    low = nn.Module()
    owners = {key.replace(".", "_"): value for key, value in whole.named_parameters() if "lora_" in key}
    for key, value in owners.items():
        low.register_parameter(key, nn.Parameter(torch.empty(value.shape)))
    with torch.no_grad():
        for key, value in randomise(low, 167, {"lora_B": 0.3}).named_parameters():
            owners[key].copy_(value)
    folder = b.folder("lora-alone", "xlm-roberta", wrong=[])
    whole.save(str(folder), create_model_card=False)
    path = folder / "adapter_model.safetensors"
    save_file({key: value.half() for key, value in load_file(path).items()}, path, metadata={"format": "pt"})
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(b.root / "xlm-roberta"), target_modules=["key", "value"])


def unresolve(models):
    """Base models by their names, which tests put folders in the place of, once the reference has seen folders."""
    for path in models.glob("*/adapter_config.json"):
        base = Path(read_json(path)["base_model_name_or_path"]).name
        edit_json(path, base_model_name_or_path=f"golden:{base}")


FAMILIES = (flash, flash_reranker, composite, peft, peft_alone)
