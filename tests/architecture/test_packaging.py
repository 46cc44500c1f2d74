"""What is built from the repository: the same files in wheel and source, and they work alone."""

import configparser
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import eventbus

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = {
    str(file.relative_to(ROOT))
    for file in (ROOT / "eventbus").rglob("*")
    if file.is_file() and "__pycache__" not in file.parts
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheel and source once, without network and without isolation."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    """Give the wheel."""
    (file,) = built.glob("*.whl")
    return zipfile.ZipFile(file)


def info(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (one for one in wheel.namelist() if one.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert shipped == FILES
    assert "eventbus/py.typed" in shipped


def test_the_source_holds_every_file_of_the_package(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")

    with tarfile.open(file) as source:
        names = {name.split("/", 1)[1] for name in source.getnames()}

    assert names >= FILES
    others = {name.split("/")[0] for name in names - FILES}
    assert others <= {
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "hatch_build.py",
        "pyproject.toml",
    }


def test_the_version_is_the_same_everywhere(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(info(wheel, "METADATA"))

    assert metadata["Version"] == eventbus.__version__ == PROJECT["version"]


def test_the_metadata_names_no_host(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(info(wheel, "METADATA"))

    assert [one for one in metadata.get_all("Requires-Dist") or [] if "@" in one] == []
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_command_is_the_only_entry_point(wheel: zipfile.ZipFile) -> None:
    entries = configparser.ConfigParser()
    entries.read_string(info(wheel, "entry_points.txt"))

    commands = dict(entries["console_scripts"])
    assert commands.keys() == {"eventbus"}
    module, _, function = commands["eventbus"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_the_wheel_works_where_the_repository_is_not(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path / "site")
    script = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import eventbus\n"
        "assert eventbus.__file__.startswith(sys.argv[1]), eventbus.__file__\n"
        "class Made(eventbus.Event, name='thing.made'):\n    x: int\n"
        "service = eventbus.EventService('mail', settings=eventbus.Settings())\n"
        "service.subscribe(Made, name='keep')\n"
        "print(Made(x=1).event_body().decode())\n"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(tmp_path)],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.stdout, done.stderr) == ('{"x":1}\n', "")
