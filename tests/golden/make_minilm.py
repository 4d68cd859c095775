"""Makes the golden data of the real model: all-MiniLM-L6-v2 over minilm/texts.txt and the quickstart.

    python tests/golden/make_minilm.py "$(scripts/get-model)"

(in the environment of requirements.txt; see make.py). texts.txt was written for this: 200 lines of English of 2 to 329
words, the longest four cut at the model's 256 tokens. Writes minilm/expected.safetensors:

    texts                   F32 [200, 384], a line of texts.txt each
    quickstart              F32 [3, 384]
    quickstart_similarity   F32 [3, 3]
    tokens, tokens.starts   I32 token ids of the 200 lines one after the other, and where each begins

Every text was encoded alone (batch_size=1), so no padding takes part.
"""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

QUICKSTART = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    folder = Path(__file__).resolve().parent / "minilm"
    texts = (folder / "texts.txt").read_text("utf-8").splitlines()
    model = SentenceTransformer(sys.argv[1], device="cpu", model_kwargs={"dtype": torch.float32})
    rows = [model.preprocess([text])["input_ids"][0].numpy().astype(np.int32) for text in texts]
    vectors = model.encode(texts, batch_size=1)
    quickstart = model.encode(QUICKSTART, batch_size=1)
    similarity = model.similarity(quickstart, quickstart).numpy()
    tensors = {
        "texts": vectors,
        "quickstart": quickstart,
        "quickstart_similarity": similarity,
        "tokens": np.concatenate(rows),
        "tokens.starts": np.cumsum([0] + [len(row) for row in rows]).astype(np.int32),
    }
    save_file(tensors, folder / "expected.safetensors")
    (folder / "expected.safetensors").chmod(0o644)
    lengths = sorted(len(row) for row in rows)
    print(f"{vectors.shape}, {lengths[0]} to {lengths[-1]} tokens, {lengths.count(256)} at the limit")
    print(similarity)
    in_batches = model.encode(texts)
    print(f"batches of 32 differ by at most {np.abs(in_batches - vectors).max():.1e}")


if __name__ == "__main__":
    main()
