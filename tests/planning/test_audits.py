from helpers.planning_world import plan, tried
from vlmsel_auto.planning.audits import due_audit
from vlmsel_auto.planning.tried import Left
from vlmsel_auto.records import TrialOrigin

PROBES = [tried(f"m{number}", 0.5, "probe") for number in range(3)]
TUNED = [tried(f"m{number}", 0.7 - 0.01 * number) for number in range(3)]  # of 10 seconds each


def test_an_audit_is_due_after_every_third_tower():
    made = plan(audits=2)
    assert due_audit(made, [*PROBES, *TUNED[:2]], left=Left()) is None
    first = due_audit(made, [*PROBES, *TUNED], left=Left())
    assert first == made.audits[0]
    audited = [*PROBES, *TUNED, tried(first, 0.4, origin=TrialOrigin.AUDIT)]
    assert due_audit(made, audited, left=Left()) is None
    assert due_audit(made, [*audited, *TUNED], left=Left()) == made.audits[1]


def test_the_last_trials_are_kept_for_audits():
    made = plan(audits=2)
    assert due_audit(made, [*PROBES, *TUNED[:2]], left=Left(trials=2)) == made.audits[0]
    assert due_audit(made, [*PROBES, *TUNED[:1]], left=Left(trials=2)) is None


def test_audits_get_little_of_a_time_budget():
    made = plan(audits=2)
    history = [*PROBES, *TUNED]
    first = due_audit(made, history, left=Left(seconds=3_000.0))
    assert first == made.audits[0]
    assert due_audit(made, history, left=Left(seconds=30.0)) is None
    assert due_audit(made, history, left=Left(seconds=30.0, workers=100)) == first
    paid = [*history, tried(first, 0.4, origin=TrialOrigin.AUDIT), *TUNED]
    seconds = sum(trial.seconds for trial in paid if trial.origin is TrialOrigin.AUDIT)
    enough = 2 * seconds / made.policy.audit_time
    assert due_audit(made, paid, left=Left(seconds=2 * enough)) == made.audits[1]
    assert due_audit(made, paid, left=Left(seconds=0.5 * enough)) is None
