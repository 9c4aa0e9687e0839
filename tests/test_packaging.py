"""The same commands from a wheel, from an editable install, from a checkout, and inside a Ray worker."""

import ast
import json
import os
import secrets
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAZY = ("ray", "facer", "ot", "matplotlib", "timm", "cv2", "pandas", "triton")


def run(command: list, **options) -> str:
    options.setdefault("env", {k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT])
    return next(out.glob("*.whl"))


WEIGHTS = {
    "leamfast/models/demo.safetensors",
    "leamfast_bench/truth/weights/eyes-plain-0.safetensors",
    "leamfast_bench/truth/weights/nose-plain-0.safetensors",
}


def test_the_wheel_holds_the_three_packages_and_no_data_but_weights(wheel):
    files = {file.filename: file for file in zipfile.ZipFile(wheel).infolist()}
    tops = {name.split("/")[0] for name in files if "dist-info" not in name}
    assert tops == {"leamfast", "leamfast_kernels", "leamfast_bench"}
    assert {name for name, file in files.items() if file.file_size > 200_000} == WEIGHTS
    assert sum(file.compress_size for name, file in files.items() if name in WEIGHTS) < 4.5e6
    assert sum(file.compress_size for name, file in files.items() if name not in WEIGHTS) < 1e6


def test_the_wheel_works_by_itself(wheel, tmp_path):
    site = tmp_path / "site"
    run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel])
    env = {**os.environ, "PYTHONPATH": str(site)}
    where = run([sys.executable, "-c", "import leamfast; print(leamfast.__file__)"], env=env, cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(site)
    run([site / "bin/leamfast", "synth", "faces", "--identities", 2, "--images", 2], env=env, cwd=tmp_path)
    command = [
        "batch",
        "faces",
        "--out",
        "out",
        "--model",
        "demo",
        "--align",
        "none",
        "--layers",
        "conv1",
        "--json",
    ]
    report = json.loads(run([site / "bin/leamfast", *command], env=env, cwd=tmp_path))
    assert report["images"] == 4


def test_the_installed_command_works(tmp_path):
    command = Path(sysconfig.get_path("scripts")) / "leamfast"
    if not command.exists():
        pytest.skip("leamfast is not installed in this environment: pip install -e .")
    assert "models" in json.loads(run([command, "models", "--json"], cwd=tmp_path))


def test_the_checkout_works_without_installing(tmp_path):
    """-S -E would hide the dependencies too, so the installed copy is made unfindable instead."""
    code = (
        "import sys, runpy\n"
        f"sys.path[:] = [p for p in sys.path if not p.startswith({str(ROOT)!r}) or '.venv' in p]\n"
        f"sys.argv = ['cli.py', 'models', '--json']\n"
        f"runpy.run_path({str(ROOT / 'cli.py')!r}, run_name='__main__')\n"
    )
    assert "models" in json.loads(run([sys.executable, "-c", code], cwd=tmp_path))


def test_importing_leamfast_is_light(tmp_path):
    code = f"import sys, leamfast, leamfast_kernels; print([m for m in {LAZY} if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "kernels"))}
    assert ast.literal_eval(run([sys.executable, "-c", code], env=env, cwd=tmp_path)) == []
    code = "import torch, leamfast, leamfast.cli.main; print(torch.cuda.is_initialized())"
    assert run([sys.executable, "-c", code], env=env, cwd=tmp_path).strip() == "False"


RAY = """
import ray
from pathlib import Path
import sys

@ray.remote
def shard(data, out):
    from leamfast.engine.batch_run import BatchRequest, run_batch
    request = BatchRequest(Path(data), Path(out), model=("demo",), layers=("conv1",), align="none", threads=1)
    return run_batch(request, note=lambda text: None).images

ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print("images", ray.get(shard.remote(sys.argv[1], sys.argv[2])))
"""


@pytest.mark.slow
def test_inside_a_ray_worker(faces, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "bench"))}
    # On the loopback interface, with a token of its own: clusters of other tests may run here.
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    out = run([sys.executable, "-c", RAY, faces, tmp_path / "out"], env=env, cwd=tmp_path, timeout=240)
    assert "images 48" in out


def test_no_package_index_or_private_path_is_named():
    listed = run(["git", "ls-files"], cwd=ROOT).split() if (ROOT / ".git").exists() else []
    if not listed:
        pytest.skip("this is no git checkout")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".toml", ".txt", ".md", ".cfg", ""} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert str(ROOT.parent) + "/" not in text, name
            assert "index" + "-url" not in text, name
        assert path.stat().st_size < 5e6, name
