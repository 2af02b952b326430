"""Archives that mean harm are refused, the old store in its place; a killed restore leaves one whole store."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.archives import exchange
from gemma_nli.tracking.archives.backup import backup, restore
from gemma_nli.tracking.read.frames import list_runs
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.commands import run_command
from tests.tracking.conftest import a_trial

Tree = dict[str, bytes]


def members_of(archive: Path) -> Tree:
    with tarfile.open(archive) as packed:
        return {member.name: packed.extractfile(member).read() for member in packed}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def honest(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tree]:
    """A store's folder, and the members of an archive of it, taken when it had one run; it has two now."""
    folder = tmp_path_factory.mktemp("honest") / "store"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder.parent))
        MlflowTracker(MlflowConfig(tracking_uri=uri), "old").sync_trial(None, a_trial("k1"))
        archive = backup(folder.parent / "honest.tar.gz", uri).path
        MlflowTracker(MlflowConfig(tracking_uri=uri), "new").sync_trial(None, a_trial("k2"))
    return folder, members_of(archive)


@pytest.fixture
def small(honest: tuple[Path, Tree], tmp_path: Path) -> str:
    shutil.copytree(honest[0], tmp_path / "store")
    return f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"


@pytest.fixture
def packed(honest: tuple[Path, Tree]) -> Tree:
    return honest[1]


