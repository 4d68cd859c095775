"""The texts of the golden cases of all architectures; cases name them by index."""

from texts import AWKWARD, NORMAL, uncased_vocabulary


def _filler(count, seed):
    """Plain words in an order that repeats nothing for long."""
    words = [word for word in uncased_vocabulary() if len(word) > 2 and word.isalpha()]
    state, found = seed, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        found.append(words[(state >> 8) % len(words)])
    return found


def _swapped(words, i, j):
    words = list(words)
    words[i], words[j] = words[j], words[i]
    return " ".join(words)


# About 55, 90, 150 and 400 tokens, by tokenizer.
_MIDDLE, _LONG, _LONGER, _ENDLESS = _filler(20, 1), _filler(38, 2), _filler(62, 3), _filler(150, 4)

TEXTS = [
    NORMAL[0], NORMAL[1], NORMAL[3], NORMAL[7], NORMAL[8], NORMAL[9], NORMAL[11], NORMAL[15], NORMAL[19],
    "the cat ran after the small dog in the garden",
    "the dog ran after the small cat in the garden",
    "garden the in dog small the after ran cat the",
    " ".join(_MIDDLE), " ".join(_LONG), _swapped(_LONG, 3, 33), " ".join(_LONGER), " ".join(_ENDLESS),
    "the cat and the dog " * 14,
    "", "   ", "a", "7", "🙂 good 🙂 morning 👩‍🚀🚀", "École Über Straße, 中文 and 日本語", "line one\tand tab\nline two\r\nline three",
    "[CLS] [SEP] [MASK] [PAD] [UNK]", "<s> one </s> two <pad> three <mask> four <unk>", "<pad><pad> the cat <|endoftext|>",
    "<bos> a <eos> b <extra_id_0> <|im_end|>", "w" * 101 + " after", AWKWARD[24], AWKWARD[25],
    "what is the price of bread?", "Bread costs two in the market today, and good bread costs more.", "Snow is cold and the sun is warm.",
    "the old man and the sea", "yes", "the name of the river is long",
]  # fmt: skip


def index(start):
    found = [i for i, text in enumerate(TEXTS) if text == start] or [
        i for i, text in enumerate(TEXTS) if text.startswith(start)
    ]
    return found[0]


ORDERS = [9, 10, 11]  # the same words
MIDDLE, LONG, SWAPPED, LONGER, ENDLESS, REPEATED, EMPTY, BLANK = 12, 13, 14, 15, 16, 17, 18, 19
QUESTION, BREAD, SNOW, SEA, YES, RIVER = 32, 33, 34, 35, 36, 37

CORE = [0, 2, 3, 4, 6, 7, *ORDERS, MIDDLE, LONG, SWAPPED, LONGER, ENDLESS, REPEATED, EMPTY, BLANK, 20, *range(22, 32)]
FEW = [0, 3, 9, 11, MIDDLE, LONGER, ENDLESS, EMPTY, 22, 26]
PROBE = [0, 4, 9, MIDDLE, LONG, LONGER, REPEATED]  # what sensitivity is measured by
TOKENS = [0, 3, 7, 8, 9, ENDLESS, EMPTY, BLANK, *range(21, 32)]

PAIRS = [
    [QUESTION, BREAD], [BREAD, QUESTION], [QUESTION, SNOW], [SEA, RIVER], [9, 10], [10, 9], [9, 11], [YES, YES], [YES, LONG], [LONG, YES],
    [MIDDLE, LONGER], [QUESTION, ENDLESS], [ENDLESS, QUESTION], [EMPTY, 1], [1, EMPTY], [EMPTY, EMPTY], [2, BLANK], [22, 23], [25, 26], [27, 28], [30, 24],
]  # fmt: skip
FEW_PAIRS = [PAIRS[i] for i in (0, 1, 4, 8, 10, 11, 13, 18)]
PROBE_PAIRS = [PAIRS[i] for i in (0, 2, 3, 4, 8, 10)]
