"""Print constraints that hold what the package needs at its lowest stated version: python .ci/lowest.py > FILE."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
tested = [each for name in ("notebook", "onnx", "parquet", "postgresql") for each in extras[name]]
for requirement in [*project["dependencies"], *tested]:
    name, bounds = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(>=.+)", requirement).groups()
    print(name + bounds.replace(">=", "=="))
