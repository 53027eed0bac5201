"""Model cards: what they say, and that they say nothing of what is not known."""

from dataclasses import replace

from vlmsel_auto.models import card
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.card import NOTHING_KNOWN, Provenance, ensemble_card
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.records import FinalScore, Interval

KNOWN = Provenance(
    task="birds",
    digest="ab12",
    method="linear probe",
    metric="balanced_accuracy",
    validation=0.75,
    validation_images=40,
    on_test=FinalScore(metric=0.8125, images=1600, interval=Interval(low=0.79, high=0.83), calibration_error=0.0312),
    confusions=tuple((f"t{k}", f"p{k}", 9 - k) for k in range(7)),
    warning="it has seen the images",
)


def test_what_is_known_is_told() -> None:
    text = card.evidence(KNOWN)
    assert "## Warning\n\nit has seen the images.\n" in text
    assert "- balanced accuracy on 1,600 test images: 81.2 % (95 % interval 79.0 % to 83.0 %)" in text
    assert "- expected calibration error on them: 0.031\n" in text
    assert KNOWN.on_test is not None
    floor = replace(KNOWN, on_test=replace(KNOWN.on_test, calibration_floor=0.0299))
    assert "on them: 0.031 (exact probabilities would show 0.030 on so many images)\n" in card.evidence(floor)
    assert "- balanced accuracy on held-out images, which chose the model (40 images): 75.0 %" in text
    assert "- most confused in test: `t0` taken for `p0` 9 x, " in text
    assert "`t4` taken for `p4` 5 x\n" in text
    assert "t5" not in text
    assert "images, labels and split (SHA-256): `ab12`" in text
    without = card.evidence(replace(KNOWN, on_test=replace(KNOWN.on_test, interval=None)))
    assert "interval" not in without


def test_what_is_not_known_is_left_out() -> None:
    assert card.evidence(NOTHING_KNOWN) == ""


def test_the_licence_of_the_weights_and_how_to_cite() -> None:
    mini, openai, unknown = (
        facts_of(resolve(name)[0]) for name in ("RN-Mi-64.all-m", "ViT-B-32/openai", "RN-Mi-64.all-m")
    )
    unknown = replace(unknown, candidate="mine", licence="unknown")
    text = card.licence([mini, openai, unknown, mini])
    assert "- `RN-Mi-64.all-m`: Apache-2.0; pretrained on: see minizoo/README.md\n" in text
    assert (
        f"- `ViT-B-32/openai` ({openai.repository}): {openai.licence}; pretrained on: {openai.training_data}\n" in text
    )
    assert "- `mine`: unknown: ask their publisher" in text
    assert text.count("- `RN-Mi-64.all-m`") == 1
    assert "@software{vlmsel_auto," in text
    assert (
        "Cite the pretrained weights as their publisher asks, too: `RN-Mi-64.all-m`, `ViT-B-32/openai`, `mine`." in text
    )


def test_an_ensemble_names_its_members() -> None:
    origins = [facts_of(resolve(name)[0]) for name in ("RN-Mi-64.all-m", "EffNet-Mi-64.all-m")]
    text = ensemble_card(name="both", classes=("a", "b"), origins=origins, weights=[0.7, 0.25], known=KNOWN)
    assert text.startswith("# both\n\nAn image classifier over 2 classes, made by vlmsel_auto ")
    assert "| member-1 | `RN-Mi-64.all-m` | 0.700 |\n| member-2 | `EffNet-Mi-64.all-m` | 0.250 |\n" in text
    assert "vlmsel-auto predict both IMAGE_OR_FOLDER" in text
    assert "81.2 %" in text
