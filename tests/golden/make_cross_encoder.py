"""Makes the golden data of lexel's cross-encoders with the reference library (CrossEncoder, float32, CPU).

    /tmp/golden/bin/python tests/golden/make_cross_encoder.py

It rewrites tests/golden/cross_encoder/:

    models/<name>/        tiny random checkpoints, as transformers and CrossEncoder.save_pretrained store them
    cases.json            what to compute, by section
    expected.safetensors  what the reference library computed, tensors named by cases.json

cases.json is an object: `texts`, a list of strings, and sections, lists of objects. A pair is [i, j], two indices into
`texts`. Sections:

    models   name; base: null, or the model that the folder is an overlay of: copy the base's folder, then this one over
             it (bases may be overlays themselves); loads: false where the library refuses the model (then see errors).
             What the loaded model says of itself: architecture, num_labels, labels, max_length, activation (class),
             prompts, default_prompt_name; warnings: what the library logged while it loaded the model.
    predict  name, model, pairs, options (a missing key means "not given": activation_fn, a class of torch; apply_softmax,
             prompt, prompt_name; max_length, of the constructor), expected (F32 [pairs], or [pairs, labels] for more
             than one label; without pairs: [0])
    tokens   name, model, max_length, prompt (before the first text), pairs, expected (I32 token ids one after the other),
             starts (I32, pairs + 1), types (I32 segment ids, as expected; null: this tokenizer makes none)
    rank     name, model, query and documents (indices into `texts`), top_k (or null), return_documents, options
             (activation_fn, prompt, prompt_name), expected (a list of {corpus_id, score, text?}, best first)
    errors   name, model, method ("load", "predict", "rank"), load (max_length of the constructor), options, pairs (or query
             and documents); reason; the library's exception (reference) and the first line of its message

Every pair was scored alone (batch_size=1), so no padding takes part. Models stored in half precision were widened to
float32 and computed in float32. The weights are such that a wrong segment id, position, pooling, head or truncation moves
the scores by far more than any tolerance; `sensitivity` in cross_cases.py asserts it for every architecture. Running this
twice on one machine gives the same bytes; on another machine the last bits of the floats may differ.
"""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.dont_write_bytecode = True  # leave nothing beside the data

import torch  # noqa: E402
import transformers  # noqa: E402

from build import write_golden  # noqa: E402
from cross_cases import TEXTS, record_cross_encoders  # noqa: E402
from cross_models import build_cross_encoders  # noqa: E402


def main():
    root = Path(__file__).resolve().parent / "cross_encoder"
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    bases = build_cross_encoders(root / "models")
    recorder = record_cross_encoders(root, bases)
    write_golden(root, recorder, texts=TEXTS)


if __name__ == "__main__":
    main()
