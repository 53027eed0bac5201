"""The tree drawn in errors.py is the tree in the code."""

import inspect

from vlmsel_auto import errors


def test_all_names_every_error() -> None:
    classes = [name for name, _ in inspect.getmembers(errors, inspect.isclass)]
    assert sorted(errors.__all__) == sorted(classes)
    assert errors.__all__ == sorted(errors.__all__)


def test_every_error_has_the_base_and_stands_in_the_drawing() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.VlmselError)
        assert name in errors.__doc__


def test_errors_are_also_those_that_python_names() -> None:
    assert issubclass(errors.TaskError, ValueError)
    assert issubclass(errors.MissingDependency, ImportError)
