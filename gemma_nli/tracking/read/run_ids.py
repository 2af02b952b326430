"""Runs by their ids, full or abbreviated as `gemma-nli runs` prints them."""

from __future__ import annotations

import re

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.tracking.store.mlflow_store import Store

CANDIDATES = 5


def get_run(client: MlflowClient, store: Store, run_id: str) -> Run:
    """The run with an id, or with a unique prefix of one; call it within `talking`.

    Raises:
        TrackingError: no such run, with how to list them, or several, with their ids and names.
    """
    wanted = run_id.strip().lower()
    if re.fullmatch(r"[0-9a-f]{1,31}", wanted):
        found = _beginning_with(client, wanted)
        if len(found) == 1:
            return found[0]
        if found:
            names = [f"  {run.info.run_id}  {run.info.run_name}" for run in found[:CANDIDATES]]
            more = ["  ..."] if len(found) > CANDIDATES else []
            message = "\n".join([f"{store.shown}: more than one run begins with '{run_id}':", *names, *more])
            raise TrackingError(message)
    else:
        try:
            return client.get_run(wanted if re.fullmatch(r"[0-9a-f]{32}", wanted) else run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    raise TrackingError(f"{store.shown}: no run '{run_id}'; list them with: {store.line('runs')}")


def _beginning_with(client: MlflowClient, beginning: str) -> list[Run]:
    """Active runs of the whole store, one more than are listed at most."""
    experiments: list[str] = []
    token = None
    while True:
        page = client.search_experiments(view_type=ViewType.ALL, max_results=1000, page_token=token)
        experiments += [experiment.experiment_id for experiment in page]
        token = page.token
        if not token:
            break
    query = f"attributes.run_id LIKE '{beginning}%'"
    return list(client.search_runs(experiments, query, max_results=CANDIDATES + 1)) if experiments else []
