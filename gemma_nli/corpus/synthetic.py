"""A made-up corpus in ReDSM5's format, for the demo and for tests: no real person wrote a word of it.

Words alone do not give the labels away: besides sentences that show a symptom there are sentences that deny it, report
it of somebody else or use its words in another sense. Most of these are annotated with status 0, as an expert would.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gemma_nli.corpus.criteria import dsm5_criteria, dsm5_wordings, several_texts
from gemma_nli.corpus.redsm5 import Annotation, Corpus, write_corpus

NUM_POSTS = 240
SEED = 7
# Posts per symptom in ReDSM5 (SPECIAL_CASE: our guess); a quarter of its posts have none.
POSTS_WITH = {
    "DEPRESSED_MOOD": 328,
    "WORTHLESSNESS": 311,
    "SUICIDAL_THOUGHTS": 165,
    "FATIGUE": 124,
    "ANHEDONIA": 124,
    "SLEEP_ISSUES": 102,
    "COGNITIVE_ISSUES": 59,
    "APPETITE_CHANGE": 44,
    "PSYCHOMOTOR": 35,
    "SPECIAL_CASE": 60,
}
SHARE_WITHOUT = 0.26
SYMPTOMS_A_POST = {1: 0.35, 2: 0.40, 3: 0.25}  # of posts that have any
LURES_A_POST = {0: 0.35, 1: 0.40, 2: 0.25}  # denied, another person's, or the words in another sense
SHARE_ANNOTATED = 0.7  # of denials and mentions of others

WHY = {
    "says": "The writer reports this of themselves.",
    "denies": "The writer says that this does not, or no longer, apply to them.",
    "others": "The sentence is about another person, not the writer.",
}
README = """# SYNTHETIC

**SYNTHETIC DATA. NO REAL PERSON WROTE ANY OF THIS.** {num_posts} posts assembled by `gemma_nli.corpus.synthetic`
from sentence templates (seed {seed}), in the format of ReDSM5. Scores on it say nothing about real posts, and nothing
here may be used to judge a person.

- `redsm5_posts.csv`: `post_id`, `text`
- `redsm5_annotations.csv`: `post_id`, `sentence_id`, `sentence_text`, `DSM5_symptom`, `status`, `explanation`;
  status 1: the sentence shows the symptom; status 0: it denies it or is about somebody else
- `criteria.json`: `[{{"id", "texts": {{"full", "short", "question"}}}}]`
"""


@dataclass(frozen=True)
class _Sentence:
    text: str
    symptom: str | None = None
    kind: str | None = None  # says, denies, others, words


def synthetic_corpus(num_posts: int = NUM_POSTS, seed: int = SEED) -> Corpus:
    """Posts of 3 to 9 sentences with none to three symptoms each; the same for the same arguments, on every machine.

    Raises:
        ValueError: fewer than one post.
    """
    if num_posts < 1:
        raise ValueError(f"num_posts must be 1 or more, got {num_posts}")
    writer = _Writer(random.Random(seed))  # noqa: S311 - a made-up corpus, no secret
    posts: dict[str, str] = {}
    annotations: list[Annotation] = []
    for number in range(1, num_posts + 1):
        post_id = f"syn_{number:04d}"
        sentences = writer.post()
        posts[post_id] = writer.join(sentences)
        for place, sentence in enumerate(sentences, start=1):
            if sentence.symptom is not None and sentence.kind in WHY and writer.is_annotated(sentence.kind):
                status = int(sentence.kind == "says")
                where = f"{post_id}_{place}"
                annotations.append(
                    Annotation(post_id, where, sentence.text, sentence.symptom, status, WHY[sentence.kind])
                )
    return Corpus(posts, dsm5_criteria(), tuple(annotations), wordings=several_texts(dsm5_wordings()))


def write_synthetic(folder: str | Path, num_posts: int = NUM_POSTS, seed: int = SEED) -> Corpus:
    """Write a synthetic corpus and a README.md that marks it as synthetic; `load_corpus(folder)` gives the returned
    corpus again.
    """
    corpus = synthetic_corpus(num_posts, seed)
    write_corpus(corpus, folder)
    (Path(folder) / "README.md").write_text(README.format(num_posts=num_posts, seed=seed), encoding="utf-8")
    return corpus


class _Writer:
    """Draws everything from one generator by `random()` alone, whose stream Python keeps from version to version."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        source = resources.files("gemma_nli.corpus").joinpath("synthetic_sentences.json")
        self.sentences_by_kind: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))

    def post(self) -> list[_Sentence]:
        symptoms = [] if self.rng.random() < SHARE_WITHOUT else self._symptoms(self._weighted(SYMPTOMS_A_POST))
        sentences = [self._sentence(name, "says") for name in symptoms]
        sentences += [self._sentence(name, "says") for name in symptoms if self.rng.random() < 0.25]
        lures = self._weighted(LURES_A_POST)
        if lures:
            absent = {name: count for name, count in POSTS_WITH.items() if name not in symptoms}
            for name in self._draw(absent, lures):
                sentences.append(self._sentence(name, self._pick(["denies", "denies", "others", "others", "words"])))
        for text in self._draw(dict.fromkeys(self.sentences_by_kind["distractors"], 1), 2 + int(self.rng.random() * 3)):
            sentences.append(_Sentence(text))
        return self._shuffled(sentences)

    def join(self, sentences: list[_Sentence]) -> str:
        """One text, some with a blank line between two sentences."""
        text = ""
        for sentence in sentences:
            gap = "\n\n" if self.rng.random() < 0.12 else " "
            text += (gap if text else "") + sentence.text
        return text

    def is_annotated(self, kind: str) -> bool:
        return kind == "says" or self.rng.random() < SHARE_ANNOTATED

    def _symptoms(self, count: int) -> list[str]:
        return self._draw(dict(POSTS_WITH), count)

    def _sentence(self, symptom: str, kind: str) -> _Sentence:
        template = self._pick(self.sentences_by_kind["symptoms"][symptom][kind])
        if kind == "words":
            return _Sentence(template, symptom, kind)
        text = template.replace("{time}", self._pick(self.sentences_by_kind["time"])).replace(
            "{who}", self._pick(self.sentences_by_kind["who"])
        )
        opener, link = (
            self._pick(self.sentences_by_kind["openers"]),
            self._pick(self.sentences_by_kind["links"]) if kind == "says" else "",
        )
        if not opener:
            text = text[0].upper() + text[1:]
        return _Sentence(f"{opener}{text}{link}.", symptom, kind)

    def _pick(self, options: list[str]) -> str:
        return options[int(self.rng.random() * len(options))]

    def _weighted(self, weights: dict[Any, float]) -> Any:
        point = self.rng.random() * sum(weights.values())
        for value, weight in weights.items():
            point -= weight
            if point < 0:
                return value
        return value

    def _draw(self, weights: dict[str, int], count: int) -> list[str]:
        """`count` different names, more likely with more weight."""
        left: dict[str, float] = dict(weights)
        drawn = []
        for _ in range(count):
            drawn.append(self._weighted(left))
            del left[drawn[-1]]
        return drawn

    def _shuffled(self, sentences: list[_Sentence]) -> list[_Sentence]:
        keyed = [(self.rng.random(), place) for place in range(len(sentences))]
        return [sentences[place] for _, place in sorted(keyed)]
