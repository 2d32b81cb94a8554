"""One tree of errors, one line each."""

from __future__ import annotations

import pickle

import pytest

from stf_depth import errors


def every_error() -> list[type[errors.StfDepthError]]:
    return [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", every_error())
def test_all_errors_share_the_base_and_survive_a_process_border(kind: type[errors.StfDepthError]) -> None:
    error = kind("what", where="/a/b", expected=1, got="two\nlines", hint="Do this")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "what: /a/b (expected 1, got two lines). Do this"


def test_all_names_every_class() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert classes == set(errors.__all__)


def test_missing_extra_names_the_command() -> None:
    assert "pip install 'stf-depth[app]'" in str(errors.MissingExtraError.of("gradio", "app"))
