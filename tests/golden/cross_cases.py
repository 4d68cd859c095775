"""Records what the reference library's CrossEncoder returns: the sections of cross_encoder/cases.json and their tensors."""

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.util import fullname, import_from_string
from tokenizers import Tokenizer

from cases import Recorder
from cross_models import IDENTITY, SIGMOID, TANH
from texts import AWKWARD, NORMAL

TEXTS = NORMAL + AWKWARD + [
    "what is the price of bread?",
    "Bread costs two in the market today, and good bread costs more.",
    "the old man and the sea and the red dog near the small river",
    "ab",
    "<s> one </s> two <pad> three <mask> four <unk>",
    "<pad><pad> the cat",
    "The <mask>cat and a  <mask> dog</s>",
    "x" * 30,
    "a tree and a chair " * 3,
]  # fmt: skip


def index(start):
    """The one text that begins so."""
    found = [i for i, text in enumerate(TEXTS) if text == start] or [i for i, text in enumerate(TEXTS) if start and text.startswith(start)]  # fmt: skip
    return found[0]


EMPTY, LONG, BLANK, QUESTION = TEXTS.index(""), index("the cat and the dog the"), TEXTS.index("   "), index("what is the price")
PRICE, BREAD, SEA, SNOW, SHORT = index("What is the price"), index("Bread costs"), index("the old man and the sea and"), index("Snow"), index("ab")
TREE, CHAIRS, YES, ONE, XS = index("In the garden"), index("a tree and a chair a"), index("yes"), index("a"), index("xxx")
DINNER, TICKET, SPECIAL, PADS = index("Please send"), index("She drove"), index("[CLS]"), index("<pad>")

PAIRS = [
    [QUESTION, BREAD], [BREAD, QUESTION], [QUESTION, SNOW], [PRICE, BREAD], [3, 10], [0, 1], [1, 0], [18, 13], [20, 20], [SEA, 20],
    [YES, ONE], [ONE, ONE], [SHORT, 23], [YES, LONG], [LONG, YES], [LONG, LONG], [LONG, SEA], [SEA, LONG], [QUESTION, DINNER],
    [DINNER, TICKET], [TICKET, 8], [TREE, TREE], [8, TREE], [CHAIRS, CHAIRS], [CHAIRS, 14], [XS, XS], [EMPTY, 1], [1, EMPTY],
    [EMPTY, EMPTY], [BLANK, 3], [EMPTY, LONG], [LONG, EMPTY], [29, 30], [31, 32], [33, 28], [32, 42], [index("no\u00a0break"), 43],
    [index("nul"), index("line")], [SPECIAL, 37], [1, SPECIAL], [index("<s>"), 1], [PADS, 20], [20, PADS], [index("The <mask>"), index("<s>")],
    [index("w" * 101), YES], [index("don't"), index("!?.")], [index("UPPER"), index("1234")],
]  # fmt: skip
FEW = [PAIRS[i] for i in (0, 1, 5, 8, 10, 13, 14, 15, 18, 21, 26, 27, 28, 33)]
FIVE = [PAIRS[i] for i in (0, 3, 10, 13, 26)]
# Both short, one long, both long, one a little longer, empty sides, and awkward texts.
TOKENS = [PAIRS[i] for i in (0, 1, 4, 8, 10, 11, 12, 13, 14, 15, 16, 17, 21, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 38, 40, 41, 43)]


class Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        if record.name == "sentence_transformers.cross_encoder.model":
            self.messages.append(record.getMessage())


