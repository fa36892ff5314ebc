"""Who is who on a node: certificates, and kubeconfigs with them."""

import json
from pathlib import Path
from typing import Final

from devcluster.certificates import Certificate, CertificateAuthority
from devcluster.node.addresses import NODE_ADDRESS, NODE_NAME

API_SERVER: Final = f"https://{NODE_ADDRESS}:6443"

# Called as kind calls that of a cluster without a name.
_CONTEXT = "kind-kind"


class Access:
    """Servers and clients of a node, each with the name that Kubernetes' own permissions are made for.

    Args:
        folder: The node's.
    """

    def __init__(self, folder: Path) -> None:
        self._kubeconfigs = folder / "kubeconfigs"
        self._kubeconfigs.mkdir()
        self.authority = authority = CertificateAuthority(folder / "certificates")
        services = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.96.0.1")
        self.apiserver = authority.issue("kube-apiserver", "localhost", "127.0.0.1", NODE_ADDRESS, *services)
        # Members of this group may do anything, whatever RBAC says.
        self.admin = authority.issue("admin", organization="system:masters")
        kubelet = f"system:node:{NODE_NAME}"
        self.kubelet = authority.issue(kubelet, NODE_NAME, NODE_ADDRESS, organization="system:nodes")
        self.controller_manager = authority.issue("system:kube-controller-manager")
        self.scheduler = authority.issue("system:kube-scheduler")
        self.proxy = authority.issue("system:kube-proxy")
        self.tokens = authority.issue("service-account-tokens")

    @property
    def ca_file(self) -> Path:
        """The CA of all of them."""
        return self.authority.ca_file

    def kubeconfig(self, name: str, certificate: Certificate, server: str = API_SERVER) -> Path:
        """Write a kubeconfig and return its path.

        Args:
            name: How its file is called.
            certificate: The user's.
            server: The API server, as the user calls it.
        """
        user = {"client-certificate": str(certificate.certificate), "client-key": str(certificate.key)}
        cluster = {"server": server, "certificate-authority": str(self.ca_file)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": _CONTEXT, "cluster": cluster}],
            "users": [{"name": _CONTEXT, "user": user}],
            "contexts": [{"name": _CONTEXT, "context": {"cluster": _CONTEXT, "user": _CONTEXT}}],
            "current-context": _CONTEXT,
        }
        path = self._kubeconfigs / name
        path.touch(mode=0o600)
        path.write_text(json.dumps(content, indent=2))  # JSON is YAML
        return path
