"""Detection of changes of credential and CA files."""

from pathlib import Path

from controller.binding import RegistryBinding
from controller.registryfiles import RegistryFiles


def binding(**fields: object) -> RegistryBinding:
    """Return a binding of an HTTPS registry."""
    return RegistryBinding.model_validate({"registryUrl": "https://registry:5000", **fields})


def test_each_kind_of_file_is_checked(tmp_path: Path) -> None:
    """A change of user, password, Docker configuration or CA bundle names the binding, once."""
    files = {name: tmp_path / name for name in ("user", "password", "docker", "ca")}
    for path in files.values():
        path.write_text("before")
    bindings = {
        "basic": binding(
            credentials={"basic": {"usernameFile": str(files["user"]), "passwordFile": str(files["password"])}}
        ),
        "docker": binding(credentials={"dockerConfigFile": str(files["docker"])}),
        "tls": binding(tls={"caFile": str(files["ca"])}),
        "open": binding(),
    }
    watcher = RegistryFiles()
    assert watcher.changed(bindings) == set()
    for name, expected in {"user": "basic", "password": "basic", "docker": "docker", "ca": "tls"}.items():
        fresh = tmp_path / "fresh"
        fresh.write_text("after")
        fresh.replace(files[name])
        assert watcher.changed(bindings) == {expected}
        assert watcher.changed(bindings) == set()


def test_a_created_or_deleted_file_has_changed(tmp_path: Path) -> None:
    """A Secret may be mounted later, or removed."""
    path = tmp_path / "docker"
    bindings = {"docker": binding(credentials={"dockerConfigFile": str(path)})}
    watcher = RegistryFiles()
    assert watcher.changed(bindings) == set()
    path.write_text("{}")
    assert watcher.changed(bindings) == {"docker"}
    path.unlink()
    assert watcher.changed(bindings) == {"docker"}


def test_a_binding_that_names_other_files_has_not_changed(tmp_path: Path) -> None:
    """After a change of the configuration all objects are reconciled anyway."""
    watcher = RegistryFiles()
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        assert watcher.changed({"x": binding(credentials={"dockerConfigFile": str(tmp_path / name)})}) == set()
