"""Makes the golden data of lexel's sparse encoders with the reference library (SparseEncoder, float32, CPU).

    /tmp/golden/bin/python tests/golden/make_sparse_encoder.py

It rewrites tests/golden/sparse_encoder/:

    models/<name>/        tiny random checkpoints, as SparseEncoder.save_pretrained stores them
    cases.json            what to compute, by section
    expected.safetensors  what the reference library computed, tensors named by cases.json

cases.json is an object: `texts`, a list of strings, and sections, lists of objects. Texts are named by index. Sections:

    models        name; base: null, or the model that the folder is an overlay of: copy the base's folder, then this one over
                  it (bases may be overlays themselves, and may bring modules that modules.json does not name). What the
                  loaded model says of itself: modules (class names), dimension, max_seq_length, prompts,
                  default_prompt_name, similarity_fn_name, max_active_dims
    encode        name, model, method ("encode", "encode_query", "encode_document"), texts, options (max_active_dims, prompt,
                  prompt_name), expected (F32 [texts, dimension], dense)
    similarity    name, model, function, queries (texts through encode_query), documents (through encode_document), matrix
                  (F32 [queries, documents]), pairwise (F32 [queries], of query i with document i)
    decode        name, model, method, texts, top_k (null: all), expected (for each text, [token, weight] by falling weight)
    sparsity      name, model, method, texts, expected (active_dims, sparsity_ratio: means over the texts)
    intersection  name, model, texts, expected (F32 [texts, dimension]: of the first text with each)
    errors        name, model, method ("load" or as above), options, texts; reason; the library's exception (reference) and the
                  first line of its message

Every text was encoded alone, so no padding takes part. Checkpoints are stored as F16; they were widened to float32 and
computed in float32. No largest logit of a dimension, and no two values between which a limit cuts, are within 1e-4: so which
dimensions are active is certain. Running this twice on one machine gives the same bytes; on another machine the last bits of
the floats may differ.
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
from sparse_cases import GAP, TEXTS, record_sparse_encoders  # noqa: E402
from sparse_models import build_sparse_encoders  # noqa: E402


def main():
    root = Path(__file__).resolve().parent / "sparse_encoder"
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    bases = build_sparse_encoders(root / "models")
    recorder = record_sparse_encoders(root, bases)
    write_golden(root, recorder, texts=TEXTS)
    for name, notes in recorder.near.items():
        shares = [share for _, share, _ in notes if share is not None] or [0]
        print(f"  {name}: margin {min(note[0] for note in notes):.5f}, active {min(shares):.0%} to {max(shares):.0%}, largest {max(note[2] for note in notes):.2f}")  # fmt: skip
    assert all(note[0] > GAP for notes in recorder.near.values() for note in notes)


if __name__ == "__main__":
    main()
