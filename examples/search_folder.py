"""Find and fine-tune the best model for a folder of images: python examples/search_folder.py FOLDER SECONDS."""

import sys

import vlmsel_auto

folder, seconds = sys.argv[1], float(sys.argv[2])
result = vlmsel_auto.search(folder, budget=seconds)
if result.best is not None:
    print(f"{result.best.candidate}, {result.best.method}: test {result.best.test}, model in {result.best.model_dir}")
print(f"Kendall tau-b of predicted and actual rank: {result.agreement.tau_b}; report in {result.report_dir}")
