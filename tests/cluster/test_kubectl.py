"""What a person sees with kubectl: the columns, the description in trouble, and what ``kubectl explain`` teaches."""

import pytest

from devcluster.cluster import DevCluster
from devcluster.process import free_port
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import Objects, OperatorProcess, operator_config, ready

pytestmark = pytest.mark.cluster


def test_the_columns_answer_the_question(
    cluster: DevCluster, objects: Objects, operator: OperatorProcess, namespace: str
) -> None:
    """Ready, the URI to use, and why not; wide: where to push, where it is, whose, and how to use it."""
    objects.create("web")
    uri = objects.wait_ready("web", tell=operator.log)["status"]["uri"]
    header, row = cluster.kubectl("get", "artrepo", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "READY", "URI", "REASON", "AGE"]
    assert row.split()[:4] == ["web", "True", uri, "RepositoryReady"]
    assert len(row) <= 120
    wide = cluster.kubectl("get", "arepo", "-n", namespace, "-o", "wide").splitlines()
    assert wide[0].split() == ["NAME", "READY", "URI", "REASON", "AGE", "PUSH", "REGISTRY", "ORIGIN", "TAGS", "MESSAGE"]
    assert wide[1].split()[5:8] == [uri, "artifacts", "Created"]
    assert wide[1].endswith("Push and pull URI:TAG")
    assert "web" in cluster.kubectl("get", "artifacts", "-n", namespace)


def test_trouble_is_plain_in_one_look(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, namespace: str
) -> None:
    """With the registry down: what is wrong, since when, what the operator does about it, and what to check."""
    address = f"http://127.0.0.1:{free_port()}"
    operator = start_operator(operator_config(address))
    objects.create("web")
    objects.wait("web", lambda o: ready(o) == ("False", "RegistryUnavailable"), tell=operator.log)
    assert "RegistryUnavailable" in cluster.kubectl("get", "artrepo", "-n", namespace)
    row = cluster.kubectl("get", "artrepo", "-n", namespace, "-o", "wide").splitlines()[1]
    described = cluster.kubectl("describe", "artrepo", "web", "-n", namespace)
    for text in (row, described):
        assert f"{address}: connection refused; check that it runs and is reachable" in text
    assert "Retrying" in described
    assert "Last Transition Time" in described
    assert "Reconciling" in described


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("artrepo", "never overwrites a tag"),
        ("artrepo.spec", "Default: `{}`, a repository named after the object"),
        ("artrepo.spec.repositoryName", "Can be changed until status.uri is set"),
        ("artrepo.status.references.host", "docker push"),
    ],
)
def test_explain_teaches(cluster: DevCluster, what: str, says: str) -> None:
    """``kubectl explain`` is documentation."""
    assert says in " ".join(cluster.kubectl("explain", what).split())