def contents(folder: Path) -> dict[str, object]:
    """What a store's folder holds, locks aside; of the database every row."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name == "mlflow.db":
            with closing(sqlite3.connect(path)) as database:
                found[name] = tuple(database.iterdump())
        elif path.is_file() and not path.name.endswith((".lock", "-wal", "-shm")):
            found[name] = path.read_bytes()
    return found


def folder_of(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///")).parent


def pack(target: Path, members: Tree, extra: Callable[[tarfile.TarFile], None] | None = None) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        if extra is not None:
            extra(archive)
    return target


def changed(members: Tree, **facts: Any) -> Tree:
    return {**members, "manifest.json": json.dumps({**json.loads(members["manifest.json"]), **facts}).encode()}


def listed(members: Tree, name: str, data: bytes = b"evil") -> Tree:
    """A further member, with its checksum in the list."""
    sums = {**json.loads(members["manifest.json"])["sha256"], name: hashlib.sha256(data).hexdigest()}
    return changed({**members, name: data}, sha256=sums)


def with_database(members: Tree, statement: str, tmp_path: Path) -> Tree:
    """The database changed, and its checksum too."""
    path = tmp_path / "changed.db"
    path.write_bytes(members["mlflow.db"])
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(statement)
    return listed(members, "mlflow.db", path.read_bytes())


UNSAFE_NAMES = [
    "/etc/cron.d/evil",
    "../evil",
    "artifacts/0/../../evil",
    "artifacts/0/..",
    "artifacts/../mlflow.db",
    "artifacts/0//evil",
    "artifacts/9/evil",
    "artifacts/00/evil",
    "artifacts/-1/evil",
    "artifacts/0/a\\..\\..\\evil",
    "C:/evil",
    "C:\\evil",
    "artifacts/0/C:/evil",
    "artifacts/0/evil\n",
    "artifacts/0/e\x1b[31mvil",
    "mlflow.db-wal",
    ".mlflow.db.restore.json",
    "evil",
]


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_name_that_leads_elsewhere_is_refused(small, packed, tmp_path, name, is_listed):
    members = listed(packed, name) if is_listed else {name: b"evil", **packed}
    refused(small, pack(tmp_path / "bad.tar.gz", members), tmp_path)


def test_a_name_in_the_list_alone_is_refused(small, packed, tmp_path):
    for name in UNSAFE_NAMES:
        sums = json.loads(packed["manifest.json"])["sha256"]
        members = changed(packed, sha256={**sums, name: sums["mlflow.db"]})
        refused(small, pack(tmp_path / "bad.tar.gz", members), tmp_path)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_what_is_no_plain_file_is_refused(small, packed, tmp_path, kind):
    def add(archive: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo("artifacts/0/link")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)

    refused(small, pack(tmp_path / "bad.tar.gz", packed, add), tmp_path)


@pytest.mark.parametrize(
    "facts",
    [
        {"roots": ["/old/../../home/.ssh"]},
        {"roots": ["relative"]},
        {"roots": ["/old/\0"]},
        {"roots": "/old"},
        {"roots": [7]},
        {"roots": []},
        {"database": "/old/../mlflow.db"},
        {"database": 3},
        {"database": None},
        {"sha256": {}},
        {"sha256": []},
        {"sha256": {"mlflow.db": "x"}},
        {"sha256": {"mlflow.db": 3}},
        {"format": 3},
        {"format": "2"},
        {"format": True},
        {"left_out": {"weights": "all"}},
    ],
)
def test_a_manifest_of_wrong_types_or_paths_is_refused(small, packed, tmp_path, facts):
    refused(small, pack(tmp_path / "bad.tar.gz", changed(packed, **facts)), tmp_path)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b'{"format": 2, "format": 1}', b"NaN"]
)
def test_a_manifest_that_is_no_json_mapping_is_refused(small, packed, tmp_path, text):
    refused(small, pack(tmp_path / "bad.tar.gz", {**packed, "manifest.json": text}), tmp_path)


def test_a_file_that_the_list_lacks_is_refused(small, packed, tmp_path):
    refused(
        small, pack(tmp_path / "bad.tar.gz", {"artifacts/0/more": b"x", **packed}), tmp_path, "which is not in its list"
    )


def test_a_member_that_comes_twice_is_refused(small, packed, tmp_path):
    def add(archive: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo("mlflow.db")
        archive.addfile(entry, io.BytesIO(b""))

    refused(small, pack(tmp_path / "bad.tar.gz", packed, add), tmp_path, "twice")


def test_a_file_that_hides_a_folder_is_refused(small, packed, tmp_path):
    members = listed(listed(packed, "artifacts/0/a"), "artifacts/0/a/b")
    refused(small, pack(tmp_path / "bad.tar.gz", members), tmp_path)


def test_sizes_are_looked_at_before_anything_is_read(small, packed, tmp_path):
    """Four GB of zeros in four MB, a manifest of a gigabyte, a header that claims to be one: no more is read."""
    bomb = tmp_path / "bomb.tar.gz"
    zeros = gzip.compress(bytes(2**22))
    for name, size in (("artifacts/0/zeros", 2**32), ("manifest.json", 2**30), ("artifacts/0/long", 8**12)):
        entry = tarfile.TarInfo(name)
        entry.size = size
        bomb.write_bytes(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT)) + zeros * 100)
        refused(small, bomb, tmp_path, "nothing was restored|the maximum is")
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        entry = tarfile.TarInfo("long")
        entry.type, entry.size = kind, 2**28
        bomb.write_bytes(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT)) + zeros * 64)
        refused(small, bomb, tmp_path, "damaged")


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DROP TABLE runs", "not MLflow's"),
        ("UPDATE alembic_version SET version_num = 'ffff'", "newer MLflow"),
        ("UPDATE runs SET artifact_uri = '/etc'", "outside the archive"),
        ("UPDATE runs SET artifact_uri = artifact_uri || '/../../../../../../../../../etc'", "outside the archive"),
        ("UPDATE runs SET artifact_uri = artifact_uri || '/%2e%2e/%2E%2e/../../../../../../etc'", "outside"),
        ("UPDATE runs SET artifact_uri = 'file:///etc'", "outside the archive"),
        ("UPDATE runs SET artifact_uri = 'FILE:///etc'", "outside the archive"),
        ("UPDATE runs SET artifact_uri = '../../etc'", "outside the archive"),
        ("UPDATE runs SET artifact_uri = X'2f657463'", "outside the archive"),
        ("UPDATE experiments SET artifact_location = '/root/.ssh' WHERE name = 'old'", "outside the archive"),
        ("CREATE TRIGGER t AFTER INSERT ON runs BEGIN UPDATE runs SET artifact_uri = '/etc'; END", "trigger"),
        ("ALTER TABLE runs RENAME TO r; CREATE VIEW runs AS SELECT * FROM r", "not MLflow's"),
    ],
)
def test_a_database_that_leads_elsewhere_or_is_not_mlflows_is_refused(small, packed, tmp_path, statement, why):
    refused(small, pack(tmp_path / "bad.tar.gz", with_database(packed, statement, tmp_path)), tmp_path, why)


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", b"no database" * 1000])
def test_a_spoiled_database_is_refused(small, packed, tmp_path, data):
    refused(small, pack(tmp_path / "bad.tar.gz", listed(packed, "mlflow.db", data)), tmp_path, "its database")


def refused(uri: str, archive: Path, tmp_path: Path, why: str = ".") -> None:
    """Refused in a sentence, and every file of the store and around it is as it was."""
    shield = tmp_path / "around"
    shield.mkdir(exist_ok=True)
    before, names = contents(folder_of(uri)), sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(TrackingError, match=why) as caught:
        restore(archive, uri, replace=True)
    assert archive.name in str(caught.value)
    assert all(letter.isprintable() for letter in str(caught.value))
    assert contents(folder_of(uri)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert not [path.name for path in folder_of(uri).iterdir() if "restore_" in path.name or "before" in path.name]


def test_folders_that_an_archive_names_outside_are_restored_inside(packed, tmp_path):
    """A root elsewhere, a hidden one, one of somebody's folder: all go to folders of our own beside the database."""
    home = tmp_path / "home"
    (home / "Documents").mkdir(parents=True)
    (home / "Documents" / "letter").write_text("mine")
    empty, old = json.loads(packed["manifest.json"])["roots"]
    for number, root in enumerate(("/root/.ssh", "/old/.ssh", "/old/Documents", "/old/mlflow3.db.lock", "/old/a\\b")):
        database = sqlite3.connect(":memory:")
        database.deserialize(packed["mlflow.db"])
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, root))
        database.commit()
        members = changed(
            listed(packed, "mlflow.db", database.serialize()), roots=[empty, root], database="/old/mlflow.db"
        )
        uri = f"sqlite:///{home / f'mlflow{number}.db'}"
        restore(pack(tmp_path / "a.tar.gz", members), uri)
        (run_id,) = list_runs(tracking_uri=uri)["run_id"]
        place = Path(MlflowClient(uri).get_run(run_id).info.artifact_uri).relative_to(home)
        assert place.parts[0].startswith("artifacts-")
        assert "config.yaml" in [file.path for file in MlflowClient(uri).list_artifacts(run_id)]
    assert (home / "Documents" / "letter").read_text() == "mine"
    assert not (home / ".ssh").exists()


