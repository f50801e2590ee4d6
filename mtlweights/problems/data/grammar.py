"""The embedded tagging data: sentences drawn from a small weighted grammar, with part of speech and entities.

Nearly every word that matters is ambiguous (*will*, *mark*, *may*, *bush*, *turkey*, *washington*), and what
decides its reading is a word elsewhere: the verb that selects it, the name before it, the final ``?``. Both
tasks turn on the same readings. The labels have no noise: whoever knows the grammar is right on more than
99 % of the words (the tests parse every sentence to show it). A model has a few hundred sentences to learn
which verb selects what and which name is what, and meets words it never saw, so it stays below that.
"""

from __future__ import annotations

import itertools
import random
from functools import cache
from typing import NamedTuple

#: word lists, the most frequent word first. ``a-b`` lists are joined in all ways: an open vocabulary.
WORDS: dict[str, str] = {
    "first": "will mark may maria rose bill john grace frank anna sue peter hunter hope pat jack rob omar"
    " dawn iris drew faith gene rich olga art ray lily ivy victor crystal pearl dean robin",
    "last": "bush smith page baker stone jones young wood cook price silva bell rivers fisher snow brown"
    " frost cross marsh dale banks | oak stone brook farm bell snow play : wood stone field bell",
    "place": "turkey china bath london reading cuba lima dover delta georgia phoenix mobile oslo cork"
    " jersey buffalo washington jordan | spring oak clay brook snow farm : field bath wood ville",
    "firm": "apple google target shell oracle gap visa ford sprint subway dove stripe amazon square box"
    " block slack washington | net sun farm play clay bell : works soft box field",
    "film": "frozen alien carrie titanic chicago jaws speed rocky brave heat georgia cars rush amazon up",
    "people": "polish french turkish swiss english german cuban irish thai danish dutch",
    "thing": "turkey bill apple rose bush target house shell china page bath stone car oracle mark dove"
    " table wood gap bell phoenix delta iris bridge snow hope price visa jersey art square cork"
    " cross buffalo box lily dawn stripe frost subway reading block pearl ivy crystal marsh sprint"
    " hunter grace will rivers banks | oak stone brook farm bell snow play spring clay net sun :"
    " wood stone field bell bath box works",
    "person": "man baker woman hunter doctor cook fisher friend page teacher king nurse driver brother girl",
    "adjective": "old young new rich brown mobile brave frank small frozen rocky big good green cold nice"
    " dear grave",
    "adverb": "quickly really often early never quietly also always finally again almost nearly",
    "time": "today tonight tomorrow yesterday monday sunday again now soon lately",
    "event": "plans talks calls visits moves shows deals tours cuts bets moods marks drives rates plays"
    " works dances walks travels speeds matches heats",
    "person_past": "smiled said slept laughed married cried sang resigned sneezed apologised ran yawned spoke"
    " argued prayed giggled blinked frowned dozed confessed shrugged wept",
    "thing_past": "broke grew cost burned rotted melted vanished leaked ripened rusted cracked expired faded"
    " fell shrank snapped tasted boiled froze bloomed dissolved crumbled",
    "place_past": "flooded voted welcomed hosted seceded shook prospered lay celebrated surrendered bordered"
    " evacuated",
    "firm_past": "hired merged invested sued paid folded announced expanded outsourced advertised delisted"
    " rebranded patented restructured",
    "meet": "met married called kissed hugged thanked phoned dated interviewed forgave advised buried",
    "go": "visited left toured reached entered crossed invaded explored mapped fled",
    "join": "joined sued quit bought ran audited advised founded managed boycotted",
    "use": "cut ate sold saw painted cooked carried dropped fixed wanted bought washed hid stole moved",
    "watch": "watched saw loved hated reviewed streamed filmed",
    "meet_base": "meet call mark thank text sue book hug kiss ring bill phone",
    "go_base": "visit leave tour reach cross map invade explore",
    "use_base": "cut mark eat book cook can chase drop bill house page sell hide plan wash",
    "modal": "will may can might must should could",
    "place_head": "new lake north mount east",
    "firm_tail": "inc group bank united university",
}
#: symbol -> expansions with their weights; a lower-case name is a word list (else the word itself) with its
#: part of speech and, in an entity, its label.
RULES: dict[str, str] = {
    "S": "10 OPEN CLAUSE ./PUNCT | 3 OPEN QUESTION ?/PUNCT",
    "OPEN": "8 | 1 adverb/ADV ,/PUNCT | 1 in/ADP PLACE ,/PUNCT | 0.7 rt/X @user/X :/PUNCT",
    "CLAUSE": "3 PERSON GAP person_past/VERB TAIL | 3 PERSON GAP ACT TAIL | 4 THING GAP thing_past/VERB"
    " TAIL | 2.5 PLACE GAP place_past/VERB TAIL | 2.5 FIRM GAP firm_past/VERB TAIL | 2.5 PERSON"
    " modal/AUX BASE | 1.5 HEADLINE event/NOUN WHEN | 1.5 NAME event/VERB WHEN",
    "QUESTION": "1 modal/AUX PERSON BASE",
    "HEADLINE": "1 PLACE1 | 1 FIRM1",
    "ACT": "1.5 meet/VERB PERSON | 1.5 go/VERB PLACE | 1 join/VERB FIRM | 1.5 use/VERB OBJECT | 0.7"
    " watch/VERB FILM",
    "BASE": "1 meet_base/VERB PERSON WHEN | 1 go_base/VERB PLACE WHEN | 1.5 use_base/VERB DETERMINED WHEN",
    "GAP": "4 | 1 adverb/ADV | 1 ,/PUNCT AWAY ,/PUNCT | 0.7 ,/PUNCT AWAY and/CCONJ AWAY ,/PUNCT",
    "AWAY": "1 after/ADP DETERMINED | 1 despite/ADP DETERMINED | 1 with/ADP DETERMINED | 1 unlike/ADP NAME",
    "TAIL": "4 | 2 time/ADV | 1 in/ADP PLACE | 1 AWAY",
    "WHEN": "1 | 1 time/ADV",
    "PERSON": "4 NAME | 1 DETERMINER person/NOUN | 0.5 NAME and/CCONJ NAME",
    "NAME": "3 first/PROPN/B-PER | 1.5 first/PROPN/B-PER last/PROPN/I-PER | 2 last/PROPN/B-PER",
    "PLACE": "4 PLACE1 | 0.7 place_head/PROPN/B-LOC place/PROPN/I-LOC",
    "PLACE1": "1 place/PROPN/B-LOC",
    "FIRM": "4 FIRM1 | 1 last/PROPN/B-ORG firm_tail/PROPN/I-ORG | 0.7 bank/PROPN/B-ORG of/ADP/I-ORG"
    " place/PROPN/I-ORG",
    "FIRM1": "1 firm/PROPN/B-ORG",
    "FILM": "1 film/PROPN/B-MISC",
    "THING": "3 thing/NOUN | 1 DETERMINED",
    "OBJECT": "2 thing/NOUN | 1 DETERMINED",
    "DETERMINED": "2 DETERMINER thing/NOUN | 1 DETERMINER adjective/ADJ thing/NOUN | 1 DETERMINER"
    " people/ADJ/B-MISC thing/NOUN",
    "DETERMINER": "3 the/DET | 2 a/DET | 1 my/PRON",
}
ZIPF = 0.8  #: the word of rank r has weight 1 / (r + 1) ** ZIPF


