"""The package of OptunaHub: loaded as OptunaHub loads it, described as its registry asks for."""

import re
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.samplers import BaseSampler

optunahub = pytest.importorskip("optunahub")

REGISTRY = Path(__file__).parents[2] / "integrations/optunahub/package"
NAME = "samplers/candidate_prior"
PACKAGE = REGISTRY / NAME


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_front_matter_has_what_the_registry_asks_for():
    matter = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", (PACKAGE / "README.md").read_text(), re.DOTALL)[1])
    assert set(matter) == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert "sampler" in matter["tags"]
    assert all(isinstance(each, str) for each in (*matter["tags"], *matter["optuna_versions"]))
    assert (PACKAGE / "LICENSE").read_text() == (REGISTRY.parents[2] / "LICENSE").read_text()


def test_it_loads_from_a_folder_and_its_names_are_those_of_its_page():
    module = optunahub.load_local_module(NAME, registry_root=str(REGISTRY))
    section = (PACKAGE / "README.md").read_text().split("## Class or Function Names")[1].split("##")[0]
    assert set(re.findall(r"^- (\w+)$", section, re.MULTILINE)) == set(module.__all__)
    assert issubclass(module.PriorSampler, BaseSampler)


def test_the_example_of_its_page_runs(monkeypatch, capsys):
    monkeypatch.setattr(
        optunahub,
        "load_module",
        lambda package: optunahub.load_local_module(package, registry_root=str(REGISTRY)),
    )
    block = re.search(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)[1]
    namespace: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own page
    study = namespace["study"]
    assert [each.params["candidate"] for each in study.trials[:2]] == ["large", "base"]  # by the prior
    assert study.best_params["candidate"] == "base"
    assert "'candidate': 'base'" in capsys.readouterr().out
