"""The manifest in docs/launching.md has the fields that a cluster accepts.

Oracle: what JobSet's own CustomResourceDefinition says of them (kubernetes-sigs/jobset v0.9.1,
config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml), written down as far as the manifest reaches. The API server
refuses unknown fields and missing ones, so they are refused here. A few rules are of Kubernetes itself.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vit_cli.train import long_names

PAGE = Path(__file__).parent.parent / "docs" / "launching.md"

_EXIT_CODES = {"containerName": str, "operator!": {"In", "NotIn"}, "values!": [int]}
_POD_RULE = {"action!": {"FailIndex", "FailJob", "Ignore", "Count"}, "onExitCodes": _EXIT_CODES}
_CONTAINER = {
    "name!": str, "image": str, "command": [str], "args": [str], "resources": {"limits": {...: (int, str)}},
}  # fmt: skip
_POD = {
    "restartPolicy": {"Never", "OnFailure"}, "serviceAccountName": str, "terminationGracePeriodSeconds": int,
    "nodeSelector": {...: str}, "containers!": [_CONTAINER],
}  # fmt: skip
_JOB = {
    "parallelism": int, "completions": int, "completionMode": {"Indexed", "NonIndexed"}, "backoffLimit": int,
    "podFailurePolicy": {"rules!": [_POD_RULE]}, "template!": {"metadata": {"labels": {...: str}}, "spec": _POD},
}  # fmt: skip
_ACTIONS = {
    "FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts", "RestartJob", "RestartJobAndIgnoreMaxRestarts"
}  # fmt: skip
_RULE = {
    "name!": str, "action!": _ACTIONS, "onJobFailureReasons": [str], "onJobFailureMessagePatterns": [str],
    "targetReplicatedJobs": [str],
}  # fmt: skip
SCHEMA = {
    "apiVersion!": {"jobset.x-k8s.io/v1alpha2"},
    "kind!": {"JobSet"},
    "metadata!": {"name!": str},
    "spec!": {
        "failurePolicy": {
            "maxRestarts": int, "restartStrategy": {"Recreate", "BlockingRecreate", "InPlaceRestart"},
            "rules": [_RULE],
        },
        "replicatedJobs!": [{"name!": str, "replicas": int, "template!": {"spec": _JOB}}],
    },
}  # fmt: skip
"""A field's name, with ``!`` where it must be there, → its type, a set of its values, its list or its fields; ``...``
stands for any name."""


def _faults(value: Any, schema: Any, at: str = "") -> Iterator[str]:
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{at} is no object"
            return
        fields = {str(name).rstrip("!"): each for name, each in schema.items() if name is not ...}
        for name in schema:
            if name is not ... and name.endswith("!") and name[:-1] not in value:
                yield f"{at}.{name[:-1]} is missing"
        for name, each in value.items():
            if name in fields or ... in schema:
                yield from _faults(each, fields.get(name, schema.get(...)), f"{at}.{name}")
            else:
                yield f"{at}.{name} is no field"
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield f"{at} is no list"
            return
        for number, each in enumerate(value):
            yield from _faults(each, schema[0], f"{at}[{number}]")
    elif isinstance(schema, set):
        if value not in schema:
            yield f"{at} is {value}"
    elif not isinstance(value, schema) or isinstance(value, bool):
        yield f"{at} is a {type(value).__name__}"


def _manifest() -> dict[str, Any]:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return yaml.safe_load(text)


def _job(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def test_the_jobset_has_the_fields_that_a_cluster_accepts() -> None:
    manifest = _manifest()
    assert list(_faults(manifest, SCHEMA)) == []
    job = _job(manifest)
    assert job["completionMode"] == "Indexed"  # JAX reads the index
    assert job["parallelism"] == job["completions"]  # all hosts of a slice at the same time
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # which podFailurePolicy asks for
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]  # sorted, as Kubernetes asks for
    (rule,) = manifest["spec"]["failurePolicy"]["rules"]
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])  # as JobSet's webhook asks for
    (container,) = job["template"]["spec"]["containers"]
    assert container["name"] == job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"]


def test_the_jobsets_command_is_one() -> None:
    program, command, *options = _job(_manifest())["template"]["spec"]["containers"][0]["command"]
    assert (program, command) == ("vitport", "train")
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given == {"--workdir": "gs://BUCKET/run", "--data": "gs://BUCKET/shards"}
    assert long_names(options)[2] == "--data.path"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda it: it["spec"].update(maxRestarts=3), ".spec.maxRestarts is no field"),
        (lambda it: it.pop("kind"), ".kind is missing"),
        (lambda it: _job(it).update(completions="4"), ".spec.replicatedJobs[0].template.spec.completions is a str"),
        (lambda it: _job(it).pop("template"), ".spec.replicatedJobs[0].template.spec.template is missing"),
        (lambda it: _job(it).update(completionMode="indexed"),
         ".spec.replicatedJobs[0].template.spec.completionMode is indexed"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_is_found(change, fault) -> None:
    manifest = copy.deepcopy(_manifest())
    change(manifest)
    assert list(_faults(manifest, SCHEMA)) == [fault]
