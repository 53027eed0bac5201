"""Print constraints that hold what the package needs at its lowest stated version: python .ci/lowest.py > FILE."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for requirement in [*project["dependencies"], *extras["notebook"], *extras["parquet"], *extras["postgresql"]]:
    name, bounds = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(>=.+)", requirement).groups()
    print(name + bounds.replace(">=", "=="))
