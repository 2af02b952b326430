"""`gemma-nli submit`, `jobs`, `logs`, `stop` and `check`: sweeps on a Ray cluster."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemma_nli.base.advice import command_line
from gemma_nli.base.errors import ConfigError
from gemma_nli.cli.app import AsJson, Overrides, app, print_json, say

if TYPE_CHECKING:
    from gemma_nli.sweep.cluster.jobs import Jobs

Address = Annotated[
    str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="the cluster's dashboard, as in http://127.0.0.1:8265")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="a job's id, as `jobs` shows it")]
CHECK_SECONDS = 600.0
HERE = "http://127.0.0.1:8265"


@app.command()
def submit(
    file: Path,
    overrides: Overrides = None,
    address: Address = HERE,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="show its log until it ends")] = False,
    working_dir: Annotated[Path, typer.Option(help="folder that travels with the job")] = Path("."),
    exclude: Annotated[list[str] | None, typer.Option(help="what of it stays here, as .gitignore would say")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME[=VALUE]", help="variable of the job")] = None,
    check: Annotated[bool, typer.Option(help="ask every node first for what the sweep needs")] = True,
    as_json: AsJson = False,
) -> None:
    """Queue a sweep on a cluster, once its nodes are known to have what it needs."""
    jobs = _jobs(address)
    job = jobs.submit(
        file, overrides or [], working_dir, _variables(env or []), exclude or [], 600.0 if check else None
    )
    print_json(
        as_json, {"job": job}, f"queued {job}\n  {_line('logs', '-f', job, address)}\n  {_line('stop', job, address)}"
    )
    if follow:
        _follow(jobs, job, address)


@app.command("jobs")
def list_jobs(address: Address = HERE, as_json: AsJson = False) -> None:
    """The cluster's jobs, the newest first."""
    from gemma_nli.console.job_table import show_jobs

    found = _jobs(address).list()
    print_json(as_json, [asdict(job) for job in found])
    if not as_json:
        show_jobs(found)


@app.command()
def logs(
    job: JobId,
    address: Address = HERE,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="until it ends; then its exit status")] = False,
) -> None:
    """What a job has printed."""
    jobs = _jobs(address)
    if follow:
        _follow(jobs, job, address)
    say(jobs.logs(job), end="")


@app.command()
def stop(job: JobId, address: Address = HERE) -> None:
    """End a job; submitted again, its sweep goes on where it was."""
    ended = _jobs(address).stop(job)
    say(f"{ended.id} {ended.status.lower()}")
    raise typer.Exit(0 if ended.over else 1)


@app.command()
def check(file: Path, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Ask the cluster that this machine is the head of whether every node has what a sweep needs."""
    from gemma_nli.spec.spec import load_sweep
    from gemma_nli.sweep.cluster.preflight import check_cluster

    checked = check_cluster(load_sweep(file, overrides or []))
    fine = f"{len(checked.nodes)} nodes have what {file} needs"
    print_json(as_json, checked.to_json(), "\n".join(checked.misses) or fine)
    raise typer.Exit(2 if checked.misses else 0)


def _jobs(address: str) -> Jobs:
    from gemma_nli.sweep.cluster.jobs import Jobs

    return Jobs(address)


def _follow(jobs: Jobs, job: str, address: str) -> None:
    try:
        for chunk in jobs.follow(job):
            say(chunk, end="")
    except KeyboardInterrupt:
        say(f"\nthe job goes on; end it with: {_line('stop', job, address)}", err=True)
        raise typer.Exit(130) from None
    ended = jobs.wait(job, 30)
    say(f"{ended.id} {ended.status.lower()}", err=True)
    raise typer.Exit(ended.exit_status)


def _line(*words: str) -> str:
    """A command about a job; the last word is the cluster's address, named where a shell would not find it itself."""
    *rest, address = words
    known = address == os.environ.get("RAY_API_SERVER_ADDRESS", HERE)
    return command_line("gemma-nli", *rest, *(() if known else ("--address", address)))


def _variables(words: list[str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` with its value here."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or (not equals and name not in os.environ):
            raise ConfigError(f"--env {word}: write NAME=VALUE, or a NAME that is set here.")
        found[name] = value if equals else os.environ[name]
    return found
