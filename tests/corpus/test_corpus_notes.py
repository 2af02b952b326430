"""What is said of a corpus before a number measured on it is believed."""

from __future__ import annotations

from gemma_nli.config import DataConfig
from gemma_nli.corpus.corpus_notes import corpus_notes
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import Annotation, Corpus


def corpus_of(often: int) -> Corpus:
    """40 posts, of which `often` show A and 8 show B."""
    shown = [("A", place) for place in range(often)] + [("B", place) for place in range(8)]
    annotations = tuple(Annotation(f"p{place}", f"s{name}{place}", "x", name, 1, "") for name, place in shown)
    return Corpus({f"p{i}": f"text number {i * 7919}" for i in range(40)}, {"A": "often", "B": "seldom"}, annotations)


def test_a_criterion_that_most_posts_show_is_named_with_the_negatives_it_lacks():
    corpus = corpus_of(30)
    (note,) = corpus_notes(corpus, build_pairs(corpus, DataConfig()))
    assert "1 of 2 criteria have fewer negative pairs than data.eval_negative_ratio asks for (A 10 of 30)" in note
    assert "text number" not in note


def test_where_there_are_enough_or_negatives_are_not_matched_nothing_is_said():
    enough, lacking = corpus_of(15), corpus_of(30)
    assert corpus_notes(enough, build_pairs(enough, DataConfig())) == []
    for data in (DataConfig(negatives="pooled"), DataConfig(eval_negative_ratio="all")):
        assert corpus_notes(lacking, build_pairs(lacking, data)) == []