class Sentence(NamedTuple):
    """Words, parts of speech and IOB2 entity labels, one of each a word."""

    words: list[str]
    pos: list[str]
    ner: list[str]


@cache
def expansions(symbol: str) -> tuple[tuple[list[str], ...], list[float]]:
    """The right-hand sides of a symbol and their probabilities."""
    rules = [rule.split() for rule in RULES[symbol].split(" | ")]
    weights = [float(rule[0]) for rule in rules]
    return tuple(rule[1:] for rule in rules), [weight / sum(weights) for weight in weights]


@cache
def emissions(terminal: str) -> tuple[list[str], list[float]]:
    """The words of a terminal ``list/UPOS`` or ``list/UPOS/LABEL`` and their probabilities."""
    name = terminal.split("/")[0]
    listed, _, joined = WORDS.get(name, name).partition(" | ")
    words = listed.split()
    if joined:
        heads, tails = (part.split() for part in joined.split(" : "))
        words += [head + tail for tail, head in itertools.product(tails, heads)]
    weights = [(rank + 1) ** -ZIPF for rank in range(len(words))]
    return words, [weight / sum(weights) for weight in weights]


def sentence(generator: random.Random) -> Sentence:
    """Draw one sentence."""
    words, pos, ner = [], [], []
    stack = ["S"]
    while stack:
        symbol = stack.pop()
        if symbol in RULES:
            options, weights = expansions(symbol)
            stack.extend(reversed(generator.choices(options, weights)[0]))
            continue
        _, tag, *label = symbol.split("/")
        words.append(generator.choices(*emissions(symbol))[0])
        pos.append(tag)
        ner.append(label[0] if label else "O")
    return Sentence(words, pos, ner)


#: number of examples and seed of each split
SPLITS = {"train": (120, 1), "dev": (200, 2), "test": (600, 3)}
TOGETHER = 2  #: sentences of a training example; one of them has entity labels, the other parts of speech

Labels = dict[str, list[str | None]]


def splits() -> dict[str, list[tuple[list[str], Labels]]]:
    """Words and labels of each split: single sentences with both tasks' labels in dev and test.

    A training example is two sentences, one annotated for each task, as if two corpora had been mixed. Every
    example has labels of both tasks, so that training on one takes as many steps as training on both; but
    neither alone sees all the evidence on which word is what.
    """
    drawn: dict[str, list[tuple[list[str], Labels]]] = {}
    for part, (count, seed) in SPLITS.items():
        generator = random.Random(seed)
        if part == "train":
            drawn[part] = [_mixed(generator) for _ in range(count)]
        else:
            sentences = [sentence(generator) for _ in range(count)]
            drawn[part] = [(words, {"ner": [*ner], "pos": [*pos]}) for words, pos, ner in sentences]
    return drawn


def _mixed(generator: random.Random) -> tuple[list[str], Labels]:
    words: list[str] = []
    labels: Labels = {"ner": [], "pos": []}
    chosen = generator.randrange(TOGETHER)
    for position in range(TOGETHER):
        new, pos, ner = sentence(generator)
        words += new
        labels["ner"] += ner if position == chosen else [None] * len(new)
        labels["pos"] += pos if position != chosen else [None] * len(new)
    return words, labels
