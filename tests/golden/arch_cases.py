"""Records what the reference computes with the models of arch_*.py: the sections of architectures/cases.json."""

import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers.util import fullname, import_from_string
from tokenizers import Tokenizer

from arch_loader import as_array, load
from arch_texts import CORE, FEW, FEW_PAIRS, ORDERS, PAIRS, PROBE, PROBE_PAIRS, TEXTS, TOKENS
from build import edit_json, read_json
from cases import Recorder


def texts_of(pairs):
    return [(TEXTS[a], TEXTS[b]) for a, b in pairs]


class ArchRecorder(Recorder):
    def __init__(self, root, models, bases, scratch):
        super().__init__(root, bases, scratch)
        self.models = models
        self.sections = {"models": [], "encode": [], "predict": [], "tokens": [], "errors": []}

    def load(self, name, adapter=None, **options):
        key = (name, adapter, *sorted(options.items()))
        if key not in self.loaded:
            same = self.models[name].get("same_as", name)
            if adapter and "adapted" in self.models[name]:  # what the same model is with the adapter merged
                folder = self.models[name]["adapted"][adapter]
            else:
                folder = self.folder(same)
            loaded = load(folder, self.models[same], **options)
            if adapter and "adapted" not in self.models[name]:
                loaded.load_adapter(str(self.folder(name) / adapter))
            self.loaded = {key: loaded}  # one at a time
        return self.loaded[key]

    def encode(self, label, model, texts=CORE, method="encode", **options):
        name = f"encode/{model}/{label}"
        arguments = {"normalize_embeddings" if key == "normalize" else key: value for key, value in options.items()}
        inputs = [TEXTS[i] for i in texts]
        adapter = arguments.pop("adapter", None)
        values = getattr(self.load(model, adapter=adapter), method)(inputs, batch_size=1, show_progress_bar=False, **arguments)
        case = {"name": name, "model": model, "method": method, "texts": texts, "options": options}
        if options.get("output_value") == "token_embeddings":
            self.put_ragged(case, name, [as_array(row) for row in values], np.float32)
        else:
            assert np.isfinite(values).all(), name
            case["expected"] = self.put(name, values)
        self.sections["encode"].append(case)
        return values

    def predict(self, label, model, pairs=PAIRS, **options):
        """One entry of the section "predict". max_length is given to the constructor; everything else to predict."""
        name = f"predict/{model}/{label}"
        arguments = dict(options)
        loading = {"max_length": arguments.pop("max_length")} if "max_length" in arguments else {}
        if "activation_fn" in arguments:
            arguments["activation_fn"] = import_from_string(arguments["activation_fn"])()
        with torch.inference_mode():
            values = self.load(model, **loading).predict(
                texts_of(pairs), batch_size=1, show_progress_bar=False, **arguments
            )
        assert np.isfinite(values).all(), name
        case = {"name": name, "model": model, "pairs": pairs, "options": options}
        self.sections["predict"].append({**case, "expected": self.put(name, values.astype(np.float32))})
        return values

    def tokens(self, model, inputs, plain=True):
        """Ids of texts, or of pairs, as the model's first module prepares them."""
        name, loaded = f"tokens/{model}", self.load(model)
        pairs, numbers = isinstance(inputs[0], list), inputs
        inputs = texts_of(numbers) if pairs else [TEXTS[i] for i in numbers]
        features = [loaded.preprocess([text]) for text in inputs]
        ids = [np.atleast_2d(row["input_ids"].numpy())[0] for row in features]
        if plain:  # tokenizer.json alone says the same
            alone = Tokenizer.from_file(str(self.folder(model) / "tokenizer.json"))
            alone.no_padding()
            limit = loaded.max_seq_length
            if limit and limit < 1e9:
                alone.enable_truncation(limit, strategy="longest_first")
            special = "offsets" not in features[0]
            for text, row in zip(inputs, ids):
                text = text if isinstance(text, tuple) else (text,)
                assert alone.encode(*text, add_special_tokens=special).ids == row.tolist(), (name, text)
        case = {"name": name, "model": model, "pairs" if pairs else "texts": numbers}
        self.put_ragged(case, name, ids, np.int32)
        case["types"] = None
        if "token_type_ids" in features[0]:
            case["types"] = self.put(
                name + ".types", np.concatenate([row["token_type_ids"][0].numpy() for row in features]).astype(np.int32)
            )
        self.sections["tokens"].append(case)

    def error(self, label, model, method, reason, texts=(), pairs=(), **options):
        """What the library refuses."""
        entry = {"name": f"errors/{label}", "model": model, "method": method, "options": options}
        entry.update({"pairs": pairs} if pairs else {"texts": list(texts)})
        try:
            getattr(self.load(model), method)(
                texts_of(pairs) if pairs else [TEXTS[i] for i in texts], batch_size=1, **options
            )
        except Exception as error:
            message = str(error).strip().split("\n")[0]
            self.sections["errors"].append(
                {**entry, "reason": reason, "reference": type(error).__name__, "message": message}
            )
            return
        raise AssertionError(f"{label}: expected an error")


