"""MLflow's own functions on the store that this package writes to."""

from __future__ import annotations

import mlflow

from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.store.mlflow_store import connect_existing, resolve_store, talking


def use_store(tracking_uri: str | None = None) -> None:
    """Point `mlflow` at our store, for this process: without this it creates a `mlflow.db` in the working folder.

    >>> gemma_nli.use_store()
    >>> mlflow.pyfunc.load_model("models:/gemma_nli_demo@candidate")

    Args:
        tracking_uri: a store other than the default one.
    Raises:
        TrackingError: no store there yet, or it cannot be reached.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    with talking(store, "use it"):
        connect_existing(store)
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_registry_uri(store.uri)
