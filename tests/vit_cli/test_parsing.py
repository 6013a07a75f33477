"""What is wrong on the command line is one sentence, as every other mistake is, and names where help is."""

from __future__ import annotations

import re

import pytest

from vit_cli.parsing import TRAINERS

LONG = "/a/path/of/more/columns/than/a/terminal/has/and/so/on/and/so/on/and/so/on/and/so/on/and/so/on/to/the/end.npz"


@pytest.mark.parametrize(
    ("args", "sentences"),
    [
        ((), ["Expected one of {demo, models, inspect", "`vitport --help`"]),
        (("trian",), ["Unrecognized options: trian; perhaps train is meant;", "train, evaluate, rollout"]),
        (("models", "--jsno"), ["--jsno; perhaps --json is meant", "`vitport models --help`"]),
        (("models", "one", LONG), [f"Unrecognized options: {LONG}"]),
        (("convert",), ["Missing from vitport convert: SRC, DST, --to FORMAT:", "`vitport convert --help`"]),
        (("evaluate", "--data", "x"), ["Missing from vitport evaluate: WEIGHTS:"]),
        (("evaluate", "w", "--data", "x", "--split", "test"), ["invalid choice 'test'", "'validation'"]),
        (("evaluate", "w", "--data", "x", "--knn", "many"), ["Error parsing --knn", "['many']"]),
        (("train", "--workdir", "run", "--stepz", "3"), ["--stepz", "perhaps --steps", "`vitport train --help`"]),
        (("train", "--workdir", "run", "--batch-size", "8"), ["perhaps --batch is meant: `vitport train --help`"]),
        (("train", "--workdir", "run", "--learning_rate", "1"), ["perhaps --recipe.schedule.peak is meant:"]),
        (("convert", "a", "b", "--to", "timm", "--mesh", "8"), ["--mesh, 8: `vitport convert --help`"]),
        (("train", "--steps", "3"), ["Missing from vitport train: --workdir FOLDER:"]),
        (("train", "--workdir", "run", "--precision", "float16"), ["invalid choice 'float16'", "'bfloat16'"]),
        (("train", "--workdir", "run", "--profile", "1"), ["Error parsing --profile", "['1']"]),
    ],
)
def test_arguments_that_cannot_be_are_one_sentence(args, sentences, vitport) -> None:
    result = vitport(*args)
    assert result.code == 2
    assert result.out == ""
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("vitport: ")
    assert result.err.endswith("explains.\n")
    for sentence in sentences:
        assert sentence in result.err
    assert "{None}" not in result.err.partition(";")[2]  # of what was meant, the names alone


def test_what_other_trainers_call_an_option_leads_to_one_that_exists(vitport) -> None:
    listed = set(re.findall(r"--[\w.-]+", vitport("train", "--help").out)) | {"--data", "--weights", "--validation"}
    assert set(TRAINERS.values()) <= listed
    assert not set(TRAINERS) & listed