def probe(model, cross):
    with torch.inference_mode():
        if cross:
            identity = torch.nn.Identity()
            return np.asarray(
                model.predict(texts_of(PROBE_PAIRS), batch_size=1, activation_fn=identity, show_progress_bar=False)
            )
        return model.encode([TEXTS[i] for i in PROBE], batch_size=1, show_progress_bar=False)


def sensitivity(r, name, log):
    """Typical mistakes of an implementation, made by changing config.json, move the result far beyond any tolerance:
    by over 1e-3, or what the change says is the least. (The worst that lexel may be off is 1e-5.)"""
    model = r.models[name]
    cross = model.get("cross")
    right = probe(r.load(name), cross)
    for change in model["wrong"]:
        with tempfile.TemporaryDirectory(dir=r.scratch) as copy:
            shutil.copytree(r.folder(name), copy, dirs_exist_ok=True)
            edit_json(Path(copy) / "config.json", **{key: value for key, value in change.items() if key != "least"})
            moved = np.abs(probe(load(copy, model), cross) - right).max()
        log.append((float(moved), change.get("least", 1e-3), name, change))


def facts(r, name, log):
    """What a loader must find in every folder, and the standard cases."""
    model = r.models[name]
    folder = r.folder(name)
    loaded = r.load(name)
    entry = {
        "name": name,
        "family": model["family"],
        "base": r.bases.get(name),
        "cross_encoder": bool(model.get("cross")),
        "loads": True,
    }
    entry["reference"] = model.get("reference", "sentence-transformers")
    if "same_as" in model:
        entry["same_as"] = model["same_as"]
    if model.get("cross"):
        entry.update(
            architecture=type(loaded.model).__name__, num_labels=loaded.num_labels, max_length=loaded.max_seq_length,
            activation=fullname(loaded.activation_fn), prompts=loaded.prompts, default_prompt_name=loaded.default_prompt_name,
        )  # fmt: skip
    else:
        length = loaded.max_seq_length
        config = folder / "config.json"
        entry.update(
            architecture=read_json(config)["architectures"][0] if config.exists() and "architectures" in read_json(config) else None,
            modules=["Transformer" if type(m).__name__ == "ReferenceTransformer" else type(m).__name__ for m in loaded],
            dimension=loaded.get_embedding_dimension(), max_seq_length=None if length == float("inf") else length,
            prompts=loaded.prompts, default_prompt_name=loaded.default_prompt_name,
            similarity_fn_name=str(loaded.similarity_fn_name),
        )  # fmt: skip
    r.sections["models"].append(entry)
    if model.get("cross"):
        crossing(r, name)
    elif not model.get("router"):
        embedding(r, name, log)
    sensitivity(r, name, log)


def crossing(r, name):
    model = r.models[name]
    pairs = PAIRS if model["base"] is None else FEW_PAIRS
    if model.get("blank"):  # a tokenizer without special tokens gives no token for these, on which the library fails
        for pair in model["blank"]:
            r.error(f"{name}-no-token", name, "predict", "no token at all", pairs=[pair])
        pairs = [pair for pair in pairs if pair not in model["blank"]]
    r.predict("default", name, pairs)
    if model["base"] is None:
        r.predict("logits", name, FEW_PAIRS, activation_fn="torch.nn.modules.linear.Identity")
    if model["base"] is None or model.get("chat"):
        r.tokens(name, pairs, plain=not model.get("chat"))


def embedding(r, name, log):
    model, loaded = r.models[name], r.load(name)
    if model["base"] is None or model.get("chat"):
        r.tokens(name, TOKENS, plain=not model.get("chat"))
    r.encode("core", name, CORE if model["base"] is None else FEW)
    if model["base"] is None and model["family"] != "static":
        orders = loaded.encode([TEXTS[i] for i in ORDERS], batch_size=1, show_progress_bar=False)
        moved = min(np.abs(orders[0] - orders[1]).max(), np.abs(orders[0] - orders[2]).max())
        log.append((float(moved), 1e-3, name, "order"))
    for key, prompt in loaded.prompts.items():
        if prompt and model["base"] is None:
            r.encode(f"prompt-{key}", name, FEW, prompt_name=key)


