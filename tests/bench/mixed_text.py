"""Megabytes of text as a server sees it: code, prose, many scripts, numbers, emoji.

Code and English prose are Python's own library; other languages are words made of pieces of the
sentences below, the frequent ones often, as in any text. The same seed gives the same texts with
one version of Python.
"""
import glob
import itertools
import os
import random

SENTENCES = {
    "de": "Größe, Straße, Übermäßig: ẞ, naïve façade und viele weitere Wörter aus alltäglichen Sätzen",
    "fr": "L’été dernier, où êtes-vous allé ? «Œuvre» n° 5, l'équipe déjà prévue à côté du théâtre",
    "pl": "Zażółć gęślą jaźń, pchnąć w tę łódź jeża lub ośm skrzyń fig",
    "tr": "İstanbul'da ığdır ağaçları büyük gölgeler düşürüyordu çünkü güneş şimdi yükseliyor",
    "vi": "Cửa Việt là một thị trấn ở Quảng Trị, người dân sống bằng nghề đánh cá",
    "ru": "Съешь же ещё этих мягких французских булок, да выпей чаю; объём работы велик",
    "el": "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί",
    "ar": "مرحبا بالعالم، هذا نص عربي مع أرقام وعلامات ترقيم؟ لَا إِلَٰهَ وكتاب جديد",
    "he": "שלום עולם! מה שלומך היום? בְּרֵאשִׁית ספר חדש ויפה",
    "hi": "नमस्ते दुनिया, यह एक परीक्षण वाक्य है। क्षत्रिय और विद्यार्थी",
    "th": "สวัสดีชาวโลก นี่คือประโยคทดสอบ ภาษาไทยไม่มีช่องว่าง",
    "ko": "안녕하세요 파이프라인 병렬 추론 클러스터입니다 값은 원이에요 모델 서버 캐시",
    "ja": "東京タワーの高さはメートルです。カタカナとひらがな、漢字が混ざった文章を書きます",
    "zh": "我想在北京工作，人工智能模型发布了新的版本。繁體中文與簡體中文混排，専家路由缓存推論",
}
WITHOUT_SPACES = {"th", "ja", "zh"}
EMOJI = ["👨‍👩‍👧‍👦", "👩🏽‍💻", "🏳️‍🌈", "🇰🇷", "☺️", "1️⃣", "🤷🏿‍♀️", "🦙", *map(chr, range(0x1F600, 0x1F640))]


def pieces_of_library():
    folder = os.path.dirname(os.__file__)
    for path in sorted(glob.glob(os.path.join(folder, "*.py"))
                       + glob.glob(os.path.join(folder, "pydoc_data", "*.py"))):
        with open(path, encoding="utf-8", errors="ignore") as file:
            text = file.read().replace("\0", "")
        for begin in range(0, len(text), 4000):
            yield text[begin:begin + 4000]


class Language:
    """Zipf-distributed words of one script."""

    def __init__(self, name, rng):
        words = SENTENCES[name].split()
        letters = "".join(words)
        self.space = "" if name in WITHOUT_SPACES else " "
        self.words = list(words)
        while len(self.words) < 3000:
            parts = [letters[at:at + rng.randint(1, 4)]
                     for at in (rng.randrange(len(letters)) for _ in range(rng.randint(1, 3)))]
            self.words.append("".join(parts))
        self.weights = list(itertools.accumulate(1 / rank for rank in range(1, 3001)))

    def piece(self, rng):
        words = rng.choices(self.words, cum_weights=self.weights, k=rng.randint(40, 400))
        for at in range(rng.randint(8, 20), len(words), 15):
            words[at] += rng.choice([".", ",", "!", "。", "\n", "\n\n", ": «"])
        return self.space.join(words) + "\n"


def numbers(rng):
    rows = [f"{rng.randint(1990, 2030)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02},"
            f"{rng.random() * 10 ** rng.randint(0, 6):.{rng.randint(0, 6)}f},{rng.getrandbits(32):#x},"
            f"{rng.randint(0, 10 ** rng.randint(1, 12))},+{rng.randint(10, 99)} {rng.randint(0, 10 ** 9)}"
            for _ in range(rng.randint(10, 60))]
    return "\n".join(rows) + "\n"


def emoji(rng):
    return "".join("".join(rng.choices(EMOJI, k=rng.randint(1, 4)))
                   + rng.choice([" ", " ok ", "!\n", " lol ", ""]) for _ in range(rng.randint(20, 100)))


def mixed_texts(byte_count, seed=1):
    """Texts of a few thousand characters, `byte_count` bytes or a little more in all."""
    rng = random.Random(seed)
    languages = [Language(name, rng) for name in SENTENCES]
    library = itertools.cycle(pieces_of_library())
    texts, total = [], 0
    while total < byte_count:
        kind = rng.random()
        if kind < 0.4:
            text = next(library)
        elif kind < 0.9:
            text = rng.choice(languages).piece(rng)
        elif kind < 0.96:
            text = numbers(rng)
        else:
            text = emoji(rng)
        texts.append(text)
        total += len(text.encode("utf-8"))
    return texts


def texts_without_space(byte_count, seed=1):
    """{name: text of about byte_count bytes with no break that a pattern could use}"""
    rng = random.Random(seed)

    def of(characters, each):
        return "".join(rng.choices(characters, k=byte_count // each))
    return {
        "letters": of("abcdefghijklmnopqrstuvwxyz", 1),
        "one letter": "a" * byte_count,
        "words": ("".join(rng.choices("the of and ing er tion model work time".split(),
                                      k=byte_count)))[:byte_count],
        "chinese": of(SENTENCES["zh"].replace("，", "").replace("。", ""), 3),
        "punctuation": of("=-_*/.", 1),
        "spaces": " " * byte_count,
    }
