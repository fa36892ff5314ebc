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
    """Ready, the URI to use, and how; wide: where it is and whose."""
    objects.create("web")
    uri = objects.wait_ready("web", tell=operator.log)["status"]["uri"]
    header, row = cluster.kubectl("get", "artrepo", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "READY", "URI", "STATUS", "AGE"]
    assert row.split()[:3] == ["web", "True", uri]
    assert "Push and pull URI:TAG" in row
    wide = cluster.kubectl("get", "arepo", "-n", namespace, "-o", "wide").splitlines()
    assert wide[0].split() == ["NAME", "READY", "URI", "REGISTRY", "ORIGIN", "STATUS", "AGE"]
    assert wide[1].split()[3:5] == ["artifacts", "Created"]
    assert "web" in cluster.kubectl("get", "artifacts", "-n", namespace)


def test_trouble_is_plain_in_one_look(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, namespace: str
) -> None:
    """With the registry down: what is wrong, since when, what the operator does about it, and what to check."""
    address = f"http://127.0.0.1:{free_port()}"
    operator = start_operator(operator_config(address))
    objects.create("web")
    objects.wait("web", lambda o: ready(o) == ("False", "RegistryUnavailable"), tell=operator.log)
    row = cluster.kubectl("get", "artrepo", "-n", namespace).splitlines()[1]
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