class CrossRecorder(Recorder):
    def __init__(self, root, bases, scratch):
        super().__init__(root, bases, scratch)
        self.sections = {"models": [], "predict": [], "tokens": [], "rank": [], "errors": []}
        self.warnings = Warnings()
        logging.getLogger("sentence_transformers").addHandler(self.warnings)

    def load(self, name, **options):
        """Loads a model as float32 on the CPU, whatever the stored type."""
        key = (name, *sorted(options.items()))
        if key not in self.loaded:
            arguments = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}, "local_files_only": True}
            model = CrossEncoder(str(self.folder(name)), **arguments, **options)
            assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
            self.loaded = {key: model.eval()}  # one at a time
        return self.loaded[key]

    def predict(self, label, model, pairs=PAIRS, **options):
        """One entry of the section "predict". max_length is given to the constructor; everything else to predict."""
        name = f"predict/{model}/{label}"
        arguments = dict(options)
        loading = {"max_length": arguments.pop("max_length")} if "max_length" in arguments else {}
        if "activation_fn" in arguments:
            arguments["activation_fn"] = import_from_string(arguments["activation_fn"])()
        values = self.load(model, **loading).predict(texts_of(pairs), batch_size=1, show_progress_bar=False, **arguments)
        assert np.isfinite(values).all(), name
        case = {"name": name, "model": model, "pairs": pairs, "options": options}
        self.sections["predict"].append({**case, "expected": self.put(name, values.astype(np.float32))})
        return values

    def tokens(self, label, model, max_length, pairs=TOKENS, prompt=""):
        name = f"tokens/{model}/{label}"
        ce = self.load(model)
        stored, ce.max_seq_length = ce.max_seq_length, max_length
        features = [ce.preprocess([pair], prompt=prompt or None) for pair in texts_of(pairs)]
        ce.max_seq_length = stored
        ids = [row["input_ids"][0].numpy() for row in features]
        # tokenizer.json alone, without transformers, says the same.
        alone = Tokenizer.from_file(str(self.folder(model) / "tokenizer.json"))
        alone.no_padding()
        alone.enable_truncation(max_length, strategy="longest_first", direction=ce.tokenizer.truncation_side)
        for (first, second), row in zip(texts_of(pairs), ids):
            assert alone.encode(prompt + first, second).ids == row.tolist(), (name, first, second)
        case = {"name": name, "model": model, "max_length": max_length, "prompt": prompt, "pairs": pairs}
        self.put_ragged(case, name, ids, np.int32)
        case["types"] = None  # this tokenizer makes none, and the model has none, or takes 0 everywhere
        if "token_type_ids" in features[0]:
            types = [row["token_type_ids"][0].numpy() for row in features]
            case["types"] = self.put(name + ".types", np.concatenate(types).astype(np.int32))
        self.sections["tokens"].append(case)

    def rank(self, label, model, query, documents, top_k=None, return_documents=False, **options):
        arguments = dict(options)
        if "activation_fn" in arguments:
            arguments["activation_fn"] = import_from_string(arguments["activation_fn"])()
        found = self.load(model).rank(
            TEXTS[query], [TEXTS[i] for i in documents], top_k=top_k, return_documents=return_documents, batch_size=1,
            show_progress_bar=False, **arguments,
        )  # fmt: skip
        case = {"name": f"rank/{model}/{label}", "model": model, "query": query, "documents": documents, "top_k": top_k}
        case.update(return_documents=return_documents, options=options, expected=found)
        self.sections["rank"].append(case)
        return found

    def error(self, label, model, method, reason, options=None, load=None, pairs=PAIRS[:2]):
        """What the library refuses. Method "load" stands for the constructor; `load` are its options."""
        entry = {"name": f"errors/{label}", "model": model, "method": method, "load": load or {}, "options": options or {}}
        try:
            self.loaded = {}
            ce = self.load(model, **(load or {}))
            if method == "predict":
                entry["pairs"] = pairs
                ce.predict(texts_of(pairs), **{"batch_size": 1, **(options or {})})
            elif method == "rank":
                entry.update(query=pairs[0][0], documents=[b for _, b in pairs])
                ce.rank(TEXTS[pairs[0][0]], [TEXTS[b] for _, b in pairs], **(options or {}))
        except Exception as error:
            message = str(error).strip().split("\n")[0].replace(str(self.scratch), "")
            entry.update(reason=reason, reference=type(error).__name__, message=message)
            self.sections["errors"].append(entry)
            return
        raise AssertionError(f"{label}: expected an error")


