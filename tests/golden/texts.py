"""The texts of the golden cases (written to texts.json) and the vocabularies of the tiny models."""

NORMAL = [
    "The lighthouse keeper wrote a short letter every night.",
    "A cat sleeps on the warm stone wall.",
    "Rain fell over the small town and the river rose slowly.",
    "How do I reset my password?",
    "Water boils at a lower temperature in the mountains.",
    "She drove to the station, bought a ticket and read a book on the train.",
    "Open the window.",
    "yes",
    "Two dogs ran after one red ball in the park near the old school.",
    "What is the price of bread in the market today?",
    "The teacher gave every student a map of the world.",
    "He plays the guitar; his sister sings.",
    "Snow is cold and the sun is warm.",
    "Music for a long night drive",
    "The doctor said that sleep, water and good food help more than medicine.",
    "Please send the report before 5:30 pm on 12/04/2024 (room 17b).",
    "A fast computer can read a whole book in one second.",
    "In the garden there is a tree, and under the tree there is a chair.",
    "Who wrote this song?",
    "New house for sale: three rooms, a garden, and a view of the sea!",
    "the old man and the sea",
    "Embedding models turn a text into a vector.",
]

AWKWARD = [
    "",
    "   ",
    "a",
    "7",
    "1234567890",
    "!?.,;:-()[]{}\"'",
    "🙂",
    "good 🙂 morning 👩‍🚀🚀",
    "e\u0301cole cafe\u0301 n\u0303",
    "ÉCOLE Über Straße ÅNGSTRÖM İstanbul",
    "中文 and 日本語",
    "line one\tand tab\nline two\r\nline three",
    "   leading and trailing   ",
    "nul\u0000inside and \u0007bell",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "a[MASK]b [mask] [CLS",
    "w" * 101 + " after",
    "w" * 100,
    "the cat and the dog " * 40,
    "A cat sleeps on the warm stone wall.",
    "שלום עולם",
    "zero\u200djoiner and zero\u200bspace and soft\u00adhyphen",
    "no\u00a0break and \u3000wide space",
    "ding",
    "don't stop-me now... 3.14 is pi, 50% of $20 & more @home #tag",
    "ﬁne ligature and ½ and ①",
    "\ufeffbyte order mark \ufffd replacement",
    "UPPER lower MiXeD",
]

_SUBJECTS = ["the cat", "a dog", "my sister", "the teacher", "one student", "the river", "an old man"]
_VERBS = ["sleeps", "ran", "reads", "wrote", "drove", "plays", "sings"]
_PLACES = ["in the garden", "near the sea", "on the wall", "at night", "over the town", "in room {n}"]


def all_texts():
    """NORMAL, AWKWARD, then plain filler so that 8-bit quantisation sees 110 rows."""
    texts = NORMAL + AWKWARD
    for n in range(110 - len(texts)):
        subject = _SUBJECTS[n % len(_SUBJECTS)]
        verb = _VERBS[(n // 2) % len(_VERBS)]
        place = _PLACES[(n // 3) % len(_PLACES)].format(n=n)
        texts.append(f"{subject} {verb} {place}" + (f" and {_SUBJECTS[n % 3]} too" if n % 4 == 0 else ""))
    return texts


_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[]_{}"
_WORDS = """the of and to in is on a for one two three that it he she his my every into
cat dog book letter night river town water sea tree garden school teacher student music song
red old new small long warm cold good fast read reads wrote drove sleeps plays sings ran sun snow
rain house room map world window market price text vector embedding models what who how do
""".split()
_PIECES = ["##s", "##ing", "##er", "##ed", "##ly", "##in", "##an", "##st", "##or", "##te", "##re"]
_OTHER = ["中", "日", "本", "🙂", "ש", "ל", "ß", "½"]


def _vocabulary(parts):
    tokens = []
    for token in parts:
        if token not in tokens:
            tokens.append(token)
    return {token: i for i, token in enumerate(tokens)}


def uncased_vocabulary():
    return _vocabulary(
        _SPECIAL
        + list(_PUNCTUATION)
        + list("0123456789" + _LETTERS)
        + ["##" + c for c in "0123456789" + _LETTERS]
        + _WORDS
        + _PIECES
        + _OTHER
        + ["##🙂", "##ß", "##ל"]
    )


def cased_vocabulary():
    upper = _LETTERS.upper()
    return _vocabulary(
        _SPECIAL
        + list(".,!?-'")
        + list("0123456789" + _LETTERS + upper)
        + ["##" + c for c in "0123456789" + _LETTERS + upper]
        + ["the", "The", "a", "A", "cat", "dog", "and", "of", "in", "is", "é", "É", "##é", "##É", "ü", "Ü", "école", "École"]
        + _PIECES
    )
