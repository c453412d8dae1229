"""The worked example of docs/add-an-indicator.md, done as it says in a copy of the source."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_documents_example_works_and_keeps_the_laws(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "add-an-indicator.md").read_text(encoding="utf-8")
    kernel, declaration, use = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for package in ("data", "scanner", "jobs", "tests/laws"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    volume = tmp_path / "scanner" / "indicators" / "volume.py"
    head, tail = volume.read_text(encoding="utf-8").split("INDICATORS = (\n")
    volume.write_text(f"{head}{kernel}\n\nINDICATORS = (\n{declaration}{tail}", "utf-8")

    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUTF8": "1"}

    def run(*args: str) -> str:
        done = subprocess.run([sys.executable, *args], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-c", use)
    assert "佳庆资金流量" in run("-c", "from jobs.cli import main; main(['indicators', 'CMF'])")
    options = ["-q", "-c", os.devnull, "--rootdir", str(tmp_path), "--import-mode=importlib", "-p", "no:cacheprovider"]
    laws = run("-m", "pytest", *options, "tests/laws", "-k", "CMF")
    assert re.search(r"^\d\d passed", laws, re.MULTILINE), laws
