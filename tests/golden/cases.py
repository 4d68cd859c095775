"""Records what the reference library returns: the sections of cases.json and the tensors they name."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import fullname, quantize_embeddings
from sentence_transformers.util.similarity import SimilarityFunction
from torch import nn
from transformers import BertConfig, BertModel

from build import randomise, read_json
from models import ACTIVATIONS
from overlay import together
from texts import AWKWARD, NORMAL, all_texts

TEXTS = all_texts()
CORE = list(range(len(NORMAL) + len(AWKWARD)))  # every sentence and every awkward text, no filler
FEW = [0, 1, 3, 7, 8, 11, 14, 22, 24, 28, 33, 38, 40, 45]
DING = TEXTS.index("ding")


class Recorder:
    def __init__(self, root, bases, scratch):
        self.root = root
        self.bases = bases
        self.scratch = scratch
        self.tensors = {}
        self.names = {}
        self.sections = {"models": [], "encode": [], "tokens": [], "errors": [], "similarity": [], "quantize": [], "activations": []}  # fmt: skip
        self.loaded = {}

    def folder(self, name):
        return together(self.root / "models", self.bases, name, self.scratch)

    def load(self, name):
        """Loads a model as float32 on the CPU, whatever the stored type."""
        if name not in self.loaded:
            path = str(self.folder(name))
            model = SentenceTransformer(path, device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
            self.loaded = {name: model.eval().float()}  # one at a time
        return self.loaded[name]

    def put(self, name, value):
        if isinstance(value, torch.Tensor):
            value = value.numpy()
        assert name not in self.tensors, name
        value = np.ascontiguousarray(value)
        # Equal results (many models share a tokenizer, or a backbone) are stored once, under the first name.
        key = (value.dtype.str, value.shape, value.tobytes())
        name = self.names.setdefault(key, name)
        self.tensors[name] = value
        return name

    def put_ragged(self, case, name, rows, dtype):
        starts = np.cumsum([0] + [len(row) for row in rows]).astype(np.int32)
        case["expected"] = self.put(name, np.concatenate([np.asarray(row, dtype) for row in rows]))
        case["starts"] = self.put(name + ".starts", starts)

    def encode(self, label, model, texts=CORE, method="encode", **options):
        """One entry of the section "encode"; `options` are named as in lexel's format (normalize)."""
        name = f"encode/{model}/{label}"
        inputs = TEXTS if texts == "all" else [TEXTS[i] for i in texts]
        arguments = {"normalize_embeddings" if k == "normalize" else k: v for k, v in options.items()}
        values = getattr(self.load(model), method)(inputs, batch_size=1, show_progress_bar=False, **arguments)
        case = {"name": name, "model": model, "method": method, "texts": texts, "options": options}
        if options.get("output_value") == "token_embeddings":
            self.put_ragged(case, name, [row.numpy() for row in values], np.float32)
        else:
            case["expected"] = self.put(name, values if texts else np.zeros(0, np.float32))
        self.sections["encode"].append(case)

    def tokens(self, label, model, texts=CORE, prompt=""):
        name = f"tokens/{model}/{label}"
        st = self.load(model)
        rows = [st.preprocess([TEXTS[i]], prompt=prompt or None)["input_ids"][0].numpy() for i in texts]
        case = {"name": name, "model": model, "texts": texts, "prompt": prompt}
        self.put_ragged(case, name, rows, np.int32)
        self.sections["tokens"].append(case)

    def error(self, label, model, call, text, **options):
        """Arguments that the library refuses, and how."""
        try:
            getattr(self.load(model), call)(**{"inputs": [TEXTS[0]], **options})
        except Exception as error:
            entry = {"name": f"errors/{label}", "model": model, "method": call, "options": options}
            self.sections["errors"].append({**entry, "reason": text, "reference": type(error).__name__})
            return
        raise AssertionError(f"{label}: expected an error")


def facts(r):
    """What a loader must find in every folder."""
    for path in sorted((r.root / "models").iterdir()):
        st = r.load(path.name)
        modules = [type(module).__name__ for module in st]
        r.sections["models"].append(
            {
                "name": path.name,
                "base": r.bases.get(path.name),
                "modules": modules,
                "dimension": st.get_embedding_dimension(),
                "max_seq_length": st.max_seq_length,
                "prompts": st.prompts,
                "default_prompt_name": st.default_prompt_name,
                "similarity_fn_name": str(st.similarity_fn_name),
                "truncate_dim": st.truncate_dim,
            }
        )
        # The tokenizer without special tokens gives no token at all for blank texts, on which the library fails.
        texts = CORE
        if path.name == "noprompt-nospecial":
            texts = [i for i in CORE if len(st.preprocess([TEXTS[i]])["input_ids"][0])]
        r.tokens("core", path.name, texts)
        r.encode("core", path.name, texts, normalize=False)
        if path.name == "old-prefix":  # the renamed tensors really arrived
            config = BertConfig(**{k: v for k, v in read_json(r.folder(path.name) / "config.json").items() if k != "architectures"})
            expected = randomise(BertModel(config), 9).state_dict()
            for name, tensor in st[0].model.state_dict().items():
                assert torch.equal(tensor, expected[name]), name


