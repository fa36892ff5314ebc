"""How each server of a node is configured. Values in, files and command lines out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devcluster.node.access import Access
from devcluster.node.addresses import NODE_ADDRESS, NODE_NAME, REGISTRY_ADDRESS
from devcluster.node.images import PAUSE

_SERVICES = "10.96.0.0/16"
_PODS = "10.244.0.0/24"
_ETCD = "http://127.0.0.1:2379"
_CONTAINERD = "unix:///run/containerd/containerd.sock"
_CERTS_D = "/etc/containerd/certs.d"

Command = Sequence[str | Path]


def etc() -> Mapping[str, str]:
    """Return what a node has in /etc that the machine has not, by its path in there."""
    network = {
        "cniVersion": "1.0.0",
        "name": "node",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": _PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    return {
        "hosts": f"127.0.0.1 localhost\n{NODE_ADDRESS} {NODE_NAME}\n{REGISTRY_ADDRESS} kind-registry\n",
        "resolv.conf": f"nameserver {NODE_ADDRESS}\n",
        "cni/net.d/10-node.conflist": json.dumps(network, indent=2),
    }


class Configuration:
    """The command lines of a node's servers; their files are written when they are asked for.

    Args:
        folder: Where the files go.
        binaries: The folder with the programs.
        access: Who is who.
    """

    def __init__(self, folder: Path, binaries: Path, access: Access) -> None:
        self._folder = folder
        self._binaries = binaries
        self._access = access

    def etcd(self) -> Command:
        """Return the command of etcd."""
        return self._command(
            "etcd",
            {
                "data-dir": "/var/lib/etcd",
                "listen-client-urls": _ETCD,
                "advertise-client-urls": _ETCD,
                "listen-peer-urls": "http://127.0.0.1:2380",
                # The data need not survive the machine, only the process.
                "unsafe-no-fsync": "true",
            },
        )

    def apiserver(self, audit_log: Path) -> Command:
        """Return the command of the API server.

        Args:
            audit_log: Where it notes each request.
        """
        rules = {"omitStages": ["RequestReceived", "ResponseStarted"], "rules": [{"level": "Metadata"}]}
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", **rules}
        own = self._access
        return self._command(
            "kube-apiserver",
            {
                "etcd-servers": _ETCD,
                "advertise-address": NODE_ADDRESS,
                "secure-port": "6443",
                "cert-dir": "/var/run/kubernetes",
                "tls-cert-file": own.apiserver.certificate,
                "tls-private-key-file": own.apiserver.key,
                "client-ca-file": own.ca_file,
                "authorization-mode": "Node,RBAC",
                "enable-admission-plugins": "NodeRestriction",
                "allow-privileged": "true",
                "audit-log-path": audit_log,
                "audit-log-maxsize": "100",
                "audit-log-maxbackup": "1",
                "audit-policy-file": self._json("audit.json", policy),
                "service-cluster-ip-range": _SERVICES,
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": own.tokens.key,
                "service-account-signing-key-file": own.tokens.key,
                "kubelet-certificate-authority": own.ca_file,
                "kubelet-client-certificate": own.admin.certificate,
                "kubelet-client-key": own.admin.key,
                "kubelet-preferred-address-types": "InternalIP",
            },
        )

    def controller_manager(self) -> Command:
        """Return the command of the controller manager, with all of its usual controllers."""
        own = self._access
        return self._command(
            "kube-controller-manager",
            {
                "kubeconfig": self._access.kubeconfig("controller-manager", own.controller_manager),
                "leader-elect": "false",
                "use-service-account-credentials": "true",
                "service-account-private-key-file": own.tokens.key,
                "root-ca-file": own.ca_file,
                "service-cluster-ip-range": _SERVICES,
                # A node that is slow for once is not to lose its Pods.
                "node-monitor-grace-period": "120s",
            },
        )

    def scheduler(self) -> Command:
        """Return the command of the scheduler."""
        kubeconfig = self._access.kubeconfig("scheduler", self._access.scheduler)
        return self._command("kube-scheduler", {"kubeconfig": kubeconfig, "leader-elect": "false"})

    def proxy(self) -> Command:
        """Return the command of kube-proxy."""
        settings = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._access.kubeconfig("proxy", self._access.proxy))},
            "mode": "iptables",
            "hostnameOverride": NODE_NAME,
            "clusterCIDR": _PODS,
            "oomScoreAdj": 0,
            # These are the whole machine's.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
        return self._command("kube-proxy", {"config": self._json("proxy.json", settings)})

    def dns(self) -> Command:
        """Return the command of CoreDNS."""
        kubeconfig = self._access.kubeconfig("dns", self._access.admin)
        corefile = f"""\
.:53 {{
    errors
    hosts {{
        {REGISTRY_ADDRESS} kind-registry
        fallthrough
    }}
    kubernetes cluster.local {{
        kubeconfig {kubeconfig}
    }}
}}
"""
        return [self._binaries / "coredns", "-conf", self._file("Corefile", corefile)]

    def containerd(self) -> Command:
        """Return the command of containerd."""
        settings = f"""\
version = 3

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{_CERTS_D}"

[plugins."io.containerd.cri.v1.runtime"]
  # Not everywhere may root lower an oom_score_adj.
  restrict_oom_score_adj = true
  # It would load a profile into the machine's kernel.
  disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""
        return [self._binaries / "containerd", "--config", self._file("containerd.toml", settings)]

    def kubelet(self) -> Command:
        """Return the command of the kubelet."""
        own = self._access
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(own.ca_file)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(own.kubelet.certificate),
            "tlsPrivateKeyFile": str(own.kubelet.key),
            "containerRuntimeEndpoint": _CONTAINERD,
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDNS": [NODE_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": "/etc/resolv.conf",
            # A changed ConfigMap or Secret reaches Pods within seconds, instead of within a minute.
            "syncFrequency": "10s",
            # The disk is the machine's: no Pod is to be evicted, and no image deleted, for what others fill it with.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
        }
        return self._command(
            "kubelet",
            {
                "config": self._json("kubelet.json", settings),
                "kubeconfig": self._access.kubeconfig("kubelet", own.kubelet),
                "hostname-override": NODE_NAME,
                "node-ip": NODE_ADDRESS,
            },
        )

    def registry(self, storage: Path) -> Command:
        """Return the command of the registry.

        Args:
            storage: The folder for its data.
        """
        settings = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
            "http": {"addr": ":5000"},
        }
        return [self._binaries / "registry", "serve", self._json("registry.json", settings)]

    def _command(self, program: str, flags: Mapping[str, object]) -> Command:
        return [self._binaries / program, *(f"--{flag}={value}" for flag, value in flags.items())]

    def _json(self, name: str, settings: Mapping[str, Any]) -> Path:
        return self._file(name, json.dumps(settings, indent=2))  # JSON is YAML

    def _file(self, name: str, text: str) -> Path:
        self._folder.mkdir(exist_ok=True)
        path = self._folder / name
        path.write_text(text)
        return path
