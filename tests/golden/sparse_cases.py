"""Records what the reference library's SparseEncoder returns: sections of sparse_encoder/cases.json and their tensors."""

import contextlib
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder, SparseStaticEmbedding, SpladePooling

from cases import Recorder

TEXTS = [
    "The old man read one small book in the garden.",
    "what is the price of good rain?",
    "",
    "cat cat the cat, dog CAT the dog cat",
    "!?. (cat): -- ,.",
    "She wrote a song for the teacher and he sings it on the warm river at night, in the red market and to his student",
    "中文 🙂 zq☃ the sea ½",
    "[MASK] of [SEP] the [PAD] sun [UNK]",
    "red",
    "find: two texts",
]
ALL, FEW = list(range(len(TEXTS))), [0, 2, 5]
GAP = 1e-4  # logits as near to zero as that could turn a dimension on or off


def short(value):
    """A float32 as briefly as JSON can name it."""
    return float(str(np.float32(value)))


class SparseRecorder(Recorder):
    def __init__(self, root, bases, scratch):
        super().__init__(root, {name: base for name, base in bases.items() if base}, scratch)
        names = ("models", "encode", "similarity", "decode", "sparsity", "intersection", "errors")
        self.sections = {name: [] for name in names}
        self.near = {}  # of each model: the smallest margin, the share of active dimensions, the largest value

    def load(self, name):
        """Loads a model as float32 on the CPU, from its own folder (idf.json is looked for in the working directory)."""
        if name not in self.loaded:
            path = str(self.folder(name).resolve())
            with contextlib.chdir(path):
                model = SparseEncoder(path, device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
            model = model.eval().float()  # modules after the transformer are F16 until here
            for module in model.modules():
                if isinstance(module, SpladePooling):
                    module.register_forward_pre_hook(lambda _, inputs, name=name: self.logits(name, inputs[0]))
                if isinstance(module, SparseAutoEncoder):
                    module.register_forward_pre_hook(lambda coder, inputs, name=name: self.latents(name, coder, inputs[0]))
            self.loaded = {name: model}  # one at a time
        return self.loaded[name]

    def logits(self, name, features):
        best = features["token_embeddings"].amax(dim=1)
        self.note(name, best.abs().min().item(), (best > 0).float().mean().item(), best.max().item())

    def latents(self, name, coder, features):
        values = coder.encode_pre_act(coder.prepare(features["sentence_embedding"])[0])[0].sort(descending=True).values
        margins = [(values[k - 1] - values[k]).item() for k in (3, coder.k, 50)]
        kept = values[: coder.k]
        self.note(name, min(*margins, values.abs().min().item()), (kept > 0).float().mean().item(), kept.max().item())

    def note(self, name, margin, share=None, largest=0.0):
        self.near.setdefault(name, []).append((margin, share, largest))

    def run(self, model, texts, method="encode", sparse=False, **options):
        call = getattr(self.load(model), method)
        rows = [call([TEXTS[i]], batch_size=1, convert_to_sparse_tensor=sparse, **options) for i in texts]
        return torch.cat(rows)

    def encode(self, label, model, texts=FEW, method="encode", **options):
        name = f"encode/{model}/{label}"
        values = self.run(model, texts, method, **options)
        assert values.dtype == torch.float32 and torch.isfinite(values).all() and (values >= 0).all(), name
        assert torch.equal(values, self.run(model, texts, method, sparse=True, **options).to_dense()), name
        limit = options.get("max_active_dims", self.load(model).max_active_dims)
        if limit is not None and limit < values.shape[1] and not isinstance(self.load(model)[-1], SparseAutoEncoder):
            whole = self.run(model, texts, method, **{**options, "max_active_dims": values.shape[1]}).sort(descending=True)
            for row in whole.values:
                self.note(model, (row[limit - 1] - row[limit]).item() if row[limit - 1] > 0 else 1.0)
        case = {"name": name, "model": model, "method": method, "texts": texts, "options": options}
        self.sections["encode"].append({**case, "expected": self.put(name, values)})
        return values

    def error(self, label, model, method, reason, texts=(0,), **options):
        try:
            self.run(model, texts, method, **options)
        except Exception as error:
            case = {"name": f"errors/{label}", "model": model, "method": method, "texts": list(texts), "options": options}
            message = str(error).splitlines()[0]
            self.sections["errors"].append({**case, "reason": reason, "reference": type(error).__name__, "message": message})
            return
        raise AssertionError(f"{label}: expected an error")


def facts(r):
    """What the loaded models say of themselves."""
    for name in sorted(path.name for path in (r.root / "models").iterdir()):
        encoder = r.load(name)
        r.run(name, [0])  # until then, a pooling that has not stored it does not know the dimension
        r.sections["models"].append(
            {
                "name": name,
                "base": r.bases.get(name),
                "modules": [type(module).__name__ for module in encoder],
                "dimension": encoder.get_embedding_dimension(),
                "max_seq_length": encoder.max_seq_length,
                "prompts": encoder.prompts,
                "default_prompt_name": encoder.default_prompt_name,
                "similarity_fn_name": str(encoder.similarity_fn_name),
                "max_active_dims": encoder.max_active_dims,
            }
        )


def encoding(r):
    r.encode("all", "bert", ALL)
    r.encode("query", "bert", [0, 2, 5, 6], "encode_query")
    r.encode("document", "bert", ALL, "encode_document")
    r.encode("max-7", "bert", FEW, max_active_dims=7)
    r.encode("max-7-query", "bert", [0], "encode_query", max_active_dims=7)
    r.encode("max-1000", "bert", ALL, max_active_dims=1000)
    r.encode("prompt", "bert", [0], prompt="the cat: ")
    r.encode("prompt-name", "bert", [0, 2, 5, 6], prompt_name="query")
    for name in ("bert-bare", "bert-old"):
        r.encode("all", name, ALL)
    r.encode("query", "bert-bare", ALL, "encode_query")
    for name in ("bert-sum", "bert-log1p", "bert-sum-log1p"):
        r.encode("few", name, [0, 5])
    r.encode("few", "bert-limit", [0, 5])
    r.encode("max-9", "bert-limit", [5], max_active_dims=9)  # the argument wins, upwards too
    for name in ("bert-untied", "distilbert", "xlm-roberta", "roberta", "camembert", "modernbert", "mpnet", "electra", "albert"):
        r.encode("few", name)
    for name in ("router", "router-idf"):
        r.encode("query", name, [0, 3, 5], "encode_query")  # a token counts once; no special tokens
        r.encode("document", name, FEW, "encode_document")
        r.encode("default", name, FEW)  # the route of documents
        r.encode("query-no-prompt", name, [2, 7], "encode_query", prompt="")  # without a token, nothing is active
        r.encode("query-max-3", name, [0], "encode_query", max_active_dims=3)
    for name in ("csr", "csr-normalized"):
        r.encode("some", name)
        r.encode("max-3", name, [5], max_active_dims=3)
        r.encode("max-50", name, [5], max_active_dims=50)  # it keeps 50, and relu drops those below zero


def compute(r):
    """What is computed from embeddings."""
    encoder, queries, documents = r.load("bert"), [0, 2, 5, 6], [1, 3, 5, 8]
    a, b = r.run("bert", queries, "encode_query", sparse=True), r.run("bert", documents, "encode_document", sparse=True)
    for function in ("dot", "cosine", "euclidean", "manhattan"):
        encoder.similarity_fn_name = function
        name = f"similarity/{function}"
        matrix, pairwise = encoder.similarity(a, b), encoder.similarity_pairwise(a, b)
        dense = encoder.similarity(a.to_dense(), b.to_dense())
        assert torch.allclose(matrix, dense, atol=1e-5), (name, (matrix - dense).abs().max())
        assert torch.allclose(pairwise.to_dense(), matrix.diagonal(), atol=1e-5), name
        case = {"name": name, "model": "bert", "function": function, "queries": queries, "documents": documents}
        case.update(matrix=r.put(name, matrix), pairwise=r.put(f"{name}.pairwise", pairwise.to_dense()))
        r.sections["similarity"].append(case)
    encoder.similarity_fn_name = "dot"

    for model, method, texts, top_k in (
        ("bert", "encode", FEW, 5), ("bert", "encode", [8], None), ("bert", "encode", [8], 1000),
        ("xlm-roberta", "encode", [0], 5), ("router", "encode_query", [3], None), ("csr", "encode", [0], None),
    ):  # fmt: skip
        values = r.run(model, texts, method, sparse=True)
        found = r.load(model).decode(values, top_k=top_k)
        for row in found:
            weights = [weight for _, weight in row]
            r.note(model, min(np.diff(weights[::-1]), default=1.0))
        for row, kept in zip(values.to_dense().sort(descending=True).values, found):
            if top_k and top_k < len(row) and row[top_k - 1] > 0:
                r.note(model, (row[top_k - 1] - row[top_k]).item())
        expected = [[[token, short(weight)] for token, weight in row] for row in found]
        name = f"decode/{model}/{method}/{texts[0]}/{top_k}"
        case = {"name": name, "model": model, "method": method, "texts": texts, "top_k": top_k}
        r.sections["decode"].append({**case, "expected": expected})

    for model, method, texts in (("bert", "encode", FEW), ("bert", "encode", [8]), ("router", "encode_query", [0, 3]), ("csr", "encode", [0, 5])):
        stats = r.load(model).sparsity(r.run(model, texts, method, sparse=True))
        case = {"name": f"sparsity/{model}/{len(texts)}", "model": model, "method": method, "texts": texts}
        r.sections["sparsity"].append({**case, "expected": stats})

    values = r.run("bert", FEW, sparse=True)
    shared = r.load("bert").intersection(values[0], values)
    case = {"name": "intersection/bert", "model": "bert", "texts": FEW}  # of the first with each
    r.sections["intersection"].append({**case, "expected": r.put("intersection/bert", shared.to_dense())})


def refusals(r):
    r.error("max-0", "bert", "encode", "nothing would be left", max_active_dims=0)
    r.error("prompt-name", "bert", "encode", "unknown prompt name", prompt_name="nonsense")
    r.error("router-task", "router", "encode", "no such route", task="nonsense")
    r.error("csr-max-65", "csr", "encode", "more than there are dimensions", max_active_dims=65)
    path = str(r.folder("router-idf"))
    with contextlib.chdir(r.scratch):
        try:
            SparseEncoder(path, device="cpu", local_files_only=True)
        except Exception as error:
            case = {"name": "errors/router-idf", "model": "router-idf", "method": "load", "texts": [], "options": {}}
            reason = "the working directory is another, and there is no idf.json"
            r.sections["errors"].append({**case, "reason": reason, "reference": type(error).__name__, "message": str(error)})


def record_sparse_encoders(root, bases):
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        recorder = SparseRecorder(root, bases, Path(scratch))
        for section in (facts, encoding, compute, refusals):
            section(recorder)
    return recorder
