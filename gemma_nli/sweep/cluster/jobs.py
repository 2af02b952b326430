"""Sweeps as jobs of a Ray cluster: checked there, packed, queued, listed, followed and stopped through its HTTP API."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient, JobType

from gemma_nli.base.advice import install_line
from gemma_nli.base.errors import SweepError, did_you_mean
from gemma_nli.base.masking import mask_credentials
from gemma_nli.spec.spec import load_sweep
from gemma_nli.sweep.cluster.job_arguments import check_secrets, host_and_port, inside

LEFT_OUT = (".git", ".venv", "venv", "mlruns", "*.db", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")
"""What is never uploaded with a job, besides what .gitignore and .rayignore name."""
STOP_SECONDS = 60
"""How long a stopped job may finish its running folds and its MLflow updates before it is killed."""
_SWEEP = "gemma_nli.sweep"
_CHECK = "_check-"  # no sweep's name begins so; Ray's list keeps an entry of a deleted job that was a driver
_VERBOSE_MODULES = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
_AUTH = "the cluster asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here as on the head."


@dataclass(frozen=True)
class Job:
    """A job of the cluster. Times are seconds since 1970; `seconds`: its running time."""

    id: str
    sweep: str
    status: str
    started: float | None
    seconds: float | None
    command: str
    exit_code: int | None = None

    @property
    def over(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def exit_status(self) -> int:
        """The exit status that `gemma-nli sweep` would have had here: its own, or 130 if it was stopped."""
        if self.status == "SUCCEEDED":
            return 0
        return 130 if self.status == "STOPPED" else (self.exit_code or 1)


class Jobs:
    """The job server of a cluster."""

    def __init__(self, address: str) -> None:
        """
        Args:
            address: of the dashboard, such as http://127.0.0.1:8265.
        Raises:
            SweepError: nothing answers there, it is not a Ray dashboard, or it requires a token.
        """
        host, port = host_and_port(address)
        self.address = address
        try:
            socket.create_connection((host, port), timeout=5).close()
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise SweepError(
                f"{address}: nothing answers ({why}); is the head up, and the tunnel to it? "
                "(`ray dashboard cluster.yaml` opens one)"
            ) from None
        for module in _VERBOSE_MODULES:
            logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)  # of each package and socket, on our stderr
        with self._asking(), _no_ray_address():
            self._client = JobSubmissionClient(address)

    def submit(
        self,
        file: Path,
        overrides: Sequence[str] = (),
        working_dir: Path = Path("."),
        environment: Mapping[str, str] | None = None,
        excludes: Sequence[str] = (),
        check_seconds: float | None = 600.0,
    ) -> str:
        """Check the cluster, then queue `gemma-nli sweep FILE OVERRIDES` there; gives the job's id.

        Args:
            working_dir: uploaded with the job, whose working folder it is; contains the sweep file.
            environment: variables of the job; everyone who reaches the dashboard can read them.
            check_seconds: how long the check may take; None leaves it out.
        Raises:
            SpecError, ConfigError: a mistake in the sweep file or an override.
            SweepError: a secret among the arguments, or what the cluster lacks, one sentence each; then nothing is
            queued.
        """
        check_secrets(overrides, environment or {})
        spec = load_sweep(file, overrides)
        name = inside(file, working_dir)
        runtime = {
            "working_dir": str(working_dir),
            "excludes": [*LEFT_OUT, *excludes],
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **(environment or {})},
        }
        if check_seconds is not None:
            self._check(shlex.join(["gemma-nli", "check", name, *overrides, "--json"]), runtime, check_seconds)
        job = f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:4]}"
        self._queue(shlex.join(["gemma-nli", "sweep", name, *overrides]), runtime, job, {_SWEEP: spec.name})
        return job

    def list(self) -> list[Job]:
        """Jobs submitted to the cluster, newest first; drivers that joined directly are not jobs."""
        return [job for job in self._all() if not job.id.startswith(_CHECK)]

    def _all(self) -> Sequence[Job]:
        with self._asking():
            found = [_job(details) for details in self._client.list_jobs() if details.type == JobType.SUBMISSION]
        return sorted(found, key=lambda job: job.started or 0.0, reverse=True)

    def get(self, job: str) -> Job:
        """
        Raises:
            SweepError: no such job, with the nearest one.
        """
        jobs = {each.id: each for each in self._all()}
        if job not in jobs:
            raise SweepError(f"{self.address} has no job '{job}'{did_you_mean(job, jobs) or '; it has no jobs.'}")
        return jobs[job]

    def logs(self, job: str) -> str:
        """What a job has printed so far."""
        self.get(job)
        with self._asking():
            return str(self._client.get_job_logs(job))

    def follow(self, job: str) -> Iterator[str]:
        """What a job prints, live, until it ends; starts with what it has already printed."""
        self.get(job)
        tail: AsyncIterator[str] = self._client.tail_job_logs(job)
        loop = asyncio.new_event_loop()
        try:
            with self._asking():
                while True:
                    try:
                        yield loop.run_until_complete(anext(tail))
                    except StopAsyncIteration:
                        return
        finally:
            loop.run_until_complete(tail.aclose())  # type: ignore[attr-defined]
            loop.close()

    def wait(self, job: str, seconds: float) -> Job:
        """The job once it has ended, or its state when the time is up."""
        until = time.monotonic() + seconds
        while True:
            found = self.get(job)
            if found.over or time.monotonic() > until:
                return found
            time.sleep(0.5)

    def stop(self, job: str) -> Job:
        """Ask a job to stop and wait for it: its running folds finish, and it continues when submitted again."""
        if not self.get(job).over:
            with self._asking():
                self._client.stop_job(job)
        return self.wait(job, STOP_SECONDS + 15)

    def _queue(self, command: str, runtime: dict[str, Any], job: str, metadata: dict[str, str]) -> None:
        with self._asking():
            self._client.submit_job(entrypoint=command, runtime_env=dict(runtime), submission_id=job, metadata=metadata)

    def _check(self, command: str, runtime: dict[str, Any], seconds: float) -> None:
        """Run `gemma-nli check` as a job of its own, which is deleted afterwards.

        Raises:
            SweepError: what it found missing, or why it could not check.
        """
        job = f"{_CHECK}{uuid.uuid4().hex[:12]}"
        self._queue(command, runtime, job, {_SWEEP: "(check)"})
        try:
            ended = self.wait(job, seconds)
            printed = self.logs(job)
            if not ended.over:
                raise SweepError(
                    f"{self.address}: the check did not end within {seconds:g} seconds (status {ended.status}); "
                    "see `ray status` on the head, or skip the check with --no-check."
                )
        finally:
            self._forget(job)
        answer = _json_in(printed)
        if answer is None:
            raise SweepError(f"{self.address}: the check could not run there: {_why(printed)}")
        if answer["misses"]:
            lines = "\n".join(f"  {miss}" for miss in answer["misses"])
            raise SweepError(f"nothing was queued; the cluster ({len(answer['nodes'])} nodes) lacks:\n{lines}")

    def _forget(self, job: str) -> None:
        with self._asking():
            if not self.get(job).over:
                self._client.stop_job(job)
                self.wait(job, STOP_SECONDS)
            self._client.delete_job(job)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turns Ray's client's exceptions into one-sentence errors."""
        try:
            yield
        except ImportError as error:
            raise SweepError(f"jobs need Ray's job client ({error}): {install_line('gemma-nli[cluster]')}") from None
        except RayError:  # its AuthenticationError takes 20 lines for what ours says in one
            raise SweepError(f"{self.address}: {_AUTH}") from None
        except (RuntimeError, ConnectionError, OSError, ValueError) as error:
            message = " ".join(mask_credentials(str(error)).split())
            if "401" in message or "403" in message:
                raise SweepError(f"{self.address}: {_AUTH}") from None
            if "ray[default]" in message:
                raise SweepError(f"jobs need Ray's job client: {install_line('gemma-nli[cluster]')}") from None
            if "exceeds" in message or "too large" in message.lower():
                message += " (exclude folders with --exclude; data belong on the shared storage)"
            raise SweepError(f"{self.address}: {message[:600]}") from None


