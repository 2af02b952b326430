"""Whatever way an exception, a warning or a log record takes out of the process, no post and no password is in it."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import transformers

from gemma_nli.base.errors import CorpusError
from gemma_nli.base.outgoing import Crashed, guard_process, leaving, shown, shown_traceback
from gemma_nli.base.private_texts import PrivateTexts, forget, remember_texts
from tests.base.planted import plant
from tests.base.test_privacy import CANARY, PACKAGE, SECRET, canary_corpus, canary_sweep, holders
from tests.commands import run_command
from tests.tracking.test_torch_models import make_bundle

TELLTALE = "violet pangolin"
ADDRESS = f"postgresql://ann:{SECRET}@db/x"


def clean(text: str) -> bool:
    return TELLTALE not in text.lower() and "lighthouse" not in text.lower() and SECRET not in text


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hooks of the process, put back, and nothing remembered of the tests before."""
    monkeypatch.setattr("gemma_nli.base.private_texts._read", {})
    held = sys.excepthook, sys.unraisablehook, warnings.formatwarning, logging.getLogRecordFactory()
    yield
    sys.excepthook, sys.unraisablehook, warnings.formatwarning = held[:3]
    logging.setLogRecordFactory(held[3])


@pytest.fixture
def quoting_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that fails and quotes the text that it failed on, with an address: as libraries do."""

    works = transformers.PreTrainedTokenizerBase.__call__

    def fails(self: Any, text: Any, *words: Any, **named: Any) -> Any:
        quoted = [one for one in ([text] if isinstance(text, str) else text) if TELLTALE in one]
        if quoted:
            raise TypeError(f"TextEncodeInput must be str, got {quoted[0]!r}\nwhile at {ADDRESS}")
        return works(self, text, *words, **named)

    monkeypatch.setattr(transformers.PreTrainedTokenizerBase, "__call__", fails)


@pytest.fixture
def words(tmp_path: Path, tiny_bert: Path) -> list[str]:
    canary_corpus(tmp_path / "data")
    return [
        f"data.data_dir={tmp_path / 'data'}",
        f"model.name={tiny_bert}",
        "model.max_length=32",
        "data.num_folds=3",
        "training.num_epochs=1",
        "device.device=cpu",
        f"mlflow.tracking_uri=sqlite:///{tmp_path / 'home' / 'mlflow.db'}",
        "output.experiment_name=gate",
    ]


@pytest.mark.parametrize("verb", [["train"], ["train-simple"], ["train-simple", "--mlflow"]], ids=" ".join)
def test_a_tokenizer_that_quotes_a_post_is_shown_without_it(verb, words, quoting_tokenizer, tmp_path, capfd):
    assert run_command("--verbose", *verb, *words) == 1
    said = "".join(capfd.readouterr())
    assert "Traceback" in said
    assert "left out" in said
    assert clean(said)
    for text in (TELLTALE, SECRET):
        assert holders(tmp_path, text, beside=(tmp_path / "data",)) == []


def test_a_reproduction_that_fails_quotes_no_post(words, tmp_path, capfd, request):
    assert run_command("train", *words, "--json") == 0
    run = re.search(r'"run_id": "(\w+)"', capfd.readouterr().out)
    assert run is not None
    request.getfixturevalue("quoting_tokenizer")
    store = ["--tracking-uri", f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}"]
    assert run_command("--verbose", "reproduce", run[1], *store, "--storage", str(tmp_path / "no_texts_yet")) == 1
    said = "".join(capfd.readouterr())
    assert "left out" in said
    assert clean(said)


def test_with_log_text_the_post_is_shown_and_the_password_is_not(words, quoting_tokenizer, capfd):
    assert run_command("train", *words, "data.log_text=true", "mlflow.enabled=false") == 1
    said = "".join(capfd.readouterr())
    assert TELLTALE in said
    assert SECRET not in said


def test_a_prediction_that_fails_quotes_no_row(tmp_path, tiny_bert, quoting_tokenizer, capfd):
    bundle = make_bundle(tmp_path / "bundle", tiny_bert, max_length=32)
    pd.DataFrame({"premise": [CANARY, "fine"], "hypothesis": ["a", "b"]}).to_csv(tmp_path / "in.csv", index=False)
    asked = ["--model", str(bundle), "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    assert run_command("predict", *asked) == 1
    said = "".join(capfd.readouterr())
    assert "left out" in said
    assert clean(said)


QUOTING = f"""
# In every process of the sweep, encoding fails with an exception that quotes a post and an address.
def encode(request, *rest, **named):
    raise ValueError("cannot tokenize " + repr(request.premises[0]) + " at {ADDRESS}")