def test_an_archive_of_the_first_format_is_still_read(small, packed, tmp_path):
    manifest = json.loads(packed["manifest.json"])
    whole = {name: next(d for d in packed.values() if hashlib.sha256(d).hexdigest() == digest)
             for name, digest in manifest["sha256"].items()}  # fmt: skip
    members = {**whole, "manifest.json": changed(packed, format=1)["manifest.json"]}
    restore(pack(tmp_path / "old.tar.gz", members), f"sqlite:///{tmp_path / 'else' / 'mlflow.db'}")
    assert len(list_runs(tracking_uri=f"sqlite:///{tmp_path / 'else' / 'mlflow.db'}")) == 1


def restore_killed_at(step: int, archive: Path, uri: str) -> bool:
    """A restore in a process of its own, killed before its n-th change to the disk; False where it ended before."""
    child = os.fork()
    if not child:
        count = 0

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return wrapped

        try:
            for owner, names in ((os, ["rename"]), (exchange, ["write_whole", "sync_folder"]), (shutil, ["rmtree"])):
                for name in names:
                    setattr(owner, name, counted(getattr(owner, name)))
            Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]
            restore(archive, uri, replace=True)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def test_a_restore_killed_at_any_step_is_ended_or_undone_by_the_next_command(small, packed, tmp_path, capfd):
    archive, folder = pack(tmp_path / "good.tar.gz", packed), folder_of(small)
    shutil.copytree(folder, tmp_path / "kept")
    restore(archive, f"sqlite:///{tmp_path / 'else' / 'mlflow.db'}")
    old, seen, step = contents(folder), [], 1
    files = {name for name in contents(tmp_path / "else") if name != "mlflow.db"}
    while restore_killed_at(step, archive, small):
        assert run_command("runs", "--tracking-uri", small) == 0
        found = contents(folder)
        assert not [name for name in found if name.startswith(".")]
        now = {name: value for name, value in found.items() if "before-restore" not in name}
        if now == old:
            seen.append("old")
        else:
            seen.append("new")
            assert "'new'" not in str([line for line in now["mlflow.db"] if "experiments" in line])  # type: ignore[attr-defined]
            assert set(now) == files | {"mlflow.db"}
            (aside,) = folder.glob("artifacts.before-restore-*")
            assert len(contents(aside)) == len(old) - 1
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "kept", folder)
        step += 1
    assert seen.count("old") >= 2
    assert seen.count("new") >= 6
    assert "completed" in capfd.readouterr().err