@contextmanager
def _no_ray_address() -> Iterator[None]:
    """Ray's client prefers these variables over the address it is given."""
    held = {name: os.environ.pop(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


def _job(details: Any) -> Job:
    started = details.start_time / 1000 if details.start_time else None
    ended = details.end_time / 1000 if details.end_time else time.time()
    return Job(
        id=str(details.submission_id),
        sweep=(details.metadata or {}).get(_SWEEP, "-"),
        status=str(details.status.value if isinstance(details.status, JobStatus) else details.status),
        started=started,
        seconds=ended - started if started else None,
        command=mask_credentials(details.entrypoint),
        exit_code=details.driver_exit_code,
    )


def _json_in(printed: str) -> dict[str, Any] | None:
    """The one JSON object that the check printed, found among the other lines of its log."""
    for found in re.findall(r"^\{$.*?^\}$", printed, flags=re.M | re.S):
        try:
            answer = json.loads(found)
        except ValueError:
            continue
        if isinstance(answer, dict) and {"nodes", "misses"} <= answer.keys():
            return answer
    return None


def _why(printed: str) -> str:
    lines = [line for line in mask_credentials(printed).strip().splitlines() if line.strip()]
    last = lines[-1][:400] if lines else "it printed nothing"
    if "not found" in last or "No module named" in last:
        return f"{last}; install the project on every node (setup_commands of cluster.yaml)."
    return last
