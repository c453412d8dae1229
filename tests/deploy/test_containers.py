"""Dockerfile, compose and systemd: what they say of the commands and the settings is true, and they are hardened."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import jobs.cli
from data.settings import Settings
from jobs.commands.run import command as run
from jobs.roles import check_role
from tests.deploy.asked import DEPLOY

ROOT = DEPLOY.parent
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DOT_ENV = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env").read_text(), re.MULTILINE))
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"].startswith("mystocks-scan")}


def commands() -> list[tuple[str, str]]:
    """(where, command line) of everything that is started."""
    found = [(f"compose {name}", shlex.join(service["command"])) for name, service in OURS.items()]
    (said,) = re.findall(r"^CMD \[(.*)\]$", DOCKERFILE, re.MULTILINE)
    found.append(("Dockerfile", " ".join(re.findall(r'"([^"]*)"', said))))
    for unit in UNITS:
        (line,) = re.findall(r"^ExecStart=\S+/mystocks-scan (.*)$", unit.read_text(), re.MULTILINE)
        found += [
            (unit.name, line.replace("%i", role)) for role in (("feed", "scan", "serve") if "%i" in line else ("",))
        ]
    return found


def variables(text: str) -> dict[str, str]:
    """MYSTOCKS_SCAN__ -> its value, as Dockerfiles, compose files and units write it."""
    found = dict(re.findall(r"(MYSTOCKS_SCAN__\w+)(?:=|: *)\"?([^\s\"\\]*)", text))
    return {name: value.replace("${FEED:-sim}", DOT_ENV["FEED"]) for name, value in found.items() if value}


@pytest.mark.parametrize(("where", "line"), commands(), ids=lambda value: str(value))
def test_what_is_started_is_spelled_as_it_is_understood(where: str, line: str) -> None:
    name, *args = shlex.split(line)
    assert name == "run"
    context = run.make_context("run", args)
    role = context.params["role"] or "all"
    check_role(role, None if role == "all" else "redis://x", context.params)


FILES = [DEPLOY / "Dockerfile", DEPLOY / "docker-compose.yml", *UNITS, ROOT / "docs" / "monitoring.md"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_variable_is_a_setting(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = variables(file.read_text())
    assert found or file.suffix == ".md"
    for name, value in found.items():
        part: Any = Settings
        for word in name.removeprefix("MYSTOCKS_SCAN__").lower().split("__"):
            assert word in part.model_fields, name
            part = part.model_fields[word].annotation
        monkeypatch.setenv(name, value)
    Settings()


def test_a_name_that_is_no_setting_would_be_seen() -> None:
    """Environment variables of unknown names are ignored where they are read, so the test above must know better."""
    assert variables("MYSTOCKS_SCAN__SERVE__HOTS: 0.0.0.0") == {"MYSTOCKS_SCAN__SERVE__HOTS": "0.0.0.0"}
    assert variables("ENV A=1 \\\n    MYSTOCKS_SCAN__KERNEL_CACHE=/x \\") == {"MYSTOCKS_SCAN__KERNEL_CACHE": "/x"}


def test_the_image_has_every_package_and_nothing_else() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == {*packages["packages"], "pyproject.toml", "README.md", "LICENSE"}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_image_runs_as_nobody_of_note_and_says_how_it_is() -> None:
    uid, _ = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[-1]
    assert int(uid) >= 10_000
    assert f"--uid {uid} " in DOCKERFILE
    (check,) = re.findall(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])", DOCKERFILE)
    assert "/healthz" in check
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for said in re.findall(r"EXTRAS[=:] ?\"?([\w,]+)", DOCKERFILE + (DEPLOY / "docker-compose.yml").read_text()):
        assert set(said.split(",")) <= extras.keys()


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_container_can_do_little_and_is_reached_from_this_machine_alone(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for volume in service.get("volumes", ()):
        source, _, *mode = volume.split(":")
        if source.startswith("."):
            assert (DEPLOY / source).is_dir()
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]


def test_secrets_are_files_that_git_does_not_take() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"secrets/{name}"}
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (scrape,) = prometheus["scrape_configs"]
    assert scrape["authorization"] == {"credentials_file": "/run/secrets/scan_token"}
    assert scrape["job_name"] == "mystocks-scan", "the alerts name it"
    assert COMPOSE["services"]["prometheus"]["secrets"] == ["scan_token"]
    (names,) = scrape["dns_sd_configs"]
    assert set(names["names"]) == OURS.keys() - {"scan-gpu"}
    assert COMPOSE["services"]["scan-gpu"]["networks"]["default"]["aliases"] == ["scan"]
    env = COMPOSE["x-environment"] | COMPOSE["x-split"]
    assert {env["MYSTOCKS_SCAN__SERVE__PORT"], env["MYSTOCKS_SCAN__SERVE__METRICS_PORT"]} == {str(names["port"])}


def test_profiles_are_those_that_are_promised() -> None:
    profiles = {profile for service in COMPOSE["services"].values() for profile in service["profiles"]}
    assert profiles == {"cpu", "gpu", "split", "monitoring"}


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose, a Debian package, is missing")
@pytest.mark.parametrize("profile", ["cpu", "gpu", "split", "monitoring"])
def test_compose_understands_the_file(profile: str) -> None:
    done = subprocess.run(
        ["docker-compose", "--profile", profile, "config", "--services"],
        cwd=DEPLOY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    wanted = {name for name, service in COMPOSE["services"].items() if profile in service["profiles"]}
    assert set(done.stdout.split()) >= wanted


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_hardened(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    assert {"Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict", "Restart=on-failure"} <= set(lines)
    assert {"User=mystocks-scan", "WatchdogSec=60", "CapabilityBoundingSet="} <= set(lines)
    assert "MemoryDenyWriteExecute=yes" not in lines, "kernels are compiled into memory"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/opt/mystocks-scan/bin/mystocks-scan", sys.executable)
        (tmp_path / unit.name.replace("@", "@feed")).write_text(text)
    units = sorted(str(path) for path in tmp_path.iterdir())
    assert len(units) == 2
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_of_the_document_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    lines = re.findall(
        r"^    (?:docker compose run --rm (?:-T )?scan|mystocks-scan) ([^>\n]+?)(?: >.*)?$", text, re.MULTILINE
    )
    assert lines
    for line in lines:
        args, command = shlex.split(line), jobs.cli.cli
        found: click.Command = command
        while isinstance(found, click.Group):
            inner = found.get_command(click.Context(found), args.pop(0))
            assert inner is not None, line
            found = inner
        found.make_context(line, args)
