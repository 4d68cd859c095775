"""Writes tests/golden/minilm_tokens.json: the ids that Python's tokenizers gives for awkward texts and pairs.

    python tests/golden/make_tokens.py MODEL_FOLDER [MORE_TEXTS OUTPUT]

MODEL_FOLDER is all-MiniLM-L6-v2. Versions: tokenizers 0.23.3. With MORE_TEXTS (a text a line) the result goes to OUTPUT
instead, for a comparison that is too large to keep.
"""

import json
import sys

from tokenizers import Tokenizer

MAX_LENGTH = 256
TEXTS = [
    "", " ", "\n\t ", "a", "Hello, World!", "It's a UPPER lower MiXeD case.", "naïve café Zoë ﬁne ①②", "e\u0301 cafe\u0301",
    "👍", "👩‍👩‍👧‍👦 family 🏳️‍🌈", "nul\0in the\0middle", "\0", "tab\tnewline\r\nend", "中文字符 and 日本語テキスト 한국어",
    "[CLS] literal [SEP] special [MASK] tokens [PAD] [UNK]", "[cls] lower [sep]", "a[SEP]b", "##ing ##s", "\u200b\u200d\ufeff",
    "\u202eright to left עברית العربية", "supercalifragilisticexpialidocious", "x" * 99, "x" * 100, "x" * 101, "x" * 5000,
    "word " * 1000, "!?.,;:-_()[]{}<>|@#$%^&*+=~`'\"", "1234567890 3.14159 1e-12 $99.99", "\ud7ff\ue000\ufffd", "ß ẞ İ ı ǅ",
    " leading and trailing ", "don't can't won't", "http://example.com/path?query=1&x=%20", "a" * 256 + " " + "b " * 300,
    "\U0001f600" * 300, "\u0301\u0302", "Ａ Ｂ Ｃ fullwidth", "ⅷ ½ ㎏", "line one\nline two\n\nline four",
]
PAIR_TEXTS = ["", "short text", "word " * 120, "word " * 400, "[SEP]", "Other pair text with more words"]


def main():
    tokenizer = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH, strategy="longest_first")
    texts, output = TEXTS, "tests/golden/minilm_tokens.json"
    if len(sys.argv) > 2:
        with open(sys.argv[2], encoding="utf8") as lines:
            texts, output = lines.read().split("\n"), sys.argv[3]
    singles = [{"text": text, "ids": tokenizer.encode(text).ids} for text in texts]
    pairs = []
    for length in (4, 5, 6, 16, 17, 150):
        tokenizer.enable_truncation(length, strategy="longest_first")
        for i, first in enumerate(PAIR_TEXTS):
            for j, second in enumerate(PAIR_TEXTS):
                encoding = tokenizer.encode(first, second)
                second_segment = sum(encoding.type_ids)
                pairs.append([length, i, j, encoding.ids, second_segment])
    with open(output, "w", encoding="utf8") as file:
        file.write(json.dumps({"max_length": MAX_LENGTH, "texts": singles, "pair_texts": PAIR_TEXTS, "pairs": pairs}, separators=(",", ":")))


main()
