"""Makes the golden data of lexel with the reference library (sentence-transformers, float32, CPU).

    python3.11 -m venv /tmp/golden && /tmp/golden/bin/pip install -r tests/golden/requirements.txt
    /tmp/golden/bin/python tests/golden/make.py

It rewrites, next to this file:

    texts.json            the input texts, a list of strings; cases name them by index
    models/<name>/        tiny random checkpoints, as sentence-transformers (or plain transformers) stores them; most are
                          overlays, only the files that differ from another model (overlay.py)
    cases.json            what to compute, by section
    expected.safetensors  what the reference library computed, tensors named by cases.json

Sections of cases.json (lists of objects; a missing key means "not given"):

    models       name; base: null, or the model that the folder is an overlay of: copy the base's folder, then this one
                 over it (bases may be overlays themselves, and may bring modules that modules.json does not name).
                 modules (class names), dimension, max_seq_length, prompts, default_prompt_name, similarity_fn_name,
                 truncate_dim: what the loaded model says of itself
    encode       name, model, method ("encode", "encode_query", "encode_document"), texts (indices into texts.json, or
                 "all"), options (prompt, prompt_name, normalize, truncate_dim, precision, output_value), expected (a
                 tensor [texts, dim]: F32, I8 or U8). With output_value "token_embeddings": expected is [tokens, dim]
                 of all texts one after the other, and `starts` (I32, texts + 1 entries) says where each begins.
                 No text at all: a tensor of shape [0].
    tokens       name, model, texts, prompt, expected (I32 token ids one after the other), starts (I32, texts + 1)
    errors       name, model, method, options (and one text) that the library refuses; reason; its exception
    similarity   name, function, a and b (tensors) or model and texts; matrix, pairwise (tensors). With a and b:
                 pairwise is of the first min(rows) rows. With a model: a = b = its embeddings of the texts, and
                 pairwise is of row i with row n-1-i.
    quantize     name, precision, data (tensor), rows (only the first so many), ranges or calibration (tensors);
                 expected (tensor), or error (the message)
    activations  name, class (as Dense stores it), short (the other accepted form), x, expected

Every text was encoded alone (batch_size=1), so no padding takes part. Models stored in half precision were widened to
float32 and computed in float32. Running this twice on one machine gives the same bytes; on another machine the last
bits of the floats may differ.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
sys.dont_write_bytecode = True  # leave nothing beside the data

import torch  # noqa: E402
import transformers  # noqa: E402

from build import write_golden  # noqa: E402
from cases import record_all  # noqa: E402
from models import build_all  # noqa: E402
from texts import all_texts  # noqa: E402


def main():
    root = Path(__file__).resolve().parent
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    (root / "texts.json").write_text(json.dumps(all_texts(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    bases = build_all(root / "models")
    recorder = record_all(root, bases)
    write_golden(root, recorder)


if __name__ == "__main__":
    main()