def without_prompt(r):
    for model in ("noprompt", "noprompt-nospecial"):
        texts = [i for i in CORE if TEXTS[i].strip()] if model == "noprompt-nospecial" else CORE
        r.tokens("query", model, FEW[:4], prompt="what is: ")
        r.encode("query", model, texts, prompt_name="query")
        # "embed" + "ding" is one known word, "embed" alone is several pieces: the prompt counts more tokens than the
        # whole text has. Nothing is left to pool: cls takes position 0, max is minus infinity, the others are 0.
        r.tokens("embedding", model, [DING], prompt="embed")
        r.encode("nothing-left", model, [DING, 0, 2], prompt="embed")
        r.encode("document", model, FEW[:5], method="encode_document")
        # A prompt as long as the limit: with special tokens [SEP] stays, without them nothing does.
        r.encode("long", model, FEW[:4], prompt_name="long")
        if model == "noprompt":  # a blank prompt counts [CLS]; with no token at all the library fails
            r.encode("spaces", model, FEW[:4], prompt="  ")
        r.encode("empty", model, FEW[:4], prompt="")


def encode_options(r):
    m = "prompts"
    r.encode("default", m, FEW)  # default_prompt_name: classification
    r.encode("name", m, FEW, prompt_name="passage")
    r.encode("prompt", m, FEW, prompt="my own: ")
    r.encode("prompt-over-name", m, FEW, prompt="my own: ", prompt_name="query")
    r.encode("prompt-empty", m, FEW, prompt="")  # blocks the default
    r.encode("name-empty", m, FEW, prompt_name="document")  # always there, here empty
    r.encode("query", m, FEW, method="encode_query")
    r.encode("document", m, FEW, method="encode_document")  # only "passage" is stored: no prompt
    r.encode("query-prompt", m, FEW, method="encode_query", prompt="my own: ")
    r.encode("document-name", m, FEW, method="encode_document", prompt_name="passage")
    r.tokens("prompt", m, CORE, prompt="The red school ")
    r.encode("normalize", m, CORE, normalize=True)
    r.encode("truncate", m, FEW, truncate_dim=7)
    r.encode("truncate-normalize", m, FEW, truncate_dim=7, normalize=True)
    r.encode("truncate-1", m, FEW, truncate_dim=1, normalize=True)
    r.encode("truncate-more", m, FEW, truncate_dim=1000)
    for precision in ("float32", "int8", "uint8", "binary", "ubinary"):
        r.encode(f"{precision}-all", m, "all", prompt="", precision=precision)
        r.encode(f"{precision}-few", m, [0, 1, 3, 7, 9], prompt="", precision=precision)
    r.encode("uint8-truncate", m, "all", precision="uint8", truncate_dim=13, normalize=True)
    r.encode("ubinary-truncate", m, CORE, precision="ubinary", truncate_dim=13)
    r.encode("binary-truncate", m, CORE, precision="binary", truncate_dim=5)
    r.encode("binary-one", m, [4], precision="binary")
    r.encode("tokens", m, FEW, prompt="", output_value="token_embeddings")
    r.encode("tokens-prompt", m, FEW[:5], prompt_name="query", output_value="token_embeddings", normalize=True)
    r.encode("repeated", m, [3, 1, 3, 3, 1, 22, 22])
    r.encode("none", m, [])
    r.encode("none-int8", m, [], precision="int8")

    m = "truncated"  # truncate_dim 10 stored, Normalize in the model, prompt "document" stored
    r.encode("stored", m, FEW)
    r.encode("normalize", m, FEW, normalize=True)
    r.encode("more", m, FEW, truncate_dim=16)
    r.encode("less", m, FEW, truncate_dim=3)
    r.encode("query", m, FEW, method="encode_query")
    r.encode("document", m, FEW, method="encode_document")
    r.encode("ubinary", m, FEW, precision="ubinary")
    r.encode("tokens", m, FEW, output_value="token_embeddings")  # not truncated
    r.encode("tokens", "dense-tokens", FEW, output_value="token_embeddings")
    r.encode("tokens", "dense-tanh", FEW, output_value="token_embeddings")

    r.error("prompt-name", "prompts", "encode", "unknown prompt name", prompt_name="nonsense")
    r.error("prompt-name-query", "prompts", "encode_query", "unknown prompt name", prompt_name="nonsense")
    r.error("batch-size", "prompts", "encode", "batch size must be positive", batch_size=0)
    r.error("precision", "prompts", "encode", "unknown precision", precision="int4")
    r.error("int8-single", "prompts", "encode", "8-bit ranges from a single text", precision="int8")
    r.error("uint8-single", "prompts", "encode", "8-bit ranges from a single text", precision="uint8")


