"""`gemma-nli submit`, `jobs`, `logs`, `stop` and `check`: sweeps on a Ray cluster."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemma_nli.base.advice import command_line
from gemma_nli.base.errors import ConfigError
from gemma_nli.cli.app import AsJson, Overrides, SweepFile, app, print_json, say

if TYPE_CHECKING:
    from gemma_nli.sweep.cluster.jobs import Jobs

Address = Annotated[
    str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="the cluster's dashboard, such as http://127.0.0.1:8265")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="a job's id, as `jobs` shows it")]
CHECK_SECONDS = 600.0
HERE = "http://127.0.0.1:8265"


@app.command()
def submit(
    file: SweepFile,
    overrides: Overrides = None,
    address: Address = HERE,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="show its log until it ends")] = False,
    working_dir: Annotated[Path, typer.Option(help="folder that is uploaded with the job")] = Path("."),
    exclude: Annotated[
        list[str] | None, typer.Option(help="patterns to leave out of it, in .gitignore's syntax")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=VALUE]", help="environment variable of the job")
    ] = None,
    check: Annotated[bool, typer.Option(help="first check that every node has what the sweep needs")] = True,
    as_json: AsJson = False,
) -> None:
    """Check that a cluster has what a sweep needs, then queue it.

    Everything missing is reported in one sentence each, and nothing is queued then.
    """
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
    """List the cluster's jobs, newest first."""
    from gemma_nli.console.job_table import show_jobs

    found = _jobs(address).list()
    print_json(as_json, [asdict(job) for job in found])
    if not as_json:
        show_jobs(found)


@app.command()
def logs(
    job: JobId,
    address: Address = HERE,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="follow it until it ends, then exit with its status")
    ] = False,
) -> None:
    """Show what a job has printed."""
    jobs = _jobs(address)
    if follow:
        _follow(jobs, job, address)
    say(jobs.logs(job), end="")


@app.command()
def stop(job: JobId, address: Address = HERE) -> None:
    """Stop a job.

    Submitted again, its sweep continues where it stopped.
    """
    ended = _jobs(address).stop(job)
    say(f"{ended.id} {ended.status.lower()}")
    raise typer.Exit(0 if ended.over else 1)


@app.command()
def check(file: SweepFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check that every node has what a sweep needs (on the head).

    Run it on the head of the cluster; `submit` does this by itself.
    """
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
        say(f"\nthe job is still running; stop it with: {_line('stop', job, address)}", err=True)
        raise typer.Exit(130) from None
    ended = jobs.wait(job, 30)
    say(f"{ended.id} {ended.status.lower()}", err=True)
    raise typer.Exit(ended.exit_status)


def _line(*words: str) -> str:
    """A command about a job; it ends with the cluster's address if a shell would not find that by itself."""
    *rest, address = words
    known = address == os.environ.get("RAY_API_SERVER_ADDRESS", HERE)
    return command_line("gemma-nli", *rest, *(() if known else ("--address", address)))


def _variables(words: list[str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` with its value here."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or (not equals and name not in os.environ):
            raise ConfigError(f"--env {word}: write NAME=VALUE, or the NAME of a variable that is set here.")
        found[name] = value if equals else os.environ[name]
    return found
