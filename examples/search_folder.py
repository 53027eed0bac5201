"""Find and fine-tune the best model for a folder of images: python examples/search_folder.py FOLDER SECONDS."""

import sys
from pathlib import Path

import vlmsel_auto

folder, seconds = sys.argv[1], float(sys.argv[2])
workdir = f"search-{Path(folder).resolve().name}"  # the study, the report and the model
result = vlmsel_auto.search(folder, budget=seconds, workdir=workdir)
if result.best is not None:
    print(f"{result.best.candidate}, {result.best.method}: test {result.best.test}, model in {result.best.model_dir}")
print(f"Kendall tau-b of predicted and actual rank: {result.agreement.tau_b}; report in {result.report_dir}")