FUNCTIONS = ["cosine", "dot", "euclidean", "manhattan"]


def similarity(r):
    generator = torch.Generator().manual_seed(50)
    a = torch.randn(7, 12, generator=generator)
    b = torch.randn(5, 12, generator=generator) * 3
    a[2] = 0  # cosine with a zero vector is 0
    b[4] = 0
    b[1] = a[0]  # distance 0
    a[5] = a[0] * 1e-8  # a tiny norm, still above the floor of 1e-12
    a[6] = 1e-20  # below it
    big = torch.randn(40, 33, generator=generator)  # more than 25 rows: torch takes another way to the distance
    pairs = {"small": (a, b), "one": (a[:1], b[:1]), "big": (big, big.flip(0)), "same": (big[:10], big[:10])}
    for label, (left, right) in pairs.items():
        left_name, right_name = r.put(f"similarity/{label}/a", left), r.put(f"similarity/{label}/b", right)
        rows = min(len(left), len(right))
        for function in FUNCTIONS:
            name = f"similarity/{label}/{function}"
            entry = {"name": name, "function": function, "a": left_name, "b": right_name}
            matrix = SimilarityFunction.to_similarity_fn(function)(left, right)
            pairwise = SimilarityFunction.to_similarity_pairwise_fn(function)(left[:rows], right[:rows])
            entry["matrix"] = r.put(name + "/matrix", matrix)
            entry["pairwise"] = r.put(name + "/pairwise", pairwise)  # of the first min(rows) rows of both
            r.sections["similarity"].append(entry)
    for function in FUNCTIONS:  # the model's own function, over its own embeddings
        model = f"similarity-{function}"
        st = r.load(model)
        inputs = [TEXTS[i] for i in FEW]
        vectors = st.encode(inputs, batch_size=1)
        name = f"similarity/model/{function}"
        entry = {"name": name, "model": model, "texts": FEW, "function": function}
        entry["matrix"] = r.put(name + "/matrix", st.similarity(vectors, vectors))
        entry["pairwise"] = r.put(name + "/pairwise", st.similarity_pairwise(vectors, vectors[::-1].copy()))
        r.sections["similarity"].append(entry)  # pairwise: row i with row n-1-i


def quantisation(r):
    generator = torch.Generator().manual_seed(60)
    data = torch.randn(120, 13, generator=generator).numpy()
    data[:, 4] = 0.25  # a constant column: step 0 counts as 1
    data[3] = 0.0  # zero is not above zero: bit 0
    data[4] = -0.0
    calibration = (torch.randn(150, 13, generator=generator) * 0.5).numpy()  # narrower: values outside are clipped
    ranges = np.stack([np.linspace(-2, -0.5, 13), np.linspace(0.3, 3, 13)]).astype(np.float32)
    ranges[:, 7] = 0.5  # an empty range
    r.put("quantize/data", data)
    r.put("quantize/calibration", calibration)
    r.put("quantize/ranges", ranges)
    ways = {"own": {}, "calibration": {"calibration_embeddings": calibration}, "ranges": {"ranges": ranges}}
    for way, arguments in ways.items():
        for precision in ("int8", "uint8"):
            for rows in (120, 2, 1, 0):
                name = f"quantize/{way}/{precision}/{rows}"
                entry = {"name": name, "precision": precision, "data": "quantize/data", "rows": rows}
                if way != "own":
                    entry[way] = f"quantize/{way}"
                try:
                    entry["expected"] = r.put(name, quantize_embeddings(data[:rows], precision, **arguments))
                except ValueError as error:
                    entry["error"] = str(error)
                r.sections["quantize"].append(entry)
    for precision in ("float32", "binary", "ubinary"):
        for rows in (120, 1, 0):
            name = f"quantize/plain/{precision}/{rows}"
            value = quantize_embeddings(data[:rows], precision)
            entry = {"name": name, "precision": precision, "data": "quantize/data", "rows": rows}
            r.sections["quantize"].append({**entry, "expected": r.put(name, value)})


def activations(r):
    x = torch.cat([torch.linspace(-8, 8, 129), torch.tensor([0.0, -0.0, 0.5, -0.5, 1.0, 3.0, -3.0, 6.0, 20.5, -20.5, 90.0, -90.0, 1e-6, -1e-6, 1e-30])])  # fmt: skip
    r.put("activations/x", x)
    for name in ACTIVATIONS:
        module = getattr(nn, name)().eval()
        with torch.no_grad():
            value = module(x)
        entry = {"name": f"activations/{name}", "class": fullname(module), "short": f"torch.nn.{name}"}
        r.sections["activations"].append({**entry, "x": "activations/x", "expected": r.put(f"activations/{name}", value)})


def record_all(root, bases):
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        recorder = Recorder(root, bases, Path(scratch))
        for section in (facts, without_prompt, encode_options, similarity, quantisation, activations):
            section(recorder)
    return recorder
