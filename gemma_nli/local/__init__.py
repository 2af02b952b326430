"""One configuration on this machine, without Ray: trained, journalled, shown in MLflow, run again, used for
predictions.
"""