module.encode = encode
"""


@pytest.mark.parametrize("verb", [["sweep"], pytest.param(["plan"], marks=pytest.mark.slow)], ids=" ".join)
def test_a_sweep_that_cannot_encode_says_so_without_the_post(verb, tmp_path, tiny_bert, monkeypatch):
    folder = tmp_path / "private"
    file = canary_sweep(folder, tiny_bert, 9)
    file.write_text(re.sub(r"tracking_uri: .*", f"tracking_uri: sqlite:///{folder}/mlflow.db", file.read_text()))
    site = tmp_path / "site"
    plant(site, "gemma_nli.features.encode_texts", QUOTING)
    monkeypatch.setenv("PYTHONPATH", f"{site}:{PACKAGE.parent}")
    code = (
        f"import sys; from gemma_nli.cli import main\nsys.argv = {['gemma-nli', '--verbose', *verb, str(file)]}\nmain()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode in (1, 2), said
    assert "left out" in said
    assert clean(said), said
    for text in (TELLTALE, SECRET):
        assert holders(folder, text, beside=(folder / "data",)) == []


@pytest.mark.parametrize("level", ["warning", "exception"])
def test_a_log_record_of_any_library_passes_the_gate(level, capsys):
    guard_process()
    remember_texts("test", [f"Well, {CANARY}"])
    log = logging.getLogger("some.library")
    log.setLevel(logging.WARNING)
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    try:
        try:
            raise ValueError(f"{CANARY} at {ADDRESS}")
        except ValueError:
            getattr(log, level)("truncated %r of %s to %d", CANARY, ADDRESS, 5)
        log.warning("too many %d", CANARY, ADDRESS)
    finally:
        log.removeHandler(handler)
        forget("test")
    said = capsys.readouterr().err
    assert said.strip()
    assert clean(said)


def test_a_warning_that_quotes_is_shown_without_the_quotation(capsys):
    guard_process()
    remember_texts("test", [CANARY])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        print(warnings.formatwarning(f"odd text {CANARY} from {ADDRESS}", UserWarning, "x.py", 1))
    forget("test")
    assert clean(capsys.readouterr().out)


def _fail_on(post: str) -> None:
    try:
        raise KeyError(post)
    except KeyError as error:
        raise RuntimeError("outer") from error


def test_what_leaves_a_worker_has_no_cause_and_no_variable():
    remember_texts("test", [CANARY])
    with pytest.raises(Crashed) as crashed, leaving():
        _fail_on(CANARY)
    forget("test")
    assert "RuntimeError: outer" in str(crashed.value)
    assert crashed.value.__cause__ is None
    assert clean("".join(shown_traceback(crashed.value)))
    with pytest.raises(CorpusError, match=r"at postgresql://\*\*\*@db/x"), leaving():
        raise CorpusError(f"at {ADDRESS}")


@pytest.mark.parametrize(
    ("text", "quotation"),
    [
        ("one two three four five six", "One, two\\nthree four\\tfive six"),
        ("I am so\ntired of\nthis", "bad input: I am so\ntired of\nthis"),
        ("caf\u00e9 at night alone again now", "b'caf\\xe9 at night alone again now'"),
        ("caf\u00e9 at night alone again now", '{"text": "caf\\u00e9 at night alone again now"}'),
        ("so it goes", "KeyError: 'so it goes'"),
    ],
)
def test_a_quotation_is_found_over_lines_and_escapes(text, quotation):
    left = PrivateTexts(lambda: iter([text])).left_out(f"File a.py, line 3\n{quotation}\nRuntimeError: no memory")
    lines = left.splitlines()
    assert (lines[0], lines[-1]) == ("File a.py, line 3", "RuntimeError: no memory")
    assert set(lines[1:-1]) == {"[a line with post text, left out]"}


def test_what_a_terminal_would_obey_is_written_out():
    assert shown("a\x1b[31mb\u202ec\rd\x9be\ud800\nf\tg") == "a\\x1b[31mb\\u202ec\\rd\\x9be\\ud800\nf\tg"


@pytest.mark.parametrize("words", [["best", "--experiment", "x", ADDRESS], [ADDRESS]])
def test_a_word_that_the_command_line_refuses_is_quoted_without_its_password(words, capfd):
    assert run_command(*words) == 2
    said = "".join(capfd.readouterr())
    assert "***" in said
    assert SECRET not in said
