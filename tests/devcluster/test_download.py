"""Downloads from a server on loopback that serves an archive well, badly, or not at all."""

import hashlib
from pathlib import Path

import pytest

from devcluster import download as downloads
from devcluster.certificates import Certificate, CertificateAuthority
from devcluster.download import DownloadFailed, OutOfReach, download
from tests.devcluster.releases import Releases, archive_of, serving, silent


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """Return a server's certificate that clients of this process trust."""
    authority = CertificateAuthority(tmp_path / "certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    return authority.issue("releases")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digest_of_either_kind(tmp_path: Path, algorithm: str) -> None:
    """A download is verified by the algorithm that its pin names."""
    with serving(Releases(archive_of("registry"))) as releases:
        download(releases.archive(algorithm=algorithm), tmp_path / "file", progress=silent)
        wrong = f"{algorithm}:{hashlib.new(algorithm, b'other').hexdigest()}"
        with pytest.raises(DownloadFailed, match=f"is not what was pinned: its {algorithm} is"):
            download(releases.archive(wrong), tmp_path / "other", progress=silent)
    assert (tmp_path / "file").read_bytes() == releases.content


def test_redirect_is_followed(tmp_path: Path, certificate: Certificate) -> None:
    """Releases on GitHub redirect to another host, and what is cut off there is resumed there."""
    with (
        serving(Releases(archive_of("registry"), cuts=1, tls=certificate)) as storage,
        serving(Releases(storage.content, elsewhere=f"{storage.url}/0815", tls=certificate)) as releases,
    ):
        download(releases.archive(), tmp_path / "file", progress=silent)
    assert (tmp_path / "file").read_bytes() == storage.content
    assert storage.asked == ["all", f"bytes={len(storage.content) // 2}-"]


def test_redirect_keeps_tls(tmp_path: Path, certificate: Certificate) -> None:
    """A server with TLS cannot send the client to one without."""
    with (
        serving(Releases(archive_of("registry"))) as storage,
        serving(Releases(storage.content, elsewhere=f"{storage.url}/0815", tls=certificate)) as releases,
        pytest.raises(DownloadFailed, match=r"redirects to http://127.0.0.1:\d+/0815, without TLS"),
    ):
        download(releases.archive(), tmp_path / "file", progress=silent)
    assert storage.asked == []


@pytest.mark.parametrize("ranges", [True, False], ids=["resumed", "started again"])
def test_what_was_cut_off_is_continued(tmp_path: Path, *, ranges: bool) -> None:
    """A download that is cut off twice arrives whole, from where it ended if the server can do that."""
    with serving(Releases(archive_of("etcd"), cuts=2, ranges=ranges)) as releases:
        download(releases.archive(), tmp_path / "file", progress=silent)
    assert (tmp_path / "file").read_bytes() == releases.content
    half = len(releases.content) // 2
    assert releases.asked[:2] == ["all", f"bytes={half}-"]
    assert len(releases.asked) == 3


def test_attempts_end(tmp_path: Path) -> None:
    """A download that is always cut off fails after a few attempts."""
    with serving(Releases(archive_of("etcd"), cuts=99)) as releases, pytest.raises(DownloadFailed, match="times"):
        download(releases.archive(), tmp_path / "file", progress=silent)
    assert len(releases.asked) == 4


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (503, 4)])
def test_refusals_are_reported(tmp_path: Path, status: int, asked: int) -> None:
    """What the server refuses is reported with its status; only its own failures are tried again."""
    releases = Releases(b"no", status=status)
    with serving(releases), pytest.raises(DownloadFailed, match=f"HTTP {status}"):
        download(releases.archive(), tmp_path / "file", progress=silent)
    assert len(releases.asked) == asked


def test_silent_host_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that takes connections and says nothing is out of reach after the time for that."""
    monkeypatch.setattr(downloads, "_REACH_SECONDS", 0.2)
    with serving(Releases(b"", pause=2.0)) as releases, pytest.raises(OutOfReach, match="out of reach"):
        download(releases.archive(), tmp_path / "file", progress=silent)
    assert releases.asked == []


def test_slow_download_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that takes longer than a build is ended."""
    monkeypatch.setattr(downloads, "_DOWNLOAD_SECONDS", 0.0)
    with serving(Releases(archive_of("etcd"))) as releases, pytest.raises(DownloadFailed, match="takes longer than"):
        download(releases.archive(), tmp_path / "file", progress=silent)