def ports(r):
    """arch_reference.py against transformers' ports of the same families."""
    from transformers import GteModel, NomicBertModel

    checks = [
        ("gte-new", GteModel, "gte"),
        ("gte-prefix", GteModel, "gte"),
        ("nomic-v1.5", NomicBertModel, "nomic_bert"),
    ]
    for name, kind, model_type in checks:
        if name not in r.models:
            continue
        with tempfile.TemporaryDirectory(dir=r.scratch) as copy:
            shutil.copytree(r.folder(name), copy, dirs_exist_ok=True)
            config = read_json(Path(copy) / "config.json")
            if model_type == "gte":
                change = {"model_type": "gte", "rope_scaling": ..., "auto_map": ...}
                if config["rope_scaling"]:  # the port has no such scaling: the same frequencies by another base
                    factor, width = (
                        config["rope_scaling"]["factor"],
                        config["hidden_size"] // config["num_attention_heads"],
                    )
                    exponents = [2 * i / width for i in range(width // 2)]
                    right = [(config["rope_theta"] * factor) ** -e / factor ** (2 / width) for e in exponents]
            else:
                change = {
                    "hidden_size": config["n_embd"], "num_hidden_layers": config["n_layer"], "num_attention_heads": config["n_head"],
                    "intermediate_size": config["n_inner"], "hidden_act": "silu", "layer_norm_eps": config["layer_norm_epsilon"], "auto_map": ...,
                }  # fmt: skip
            edit_json(Path(copy) / "config.json", **change)
            port = kind.from_pretrained(copy, attn_implementation="eager", dtype=torch.float32).eval()
            if model_type == "gte" and config["rope_scaling"]:
                port.rotary_emb.inv_freq = torch.tensor(right)
            module = r.load(name)[0]
            with torch.inference_mode():
                for i in PROBE:
                    ids, types = module.ids(TEXTS[i])
                    mine = module.model(ids, types)
                    theirs = port(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).last_hidden_state[0]
                    assert torch.allclose(mine, theirs, atol=5e-6), (name, i, (mine - theirs).abs().max())


def more(r):
    """Cases of one model only."""
    for name in ("modernbert-mean", "qwen3", "gemma3", "t5-relu", "nomic-v2-moe"):
        if name in r.models:
            r.encode("tokens", name, FEW[:6], output_value="token_embeddings")
    for name in r.models:
        for adapter in r.models[name].get("adapters", ()):
            r.encode(f"adapter-{adapter}", name, FEW, adapter=adapter)
    if "qwen3" in r.models:
        r.encode("query", "qwen3", FEW, method="encode_query")
        r.encode("document", "qwen3", FEW, method="encode_document")
        r.encode("truncated", "qwen3", FEW, truncate_dim=10, normalize=True)
        r.encode("int8", "qwen3", CORE, precision="int8")
    for name in r.models:
        if r.models[name].get("router"):
            for method in ("encode_query", "encode_document", "encode"):
                if name == "asym" and method == "encode_document":  # its route is called "doc"
                    r.error("asym-document", name, method, "no such route", texts=FEW[:1])
                    continue
                r.encode(method, name, FEW, method=method)
            for task in r.models[name]["router"]:
                r.encode(f"task-{task}", name, FEW, task=task)
            r.error(f"{name}-task", name, "encode", "no such route", texts=FEW[:1], task="nonsense")
    # A template's end survives truncation; a prompt becomes the system's message.
    r.predict("length-110", "qwen3-reranker", FEW_PAIRS, max_length=110)
    r.predict("length-60", "qwen2-reranker", FEW_PAIRS, max_length=60)
    r.predict("prompt", "qwen3-reranker", FEW_PAIRS, prompt="Which page helps?")
    r.predict("prompt-web", "qwen3-reranker", FEW_PAIRS, prompt_name="web")
    r.predict("length-40", "qwen3-reranker-bare", FEW_PAIRS, max_length=40)
    r.predict("length-30", "deberta-nli", FEW_PAIRS, max_length=30)
    r.predict("softmax", "deberta-nli", FEW_PAIRS, apply_softmax=True)
    r.predict("prompt", "gte-reranker", FEW_PAIRS, prompt="what is: ")
    if "static" in r.models:
        r.encode("prompt", "static", FEW, prompt="the sea ")


def record_architectures(root, models, bases):
    warnings.simplefilter("ignore")
    log = []
    with tempfile.TemporaryDirectory() as scratch:
        recorder = ArchRecorder(root, models, bases, Path(scratch))
        for name in models:
            facts(recorder, name, log)
        ports(recorder)
        more(recorder)
    weak = [entry for entry in log if entry[0] < entry[1]]
    assert not weak, "\n".join(map(str, weak))
    return recorder, log
