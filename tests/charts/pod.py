"""The operator, run from a rendered Deployment as the kubelet would run it."""

import base64
import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import httpx

from devcluster.cluster import DevCluster
from devcluster.process import Probe, ServerProcess, free_port
from tests.charts.rendering import Document, only
from tests.cluster.harness import ROOT
from tests.image_user import IMAGE_HOME, as_image_user

HEALTH_PORT = "8081"
METRICS_PORT = "8080"


class OperatorPod:
    """An operator with just the arguments, files, environment, user and access that its Deployment gives it.

    What a Pod has for its own is put somewhere else: its volumes below ``directory``, its port on loopback. The Pod is
    an object in the cluster, too, from construction to the end of the ``with`` block; no scheduler takes it.

    Args:
        documents: What was rendered.
        cluster: The cluster that it is installed in.
        directory: For its files.
        kubeconfig: Its access to the API server, where it is not that of its ServiceAccount.
    """

    def __init__(
        self, documents: Sequence[Document], cluster: DevCluster, directory: Path, *, kubeconfig: Path | None = None
    ) -> None:
        deployment = only(documents, "Deployment")
        namespace = deployment["metadata"]["namespace"]
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        self._cluster = cluster
        self.pod = _create_pod(cluster, deployment)
        self.address = f"127.0.0.1:{free_port()}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        self._folders: dict[str, Path] = {
            mount["mountPath"]: directory / mount["name"] for mount in container["volumeMounts"]
        }
        self._mount(documents, cluster, spec, container)
        arguments = (self._argument(argument) for argument in container["args"])
        access = kubeconfig or cluster.service_account_kubeconfig(
            namespace, spec["serviceAccountName"], timedelta(hours=1)
        )
        self.process = ServerProcess(
            self.pod["metadata"]["name"],
            [*as_image_user(), sys.executable, "-m", "controller", *arguments],
            probes=[Probe(f"http://{self.address}{container['readinessProbe']['httpGet']['path']}")],
            log=directory / "operator.log",
            directory=ROOT,
            environment={
                "HOME": IMAGE_HOME,
                "KUBECONFIG": str(access),
                "PYTHONWARNINGS": "error",
                **{entry["name"]: _value(entry, self.pod) for entry in container["env"]},
            },
        )

    def __enter__(self) -> Self:
        self.process.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """End it as the kubelet does: SIGTERM, then the Pod is gone."""
        self.process.stop(timeout=30)
        self.delete()

    def delete(self) -> None:
        """Delete the Pod object."""
        metadata = self.pod["metadata"]
        self._cluster.kubectl("delete", "pod", metadata["name"], "-n", metadata["namespace"], "--ignore-not-found")

    @property
    def config(self) -> Path:
        """Its configuration file, as the kubelet would write it."""
        return self._folders["/etc/artifact-repository-controller"] / "config.yaml"

    def log(self) -> str:
        """Return the end of its log."""
        return self.process.log_tail(40)

    def metrics(self) -> str:
        """Return its metrics."""
        return httpx.get(f"http://{self.metrics_address}/metrics", trust_env=False).text

    def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        (value,) = re.findall(rf"^{name} (\S+)$", self.metrics(), re.MULTILINE)
        return float(value)

    def _mount(
        self, documents: Sequence[Document], cluster: DevCluster, spec: Mapping[str, Any], container: Mapping[str, Any]
    ) -> None:
        """Write the files of the volumes, those of the user's Secrets and ConfigMaps as they are in the cluster."""
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in container["volumeMounts"]:
            folder = self._folders[mount["mountPath"]]
            folder.mkdir(parents=True)
            source = volumes[mount["name"]]
            namespace = only(documents, "Deployment")["metadata"]["namespace"]
            if "secret" in source:
                secret = cluster.kubectl("get", "secret", source["secret"]["secretName"], "-n", namespace, "-o", "json")
                for file, content in json.loads(secret)["data"].items():
                    (folder / file).write_bytes(base64.b64decode(content))
            elif mount["mountPath"].startswith("/etc/registries/"):
                name = source["configMap"]["name"]
                found = json.loads(cluster.kubectl("get", "configmap", name, "-n", namespace, "-o", "json"))
                for file, text in found["data"].items():
                    (folder / file).write_text(text)
            else:
                for file, text in only(documents, "ConfigMap", name=source["configMap"]["name"])["data"].items():
                    # What the configuration says of folders is true in the Pod only.
                    (folder / file).write_text(self._argument(text))

    def _argument(self, argument: str) -> str:
        for path, folder in self._folders.items():
            argument = argument.replace(path, str(folder))
        for flag, port, address in (
            ("--health-address", HEALTH_PORT, self.address),
            ("--metrics-address", METRICS_PORT, self.metrics_address),
        ):
            argument = argument.replace(f"{flag}=:{port}", f"{flag}={address}")
        return argument


def _create_pod(cluster: DevCluster, deployment: Document) -> Document:
    """Create a Pod as the Deployment's controller would; return it."""
    template, metadata = deployment["spec"]["template"], deployment["metadata"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **template["metadata"],
            "generateName": f"{metadata['name']}-",
            "namespace": metadata["namespace"],
        },
        "spec": template["spec"],
    }
    created: Document = json.loads(cluster.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(pod)))
    return created


def _value(entry: Mapping[str, Any], pod: Document) -> str:
    """Return the value of an environment variable: as it stands, or a field of the Pod's metadata."""
    if "value" in entry:
        return str(entry["value"])
    part, field = entry["valueFrom"]["fieldRef"]["fieldPath"].split(".")
    return str(pod[part][field])
