"""Examples for clusters, and the commands in docs/cluster.md: they are what Ray and leamfast take."""

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml

from leamfast.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs/cluster.md", *sorted((ROOT / "examples").glob("*.yaml"))]


def runs(page: Path) -> list[list[str]]:
    """The words of every `leamfast batch` and `leamfast plan` of a page, after the program's name."""
    lines = page.read_text(encoding="utf-8").replace("\\\n#", " ").replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:python cli\.py|leamfast) ((?:batch|plan) [^`#|]*)", line) for line in lines]
    words = [shlex.split(match[1]) for match in found if match and not line_is_prose(match.string)]
    return [each for each in words if len(each) > 1]


def line_is_prose(line: str) -> bool:
    return "`" in line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page):
    command = typer.main.get_command(app)
    found = runs(page)
    assert found
    for name, *words in found:
        context = command.commands[name].make_context(name, words)
        assert context.params["config"] or context.params["data"]


def test_what_autoscales_is_what_ray_takes():
    config = yaml.safe_load((ROOT / "examples/ray-autoscaler.yaml").read_text())
    folder = Path(find_spec("ray").origin).parent / "autoscaler"
    jsonschema.validate(config, json.loads((folder / "ray-schema.json").read_text()))
    defaults = yaml.safe_load((folder / "local/defaults.yaml").read_text())
    assert set(config) <= set(defaults) | {"provider"}
    assert config["provider"]["type"] == "local"
    assert all(
        ip.startswith("10.") for ip in (config["provider"]["head_ip"], *config["provider"]["worker_ips"])
    )
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert ["RAY_AUTH_MODE=token" in line for line in commands if "ray start" in line] == [True]
    assert [name for name in config["file_mounts"] if name.endswith("/.ray/auth_token")]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_what_kuberay_gets():
    claim, cluster, job = yaml.safe_load_all((ROOT / "examples/kuberay.yaml").read_text())
    assert [part["kind"] for part in (claim, cluster, job)] == [
        "PersistentVolumeClaim",
        "RayCluster",
        "RayJob",
    ]
    spec = cluster["spec"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "leamfast-ray-token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    (workers,) = spec["workerGroupSpecs"]
    for group in (spec["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert container["image"] == "registry.example.com/leamfast:0.1.0"
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    gpus = int(limits["nvidia.com/gpu"]) * workers["replicas"]
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[words.index("--gpus") + 1] == str(gpus)


def test_links_of_the_page():
    page = ROOT / "docs/cluster.md"
    links = re.findall(r"\]\((?!http)([^)]+)\)", page.read_text(encoding="utf-8"))
    assert links
    assert all((page.parent / link).is_file() for link in links)
