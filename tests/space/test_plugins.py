"""Networks of other people: an installed package's entry point, or a module named on the command line; never a recipe alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from proxyds.errors import PluginError
from proxyds.space.networks.families import FAMILIES
from proxyds.space.networks.plugins import load_plugins

Run = Callable[..., "subprocess.CompletedProcess[str]"]

MODULE = """\
from pathlib import Path
from typing import Annotated

from pydantic import Field
from torch import nn

from proxyds import Family, Parameters

class PlainParameters(Parameters):
    width: Annotated[int, Field(ge=1)] = Field(4, description="Hidden units.", examples=[4])

def build(parameters, n_labels, image_shape):
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, parameters.width),
        nn.ReLU(),
        nn.Linear(parameters.width, n_labels),
    )

FAMILIES = {"plain": Family(PlainParameters, "plain_networks", "2", "one hidden layer")}
"""

RECIPE = """\
name: plain
source: {kind: digits}
space:
  network: plain
  choices: {width: [4, 8, 16, 32, 64]}
selection: {ratio: 0.2}
training: {epochs: 5, batch_size: 32, learning_rate: 0.02, crop_padding: 0, horizontal_flip: false}
"""


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    (tmp_path / "plain_networks.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def install(folder: Path, package: str, *offers: str) -> str:
    """Makes what pip leaves of a package that offers families; returns the folder for PYTHONPATH."""
    about = folder / "site" / f"{package.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[proxyds.networks]\n" + "".join(f"{offer}\n" for offer in offers))
    return f"{folder / 'site'}:{folder}"


@pytest.mark.e2e
def test_a_plugin_is_built_checked_and_planned_with(workers: None, plain: Path, run_proxyds: Run) -> None:
    build = run_proxyds("build", "recipe.yaml", "-o", "proxy", "--plugin", "plain_networks", "--workers", "2", "-q")
    assert build.returncode == 0, build.stderr
    assert "check proxy --plugin plain_networks " in build.stdout
    manifest = json.loads((plain / "proxy" / "manifest.json").read_text())
    assert [probe["parameters"] for probe in manifest["probes"]] == [{"width": 4}, {"width": 64}]
    card = (plain / "proxy" / "README.md").read_text()
    assert f"of a plugin ({manifest['space']['origin']['plugin']}; its code is not here)" in card.replace("\\", "")
    settings = ["--set", "check.draws=1", "--set", "check.full_seeds=1"]
    without = run_proxyds("check", "proxy", "-q", *settings)
    assert without.returncode == 10
    assert 'got "plain"' in without.stderr
    check = run_proxyds("check", "proxy", "--plugin", "plain_networks", "-q", "--json", *settings)
    assert check.returncode == 0, check.stderr
    assert json.loads(check.stdout)["n_architectures"] == 5
    (plain / "plain_networks.py").write_text(MODULE.replace("nn.ReLU", "nn.Tanh"), encoding="utf-8")
    other = run_proxyds("check", "proxy", "--plugin", "plain_networks", "-q", *settings)  # not the probes' networks
    assert other.returncode == 15
    assert "plugin plain_networks: must be the code that the proxy was built with" in other.stderr


def test_a_plugin_is_registered_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_plain.py").write_text(MODULE.replace('"one hidden layer")}', '"one hidden layer"), "other": 3}'))
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        with pytest.raises(PluginError, match=r"FAMILIES\['other'\]: must be a proxyds\.Family"):
            load_plugins(["half_plain"])
    assert "plain" not in FAMILIES


def test_a_recipe_alone_imports_nothing(plain: Path, run_proxyds: Run) -> None:
    (plain / "plain_networks.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    refused = run_proxyds("validate", "recipe.yaml")
    assert refused.returncode == 10
    assert (
        'space.network: must be a known name (of a module of yours after load_plugins, --plugin), got "plain"'
        in refused.stderr
    )
    assert "--plugin" in refused.stderr
    assert not (plain / "imported").exists()


@pytest.mark.e2e
def test_an_installed_package_offers_its_families(workers: None, plain: Path, run_proxyds: Run) -> None:
    path = install(plain, "plain-networks", "plain = plain_networks:FAMILIES")
    refused = run_proxyds("validate", "recipe.yaml", PYTHONPATH=path)
    assert refused.returncode == 15
    assert "entry point proxyds.networks: plain = plain_networks:FAMILIES (of plain-networks)" in refused.stderr
    (plain / "plain_networks.py").write_text(MODULE + "PLAIN = FAMILIES['plain']\n")
    path = install(plain / "right", "plain-networks", "plain = plain_networks:PLAIN") + f":{plain}"
    assert run_proxyds("validate", "recipe.yaml", PYTHONPATH=path).returncode == 0
    built = run_proxyds("build", "recipe.yaml", "-o", "proxy", "-q", PYTHONPATH=path)  # the workers find it too
    assert built.returncode == 0, built.stderr


def test_two_packages_that_offer_one_name_are_refused(plain: Path, run_proxyds: Run) -> None:
    install(plain, "one", "plain = plain_networks:PLAIN")
    path = install(plain, "two", "plain = plain_networks:PLAIN")
    refused = run_proxyds("validate", "recipe.yaml", PYTHONPATH=path)
    assert refused.returncode == 15
    assert "must be offered by one installed package, it is by one, two" in refused.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be imported: ModuleNotFoundError: No module named 'plain_networks'"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero; mend it"),
        ("import sys\nsys.exit(3)", "cannot be imported: SystemExit: 3; mend it"),
        ("FAMILIES = []", "must hold a mapping FAMILIES of names to proxyds.Family, it holds list"),
        ("x = 1", "must hold a mapping FAMILIES of names to proxyds.Family, it holds none"),
        (MODULE.replace('{"plain":', '{"resnet":'), "names of their own, 'resnet' is taken"),
        ("FAMILIES = {'plain': 3}", "must be a proxyds.Family whose parameters are a subclass"),
        (
            MODULE.replace("Field(4, ", "Field("),
            "every parameter must have a default (and no default_factory), 'width' has none",
        ),
        (MODULE.replace("Field(4, ", "Field(default_factory=int, "), "(and no default_factory), 'width' has none"),
        (
            MODULE.replace("width: Annotated[int, Field(ge=1)] = Field(4,", "width: tuple[int, ...] = Field((4,),"),
            "'width' is open",
        ),
        (MODULE.replace('{"plain":', "{3:"), "a family's name must be a text, it is 3"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_one_message(
    plain: Path, run_proxyds: Run, text: str | None, said: str
) -> None:
    (plain / "plain_networks.py").unlink() if text is None else (plain / "plain_networks.py").write_text(text)
    refused = run_proxyds("validate", "recipe.yaml", "--plugin", "plain_networks")
    assert refused.returncode == 15
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_an_installed_package_may_not_take_a_known_name(plain: Path, run_proxyds: Run) -> None:
    (plain / "plain_networks.py").write_text(MODULE + "PLAIN = FAMILIES['plain']\n")
    path = install(plain, "shadow", "resnet = plain_networks:PLAIN")
    (plain / "resnet.yaml").write_text("name: x\nspace: {network: resnet, choices: {depth: [8, 14]}}\n")
    refused = run_proxyds("validate", "resnet.yaml", PYTHONPATH=path)
    assert refused.returncode == 15
    assert "the installed package shadow takes a name that is taken" in refused.stderr
    assert "shadow" not in run_proxyds("list", PYTHONPATH=path).stdout


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ('"2", "one hidden', '"9", "one hidden', 10, "feature_layer of the family plain: must be a layer of"),
        (
            "return nn.Sequential(",
            "nn.Sequential(",
            10,
            "must be built of its parameters, got {'width': 4}; it says TypeError: build gave None, no",
        ),
        (
            "nn.ReLU(),",
            "nn.ReLU(), 1 / 0,",
            10,
            "must be built of its parameters, got {'width': 4}; it says ZeroDivisionError",
        ),
        ("nn.Linear(parameters.width, n_labels)", "nn.Linear(7, n_labels)", 10, "it says RuntimeError"),
        (
            "def build(",
            "    @model_validator(mode='after')\n    def _even(self):\n        if self.width % 8:\n            raise ValueError('odd one')\n"
            "        return self\n\ndef build(",
            10,
            "must take its parameters together, got {'width': 4}: odd one",
        ),
    ],
)
def test_networks_that_do_not_work_are_told_before_anything_is_trained(
    plain: Path, run_proxyds: Run, old: str, new: str, code: int, said: str
) -> None:
    text = MODULE.replace("import Field\n", "import Field, model_validator\n").replace(old, new)
    (plain / "plain_networks.py").write_text(text)
    refused = run_proxyds("build", "recipe.yaml", "--dry-run", "-q", "--plugin", "plain_networks")
    assert refused.returncode == code, refused.stderr
    assert said in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.e2e
def test_another_version_of_a_plugin_makes_another_proxy(plain: Path, run_proxyds: Run) -> None:
    package = plain / "package"
    package.mkdir()
    (plain / "plain_networks.py").rename(package / "networks.py")
    (package / "__init__.py").write_text("from package.networks import FAMILIES\n")
    (package / "networks.py").write_text(MODULE.replace("plain_networks", "package.networks"))
    (package / "blocks.py").write_text("")
    build = ("build", "recipe.yaml", "-o", "proxy", "--plugin", "package", "-q")
    assert run_proxyds(*build).returncode == 0
    assert "is there already, unchanged" in run_proxyds(*build).stdout
    origin = json.loads((plain / "proxy" / "manifest.json").read_text())["space"]["origin"]
    assert origin["plugin"].startswith("package.networks ")
    (package / "blocks.py").write_text("# a block that networks.py might use\n")
    refused = run_proxyds(*build)
    assert refused.returncode == 40
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("name", ["../evil", "a b", "plain_networks.py", ""])
def test_a_plugin_must_be_an_import_path(plain: Path, run_proxyds: Run, name: str) -> None:
    refused = run_proxyds("validate", "recipe.yaml", "--plugin", name)
    assert refused.returncode == 15
    assert "Traceback" not in refused.stderr
