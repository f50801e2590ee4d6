"""The embedded grammar: the same sentences everywhere, and labels that follow from the words."""

import hashlib
import json
import random
from collections import Counter
from functools import cache

import pytest

from mtlweights.problems.data import grammar
from mtlweights.problems.metrics import span_f1


@cache
def probabilities(terminal):
    found = Counter()
    for word, probability in zip(*grammar.emissions(terminal), strict=True):
        found[word] += probability
    return found


def posterior(words):
    """Probability of each tag sequence given the words: the sum over all derivations (inside algorithm)."""

    @cache
    def inside(symbol, start):
        """End -> tag sequence -> probability that the symbol gives the words up to there."""
        if symbol not in grammar.RULES:
            _, tag, *label = symbol.split("/")
            if start == len(words) or not probabilities(symbol)[words[start]]:
                return {}
            return {start + 1: {((tag, label[0] if label else "O"),): probabilities(symbol)[words[start]]}}
        ends = {}
        for symbols, weight in zip(*grammar.expansions(symbol), strict=True):
            partial = {start: {(): weight}}
            for part in symbols:
                following = {}
                for middle, sequences in partial.items():
                    for end, others in inside(part, middle).items():
                        into = following.setdefault(end, Counter())
                        for left, p in sequences.items():
                            for right, q in others.items():
                                into[left + right] += p * q
                partial = following
            for end, sequences in partial.items():
                ends.setdefault(end, Counter()).update(sequences)
        return ends

    sequences = inside("S", 0)[len(words)]
    total = sum(sequences.values())
    return {sequence: probability / total for sequence, probability in sequences.items()}


def marginals(words, kind):
    """For each word, label -> probability; kind 0 is part of speech, 1 entity."""
    found = [Counter() for _ in words]
    for sequence, probability in posterior(words).items():
        for counter, tags in zip(found, sequence, strict=True):
            counter[tags[kind]] += probability
    return found


@pytest.fixture(scope="module")
def tests_split():
    return grammar.splits()["test"]


@pytest.mark.parametrize(("kind", "task"), [(0, "pos"), (1, "ner")])
def test_bayes_accuracy_is_at_least_99_percent(tests_split, kind, task):
    expected_accuracy, hits, words_read, predicted = 0.0, 0, 0, []
    for words, labels in tests_split:
        best = [counter.most_common(1)[0] for counter in marginals(tuple(words), kind)]
        expected_accuracy += sum(probability for _, probability in best)
        hits += sum(label == right for (label, _), right in zip(best, labels[task], strict=True))
        words_read += len(words)
        predicted.append([label for label, _ in best])
    assert expected_accuracy / words_read >= 0.99
    assert hits / words_read >= 0.99
    if task == "ner":
        assert span_f1(predicted, [labels["ner"] for _, labels in tests_split]) >= 0.99


def test_words_are_ambiguous_for_both_tasks(tests_split):
    """Knowing each word's most frequent label is not enough, on either task."""
    for task in ("pos", "ner"):
        counts = {}
        for words, labels in tests_split:
            for word, label in zip(words, labels[task], strict=True):
                counts.setdefault(word, Counter())[label] += 1
        best = sum(counter.most_common(1)[0][1] for counter in counts.values())
        assert best / sum(counter.total() for counter in counts.values()) < 0.96


def test_the_same_sentences_on_every_machine():
    content = json.dumps(grammar.splits()).encode()
    assert (
        hashlib.sha256(content).hexdigest()
        == "5c756b23e094bee33f02c22597a1fd577e4bafb0fd5de1fb52969a0071122b7e"
    )
    assert grammar.sentence(random.Random(7)) == grammar.sentence(random.Random(7))


def test_training_examples_have_labels_of_both_tasks_on_different_words():
    for words, labels in grammar.splits()["train"]:
        named = [label is not None for label in labels["ner"]]
        tagged = [label is not None for label in labels["pos"]]
        assert any(named) and any(tagged)
        assert [not one for one in named] == tagged
        assert len(named) == len(words)


def test_labels_are_those_of_the_real_thing(tests_split):
    upos = {"ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "NOUN", "PRON", "PROPN", "PUNCT", "VERB", "X"}
    assert {label for _, labels in tests_split for label in labels["pos"]} == upos
    found = {label for _, labels in tests_split for label in labels["ner"]}
    assert {"O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC"} == found
