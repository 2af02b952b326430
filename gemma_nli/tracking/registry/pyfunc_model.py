"""The registered model's script: MLflow stores this file as code and runs it at loading, so no pickle is involved.

`register.py` stores the bundle and this package beside it. Nothing else imports this file.
"""

from __future__ import annotations

from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from gemma_nli.base.outgoing import leaving
from gemma_nli.model.bundles.scorer import PairScorer


class CriteriaMatcher(PythonModel):
    """Pairs in, (probability, label) out; posts alone in, both per criterion and the threshold out.

    Where criteria have thresholds of their own, what decided each pair comes with it.
    """

    def load_context(self, context: PythonModelContext) -> None:
        self.scorer = PairScorer.from_bundle(context.artifacts["bundle"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        with leaving():  # a server writes its input into its log, and into the response
            return self.scorer.answer(model_input)


mlflow.models.set_model(CriteriaMatcher())
