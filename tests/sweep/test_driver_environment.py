"""Keys of the driver's environment reach no command line and no log of Ray's, while workers have their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from tests.base.test_privacy import holders, ray_folder

__all__ = ["ray_folder"]

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDKEY000001",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+0002",
    "AWS_SECURITY_TOKEN": "planted-token-0003",
    "AWS_SESSION_TOKEN": "planted-token-0004",
    "HF_TOKEN": "hf_planted0005",
    "PGPASSWORD": "planted-0006",
}
IN_THE_WORKER = """
import os, sys
if any("default_worker.py" in word for word in sys.argv) or "default_worker" in " ".join(getattr(sys, "orig_argv", [])):
    with open(os.environ["SEEN"], "a") as file:
        file.write(os.environ.get("AWS_SECRET_ACCESS_KEY", "none") + "\\n")
"""


def command_lines(pid: int) -> str:
    """Of the command and of all that it has started, as `ps` shows them to everybody."""
    said = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            said.append(Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace"))
        except (OSError, psutil.Error):
            continue
    return "\n".join(said)


def test_keys_of_the_environment_stand_in_no_command_line_and_no_log(sweep_tree, tmp_path, ray_folder):
    sweep_tree["space"] = {"model.pooling_strategy": {"grid": ["mean", "cls"]}}
    sweep_tree["finalize"] = {"enabled": False}
    file = tmp_path / "little.yaml"
    file.write_text(yaml.safe_dump(sweep_tree))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(IN_THE_WORKER)
    env = {**os.environ, **KEYS, "RAY_TMPDIR": str(ray_folder), "SEEN": str(tmp_path / "seen")}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "site"), str(Path(__file__).parents[2])])
    log = (tmp_path / "log").open("wb")
    child = subprocess.Popen(
        [sys.executable, "-m", "gemma_nli", "--verbose", "sweep", str(file)],
        env=env,
        cwd=tmp_path,
        stdout=log,
        stderr=log,
    )
    said = []
    while child.poll() is None:
        said.append(command_lines(child.pid))
        time.sleep(0.05)
    assert child.returncode == 0, (tmp_path / "log").read_text()[-2000:]
    seen = "\n".join(said)
    assert "default_worker.py" in seen, "workers were seen as they started"
    for name, value in KEYS.items():
        assert value not in seen, name
        assert holders(ray_folder, value) == [], name
        assert holders(tmp_path, value, beside=(tmp_path / "seen",)) == [], name
    assert KEYS["AWS_SECRET_ACCESS_KEY"] in (tmp_path / "seen").read_text()  # so a worker reaches its bucket
