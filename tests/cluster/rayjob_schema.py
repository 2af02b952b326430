"""The part of KubeRay's RayJob v1 that deploy/kuberay-rayjob.yaml may use, as a JSON schema.

Written by hand after the API's Go types (ray-operator/apis/ray/v1: RayJobSpec, RayClusterSpec, HeadGroupSpec,
WorkerGroupSpec, AutoscalerOptions): the generated CRD is no part of any package that tests could install. Ray's part is
closed: a field that is not in those types is refused, as the operator's strict decoding would. Of Kubernetes' own pod
template only the fields that we use are here, closed too; what they mean to a real API server is not tested.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
YES_NO = {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
DNS_LABEL = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def many(item: dict[str, Any], least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": least}


RESOURCES = closed(requests=QUANTITIES, limits=QUANTITIES)
CONTAINER = closed(
    ("name", "image"),
    name=DNS_LABEL,
    image=TEXT,
    env=many(closed(("name",), name=TEXT, value=TEXT)),
    ports=many(closed(("containerPort",), name=DNS_LABEL, containerPort={"type": "integer", "maximum": 65535})),
    resources=RESOURCES,
    volumeMounts=many(closed(("name", "mountPath"), name=DNS_LABEL, mountPath={"type": "string", "pattern": "^/"})),
)
VOLUME = closed(
    ("name", "persistentVolumeClaim"),
    name=DNS_LABEL,
    persistentVolumeClaim=closed(("claimName",), claimName=DNS_LABEL),
)
TOLERATION = closed(
    key=TEXT,
    operator={"enum": ["Exists", "Equal"]},
    effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
)
POD = closed(
    ("spec",),
    spec=closed(("containers",), containers=many(CONTAINER, 1), volumes=many(VOLUME), tolerations=many(TOLERATION)),
)
HEAD = closed(("rayStartParams", "template"), rayStartParams=TEXTS, template=POD, serviceType=TEXT)
WORKERS = closed(
    ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    groupName=DNS_LABEL,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=COUNT,
    rayStartParams=TEXTS,
    template=POD,
)
AUTOSCALER = closed(
    idleTimeoutSeconds=COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    resources=RESOURCES,
)
CLUSTER = closed(
    ("headGroupSpec",),
    rayVersion=TEXT,
    enableInTreeAutoscaling=YES_NO,
    autoscalerOptions=AUTOSCALER,
    headGroupSpec=HEAD,
    workerGroupSpecs=many(WORKERS, 1),
)
RAY_JOB = closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=closed(("name",), name={**DNS_LABEL, "maxLength": 47}, namespace=DNS_LABEL, labels=TEXTS),
    spec=closed(
        ("entrypoint", "rayClusterSpec"),
        entrypoint=TEXT,
        runtimeEnvYAML=TEXT,
        metadata=TEXTS,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
        backoffLimit=COUNT,
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        shutdownAfterJobFinishes=YES_NO,
        ttlSecondsAfterFinished=COUNT,
        suspend=YES_NO,
        rayClusterSpec=CLUSTER,
    ),
)
