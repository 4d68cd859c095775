"""Records what the reference library's MultiVectorEncoder returns: sections of multi_vector_encoder/cases.json and tensors."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling, MultiVectorMask

from build import write_json
from cases import Recorder
from sparse_cases import short

TEXTS = [
    "Old cat (he), read.", "what is rain?", "", "?. (,) .", "She wrote a song for the cat, and he read it in the garden.",
    "[MASK] [unused0] the [q] sun", "Café 中 🙂½", "cat",
]  # fmt: skip
GAP = 1e-4  # distances as near as that could merge in another order
POOLING = {"pool_factor": 2, "num_protected_tokens": 1, "normalize_embeddings": False}
# Of each model: queries, how many vectors each has, documents, and how many these have.
PAIRS = {
    "bert": ([2, 4], [10, 10], [3, 4], [7, 13]),  # of a longer query and document the ends are lost
    "bert-attend": ([7], [10], [], []),
    "bert-min": ([2, 4], [8, 12], [], []),
    "bert-plain": ([4], [9], [3], [11]),
    "bert-masks": ([1], [9], [0, 3], [2, 0]),
    "bert-pooled": ([7], [10], [4, 7], [7, 3]),
    "bert-pooled-old": ([], [], [0], [7]),
    "converted": ([7], [7], [3], [8]),
    "stanford": ([1], [9], [5], [8]),
    "stanford-bare": ([7], [32], [], []),
    "stanford-other": ([1], [9], [3], [9]),
    "pylate": ([5], [9], [5], [12]),  # "[q] " is not the token "[Q] "
    "pylate-unused": ([7], [9], [3], [7]),
    "pylate-plain": ([4], [9], [3], [3]),
    "pylate-old": ([7], [9], [3], [3]),
    "modernbert": ([7], [10], [3], [11]),
    "modernbert-long": ([7, 4], [14, 14], [4], [20]),
    "xlm-roberta": ([7], [10], [1], [9]),
}


def open_model(path):
    model = MultiVectorEncoder(str(path), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
    return model.eval().float()


class MultiVectorRecorder(Recorder):
    def __init__(self, root, bases, scratch):
        super().__init__(root, {name: base for name, base in bases.items() if base}, scratch)
        self.sections = {name: [] for name in ("models", "encode", "similarity", "empty", "pooling", "errors")}

    def load(self, name):
        if name not in self.loaded:
            self.loaded = {name: open_model(self.folder(name))}  # one at a time
        return self.loaded[name]

    def run(self, model, texts, method, token_pooling=None, **options):
        options["token_pooling"] = token_pooling and HierarchicalTokenPooling(**token_pooling)
        return [getattr(self.load(model), method)([TEXTS[i]], batch_size=1, **options)[0] for i in texts]

    def vectors(self, section, case, rows):
        case["counts"], values = [len(row) for row in rows], torch.cat(rows)
        assert values.dtype == torch.float32 and values.isfinite().all(), case
        stored = self.put(case["name"], values)
        self.sections[section].append({**case, **({"expected": stored} if stored != case["name"] else {})})

    def encode(self, label, model, method, texts, counts, **options):
        case = {"name": f"{model}/{label}", "model": model, "method": method, "texts": texts}
        case.update({"options": options} if options else {})
        self.vectors("encode", case, self.run(model, texts, method, **options))
        assert case["counts"] == counts, case


def facts(r, bases):
    known = {}
    for name, base in bases.items():
        encoder = r.load(name)
        ids = next(module for module in encoder if isinstance(module, MultiVectorMask))._skiplist_ids
        known[name] = {
            "modules": [type(module).__name__ for module in encoder],
            "dimension": encoder.get_embedding_dimension(),
            "max_seq_length": encoder.max_seq_length,
            **{key: getattr(encoder[0], key) for key in ("query_length", "document_length", "query_expansion")},
            "skiplist": [] if ids is None else sorted(ids.tolist()),
            **{key: getattr(encoder, key) for key in ("prompts", "default_prompt_name", "similarity_fn_name")},
        }
        new = {key: value for key, value in known[name].items() if known.get(base, {}).get(key, ...) != value}
        r.sections["models"].append({"name": name, "base": base, **new})
        first = encoder.tokenizer.tokenize(encoder.prompts["query"] + "cat")[0]
        assert (first in ("[unused0]", "[Q] ")) == name.startswith(("pylate", "stanford")), (name, first)


def encoding(r):
    for model, (queries, many, documents, counts) in PAIRS.items():
        if queries:
            r.encode("q", model, "encode_query", queries, many)
        if documents:
            r.encode("d", model, "encode_document", documents, counts)
    r.encode("encode", "bert", "encode", [5], [16])  # no task: a document, but as long as it is
    r.encode("prompt", "bert", "encode_document", [6], [11], prompt="find ")
    r.encode("pooled", "bert", "encode_document", [4], [7], token_pooling=POOLING)
    r.encode("pooled-query", "bert", "encode_query", [2, 4], [10, 10], token_pooling=POOLING)  # as they were
    r.encode("more", "bert-pooled-old", "encode", [7], [2], token_pooling=POOLING, normalize_embeddings=True)  # pooled twice
    real = r.load("modernbert").preprocess(["cat"], prompt="[Q] ", task="query")["attention_mask"].sum()
    assert 6 <= real < 10  # every place has one that is attended to within its 4 neighbours
    attended, skipped = r.run("bert-attend", [7], "encode_query")[0], r.run("bert", [7], "encode_query")[0]
    assert (attended - skipped).abs().max() > 0.01


def scores(r):
    lists = lambda values: [short(value) if value.ndim == 0 else lists(value) for value in values]  # noqa: E731

    def put(section, model, function, a, b, **case):
        encoder = r.load(model)
        encoder.similarity_fn_name = function
        case = {"name": f"{model}/{function}", "model": model, "function": function, **case}
        matrix, pairwise = encoder.similarity(a, b), encoder.similarity_pairwise(a, b[:2])
        r.sections[section].append({**case, "matrix": lists(matrix), "pairwise": lists(pairwise)})

    for model, function, queries, documents in (
        ("bert", "maxsim", [1, 2], [0, 4]), ("bert-plain", "meanmaxsim", [4, 7], [3, 7]),
        ("bert-masks", "meanmaxsim", [1, 7], [0, 3]),
    ):  # fmt: skip
        a, b = r.run(model, queries, "encode_query"), r.run(model, documents, "encode_document")
        put("similarity", model, function, a, b, queries=queries, documents=documents)
    queries, documents = [[[1, 0], [0.5, 0.5]], []], [[[0.5, -1]], [], [[-1, 0], [-0.5, 0.25]]]
    a, b = ([torch.tensor(rows).reshape(-1, 2).float() for rows in side] for side in (queries, documents))
    for function in ("maxsim", "meanmaxsim"):
        put("empty", "bert", function, a, b, queries=queries, documents=documents)


def certain(pooling, rows):
    """Asserts that clusters and their order stay when distances change by more than float32 could change them."""
    rows, random = rows[pooling.num_protected_tokens :], np.random.default_rng(0)
    if len(rows) < 2 or pooling.pool_factor == 1:
        return
    distances = (1 - rows @ rows.T).numpy()[np.triu_indices(len(rows), 1)]
    clusters = max(int(len(rows) // pooling.pool_factor), 1)
    assert np.diff(linkage(distances, "ward")[:, 2]).min(initial=1) > GAP
    noisy = [distances + random.uniform(-GAP, GAP, len(distances)) * (i > 0) for i in range(100)]
    assert len({tuple(fcluster(linkage(each, "ward"), clusters, "maxclust")) for each in noisy}) == 1


def pooling(r):
    for factor, protected, normalize in ((1.0, 0, 0), (1.5, 0, 1), (2, 1, 0), (3, 3, 1), (100, 1, 0), (100, 20, 0)):
        texts = [3, 4] if factor == 1 or protected == 20 else [4]
        pool = {"pool_factor": factor, "num_protected_tokens": protected, "normalize_embeddings": normalize == 1}
        case = {"name": f"pooling/{factor}/{protected}", "model": "bert", "texts": texts, **pool}
        r.vectors("pooling", case, HierarchicalTokenPooling(**pool).pool(r.run("bert", texts, "encode_document")))


def refusals(r):
    fixed, settings = {"strategy": "fixed", "length": 9}, "sentence_bert_config"
    for name, key, value in (
        ("length", settings, {"query_length": 8, "query_expansion": fixed}),
        ("token", settings, {"query_expansion": {**fixed, "token": "nonsense"}}),
        ("strategy", settings, {"query_expansion": {**fixed, "strategy": "pad"}}),
        ("pool-factor", "options", {"token_pooling": {"pool_factor": 0.5}}),
    ):
        try:
            if key == "options":
                r.run("bert", [7], "encode", **value)
            folder = shutil.copytree(r.folder("bert"), r.scratch / name)
            write_json(folder / f"{key}.json", value)
            open_model(folder)
        except Exception as error:
            case = {"method": "load"} if key == settings else {"method": "encode", "texts": [7]}
            case = {"name": name, "model": "bert", **case, key: value, "reference": type(error).__name__}
            r.sections["errors"].append({**case, "message": str(error).split(". ")[0]})
    assert len(r.sections["errors"]) == 4


def record_multi_vector_encoders(root, bases):
    pool_one = HierarchicalTokenPooling.pool_one
    HierarchicalTokenPooling.pool_one = lambda pooling, rows: certain(pooling, rows) or pool_one(pooling, rows)
    with tempfile.TemporaryDirectory() as scratch:
        recorder = MultiVectorRecorder(root, bases, Path(scratch))
        facts(recorder, bases)
        for section in (encoding, scores, pooling, refusals):
            section(recorder)
    return recorder