def texts_of(pairs):
    return [(TEXTS[a], TEXTS[b]) for a, b in pairs]


def head(model):
    """The layers of the classifier, and the function between them."""
    kind = model.config.model_type
    if kind == "bert":
        return model.bert.pooler.dense, torch.tanh, model.classifier
    if kind == "distilbert":
        return model.pre_classifier, torch.relu, model.classifier
    function = torch.nn.functional.gelu if kind == "electra" else torch.tanh
    return model.classifier.dense, function, model.classifier.out_proj


def wrong_scores(ce, first, second):
    """The scores of a pair under typical mistakes of an implementation, beside the right ones."""
    model, right = ce.model, ce.preprocess([(first, second)])
    ids, kind = right["input_ids"], model.config.model_type
    length, limit = ids.shape[1], ce.max_seq_length
    inputs = {key: right[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in right}
    dense, function, out = head(model)

    def scores(inputs, pool=lambda hidden: hidden[:, 0], function=function):
        return ce.activation_fn(out(function(dense(pool(model.base_model(**inputs).last_hidden_state)))))

    assert torch.allclose(scores(inputs), ce.activation_fn(model(**inputs).logits), atol=1e-6)
    found = {"right": scores(inputs)}
    if "token_type_ids" in inputs:
        found["types"] = scores({**inputs, "token_type_ids": torch.zeros_like(ids)})
    offset = kind in ("roberta", "xlm-roberta", "camembert")
    if offset or length < limit:
        found["positions"] = scores({**inputs, "position_ids": torch.arange(length)[None] + (0 if offset else 1)})
    if offset and (ids == 1).any():  # <pad> in the text: it has position 1 and does not count
        found["pads"] = scores({**inputs, "position_ids": torch.arange(length)[None] + 2})
    found["pooling"] = scores(inputs, pool=lambda hidden: hidden.mean(1))
    found["last"] = scores(inputs, pool=lambda hidden: hidden[:, -1])
    for name, other in (("tanh", torch.tanh), ("relu", torch.relu), ("gelu", torch.nn.functional.gelu), ("none", lambda x: x)):
        if other is not function:
            found["head-" + name] = scores(inputs, function=other)
    keep = [i for i in range(length) if i != 1]  # a token less
    found["truncation"] = scores({key: value[:, keep] for key, value in inputs.items()})
    return found


def sensitivity(ce, pairs=PAIRS):
    """Every mistake moves the scores far beyond any tolerance: of nine pairs in ten by over 1e-3, of half by over 1e-2,
    of one by over 0.03. (The worst that lexel may be off is 1e-5.)"""
    moves = {}
    with torch.inference_mode():
        for first, second in texts_of(pairs):
            found = wrong_scores(ce, first, second)
            right = found.pop("right")
            for name, wrong in found.items():
                moves.setdefault(name, []).append((wrong - right).abs().max().item())
    for name, sizes in moves.items():
        sizes = np.sort(sizes)
        share = (sizes > 1e-3).mean()
        assert share >= 0.9 and np.median(sizes) > 1e-2 and sizes[-1] > 0.03, (name, share, np.median(sizes), sizes[-1])
    return {name: (round(float(np.median(sizes)), 3), round(float(min(sizes)), 5)) for name, sizes in moves.items()}


def facts(r):
    """What a loader must find in every folder; the scores of every pair by every architecture, of some by the rest."""
    failing = {"activation-config-unknown", "activation-config-function", "labels-missing", "prompts-default-unknown"}
    for path in sorted((r.root / "models").iterdir()):
        base = r.bases.get(path.name)
        entry = {"name": path.name, "base": base}
        if path.name in failing:
            r.sections["models"].append({**entry, "loads": False})
            continue
        r.warnings.messages.clear()
        ce = r.load(path.name)
        entry.update(
            loads=True,
            architecture=type(ce.model).__name__,
            num_labels=ce.num_labels,
            labels=[ce.config.id2label[i] for i in range(ce.num_labels)],
            max_length=ce.max_seq_length,
            activation=fullname(ce.activation_fn),
            prompts=ce.prompts,
            default_prompt_name=ce.default_prompt_name,
            warnings=list(r.warnings.messages),
        )
        r.sections["models"].append(entry)
        if base is None:
            sensitivity(ce)
        if path.name == "length-none-xlm-roberta":
            continue
        r.predict("default", path.name, PAIRS if base is None else FIVE if "activation" in path.name else FEW)


def tokenizing(r):
    for model, specials in (("bert-1", 3), ("roberta-1", 4), ("xlm-roberta-1", 4), ("camembert-1", 4)):
        for room in (0, 1, 2, 9, 20):
            r.tokens(str(specials + room), model, specials + room)
        r.tokens("prompt", model, 21, FEW, prompt="what is: ")
    r.tokens("11", "distilbert-1", 11, FEW)
    r.tokens("11", "electra-1", 11, FEW)
    for length in (9, 10):
        r.tokens(str(length), "truncation-left", length, FEW)
    r.tokens("40", "truncation-stored", 40, FEW)


def predicting(r):
    for model in ("bert-1", "bert-3", "roberta-1", "roberta-3", "electra-3"):
        r.predict("logits", model, activation_fn=IDENTITY)
    for model in ("bert-3", "roberta-3", "distilbert-3", "electra-3"):
        r.predict("softmax", model, apply_softmax=True)
    r.predict("softmax-of-sigmoid", "bert-3", FEW, apply_softmax=True, activation_fn=SIGMOID)  # the activation comes first
    r.predict("sigmoid", "bert-3", FEW, activation_fn=SIGMOID)
    r.predict("softmax", "bert-1", FEW, apply_softmax=True)  # nothing to do with one label
    r.predict("tanh", "bert-1", FEW, activation_fn=TANH)
    for name in ("GELU", "Softplus", "Hardsigmoid", "LeakyReLU"):
        r.predict(name.lower(), "bert-1", FEW, activation_fn=f"torch.nn.{name}")
    r.predict("sigmoid", "activation-config-identity", FEW, activation_fn=SIGMOID)
    r.predict("none", "bert-1", [])
    r.predict("none", "bert-3", [])
    r.predict("one", "bert-1", [PAIRS[3]])
    r.predict("repeated", "bert-1", [PAIRS[3], PAIRS[0], PAIRS[3], PAIRS[3], PAIRS[0]])

    for model in ("bert-1", "roberta-1", "xlm-roberta-1", "camembert-1", "distilbert-1", "electra-1"):
        for length in (7, 12, 25):
            r.predict(f"length-{length}", model, FEW, max_length=length)
    r.predict("length-50", "bert-1", FEW, max_length=50)  # above the tokenizer's limit, below the positions' end
    r.predict("length-30", "saved-length", FEW, max_length=30)
    r.predict("length-30", "length-file", FEW, max_length=30)
    r.predict("length-44", "length-none-xlm-roberta", max_length=44)
    r.predict("left", "truncation-left")

    m = "saved-prompts"  # query, passage, empty; default: query
    r.predict("passage", m, FEW, prompt_name="passage")
    r.predict("empty", m, FEW, prompt_name="empty")
    r.predict("prompt", m, FEW, prompt="my own: ")
    r.predict("prompt-over-name", m, FEW, prompt="my own: ", prompt_name="passage")
    r.predict("prompt-over-unknown-name", m, FEW, prompt="my own: ", prompt_name="nonsense")
    r.predict("prompt-empty", m, FEW, prompt="")  # blocks the default
    r.predict("prompt-long", m, FEW, prompt="the old man and the sea " * 5)  # counts as part of the first text
    r.predict("prompt-logits", m, FEW, prompt="my own:")  # no space: plain concatenation
    r.predict("passage", "saved-prompts-3", FEW, prompt_name="passage")
    r.predict("prompt", "roberta-1", FEW, prompt="what is: ")
    r.predict("prompt", "camembert-1", FEW, prompt="what is: ")

    # The limit of the constructor and the one of a call are the same thing.
    ce = r.load("bert-1", max_length=12)
    once = ce.predict(texts_of(FEW), batch_size=1)
    again = r.load("bert-1").predict(texts_of(FEW), batch_size=1, processing_kwargs={"text": {"max_length": 12}})
    assert np.array_equal(once, again)


def ranking(r):
    documents = [BREAD, SNOW, 20, BREAD, LONG, EMPTY, TREE, SNOW, BREAD, SEA, 20, YES]
    for model in ("bert-1", "activation-config-identity", "roberta-1", "xlm-roberta-1", "distilbert-1", "saved-prompts"):
        found = r.rank("all", model, QUESTION, documents)
        order = [hit["corpus_id"] for hit in found]
        for twins in ([0, 3, 8], [1, 7], [2, 10]):  # equal documents: equal scores, in the documents' order
            assert [i for i in order if i in twins] == twins, model
            assert len({hit["score"] for hit in found if hit["corpus_id"] in twins}) == 1, model
        distinct = sorted({hit["score"] for hit in found})
        assert len(distinct) == 8 and min(np.diff(distinct)) > 1e-4, (model, np.diff(distinct))
    r.rank("top-5", "bert-1", QUESTION, documents, top_k=5)  # cuts through equal documents: after sorting
    r.rank("top-1", "bert-1", QUESTION, documents, top_k=1, return_documents=True)
    r.rank("top-0", "bert-1", QUESTION, documents, top_k=0)
    r.rank("top-99", "bert-1", QUESTION, documents, top_k=99)
    r.rank("documents", "bert-1", QUESTION, documents, return_documents=True)
    r.rank("none", "bert-1", QUESTION, [])
    r.rank("one", "bert-1", QUESTION, [EMPTY])
    r.rank("empty-query", "bert-1", EMPTY, documents)
    # The activation makes ties of its own: sorting is by the score behind it.
    many = [i for _, i in PAIRS[:32]]
    logits = [hit["score"] for hit in r.rank("logits", "bert-1", QUESTION, many, activation_fn=IDENTITY)]
    found = r.rank("relu", "bert-1", QUESTION, many, activation_fn="torch.nn.ReLU")
    zeros = [hit["corpus_id"] for hit in found if hit["score"] == 0]
    assert len(zeros) > 9 and zeros == sorted(zeros) and min(map(abs, logits)) > 1e-3, (len(zeros), min(map(abs, logits)))
    r.rank("prompt-name", "saved-prompts", QUESTION, documents, prompt_name="passage")
    r.rank("prompt", "saved-prompts", QUESTION, documents, prompt="")


def refusals(r):
    r.error("rank-3", "bert-3", "rank", "ranking needs one label")
    r.error("prompt-name", "saved-prompts", "predict", "unknown prompt name", {"prompt_name": "nonsense"})
    r.error("prompt-name-none-stored", "bert-1", "predict", "unknown prompt name: no query by default", {"prompt_name": "query"})
    r.error("prompt-name-rank", "saved-prompts", "rank", "unknown prompt name", {"prompt_name": "nonsense"})
    r.error("batch-size", "bert-1", "predict", "batch size must be positive", {"batch_size": 0})
    r.error("prompts-default", "prompts-default-unknown", "load", "the default prompt is not stored")
    r.error("activation-unknown", "activation-config-unknown", "load", "torch has no such class")
    r.error("activation-function", "activation-config-function", "load", "a function, not a class")
    r.error("labels-missing", "labels-missing", "load", "without id2label there are two labels; the stored head has one")
    long = [[LONG, LONG]]
    r.error("positions-table", "length-none-xlm-roberta", "predict", "the limit is beyond the position table", pairs=long)
    r.error("positions-argument", "bert-1", "predict", "the limit is beyond the position table", load={"max_length": 100}, pairs=long)


def record_cross_encoders(root, bases):
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        recorder = CrossRecorder(root, bases, Path(scratch))
        for section in (facts, tokenizing, predicting, ranking, refusals):
            section(recorder)
    return recorder