def test_a_move_that_fails_leaves_the_old_store_and_says_so(small, packed, tmp_path, monkeypatch):
    archive = pack(tmp_path / "good.tar.gz", packed)
    before, step, calls, said, rename = contents(folder_of(small)), 0, 0, list[str](), os.rename

    def refuse_one(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_one)
    while calls >= step:
        step, calls = step + 1, 0
        try:
            restore(archive, small, replace=True)
        except TrackingError as error:
            said.append(str(error))
            assert contents(folder_of(small)) == before
    assert len(said) > 4
    for text in said:
        assert "No space left on device" in text
        assert "is back in its place" in text or "nothing was changed" in text
    assert contents(folder_of(small)) != before


def test_a_full_disk_while_it_unpacks_leaves_the_old_store(small, packed, tmp_path):
    archive = pack(tmp_path / "good.tar.gz", packed)
    before = contents(folder_of(small))
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from gemma_nli.tracking.archives.restore import restore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from gemma_nli.base.errors import TrackingError\n"
        "try: restore(Path(sys.argv[1]), sys.argv[2], replace=True)\n"
        "except TrackingError as error: sys.exit(f'refused: {error}')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(archive), small], capture_output=True, text=True, check=False
    )
    assert "refused: " in ended.stderr
    assert "nothing was restored" in ended.stderr
    assert contents(folder_of(small)) == before


def test_equal_files_are_packed_once_and_what_can_be_made_again_stays_out_on_request(sqlite_uri, tmp_path, capsys):
    small = sqlite_uri
    client, folder = MlflowClient(small), tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    for name in ("MLmodel", "weights.safetensors", "data/model.pt2"):
        (folder / name).write_bytes(os.urandom(300_000))
    runs = [MlflowTracker(MlflowConfig(tracking_uri=small), "old").sync_trial(None, a_trial(key)) for key in "ab"]
    for run_id in runs:
        client.log_artifacts(run_id, str(folder), "model-1")
        client.log_dict(run_id, {}, "fold_1_best.safetensors")
    once = backup(tmp_path / "once.tar.gz", small)
    assert 0.9 < once.megabytes < 1.3  # not 1.8
    restore(once.path, f"sqlite:///{tmp_path / 'else' / 'mlflow.db'}")
    files = {path: data for path, data in contents(folder_of(small)).items() if path != "mlflow.db"}
    assert {path: data for path, data in contents(tmp_path / "else").items() if path != "mlflow.db"} == files
    for words, count in (("weights", 2), ("exports", 2), ("models", 6), ("weights, exports, models", 8)):
        archive = tmp_path / f"{words}.tar.gz"
        assert run_command("backup", str(archive), "--without", words, "--tracking-uri", small) == 0
        assert "left out: " in capsys.readouterr().out
        place = tmp_path / words
        assert run_command("restore", str(archive), "--tracking-uri", f"sqlite:///{place / 'mlflow.db'}") == 0
        assert f"not in this backup: {words.split(', ')[-1]}" in capsys.readouterr().out
        assert len(contents(place)) == len(files) + 1 - count
    assert run_command("backup", str(tmp_path / "x"), "--without", "model", "--tracking-uri", small) == 2
    assert "did you mean 'models'" in capsys.readouterr().err


def test_what_packs_too_well_is_packed_so_that_its_own_restore_takes_it(sqlite_uri, tmp_path, monkeypatch):
    monkeypatch.setattr("gemma_nli.tracking.archives.archive._SLACK_BYTES", 2**20)
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "zeros")
    tracker.sync_trial(None, a_trial("k1", artifacts={"zeros.bin": bytes(64 * 2**20)}))
    assert backup(tmp_path / "zeros.tar.gz", sqlite_uri).megabytes > 60
    restore(tmp_path / "zeros.tar.gz", f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
    assert [path.stat().st_size for path in (tmp_path / "new").rglob("zeros.bin")] == [64 * 2**20]
