"""The table of epochs fits 100 columns."""

import pytest

from ddkeras.training.epoch_table import EpochTable

TRAINING = {
    "loss": 1.7917,
    "authenticity_loss": 0.6931,
    "authenticity_accuracy": 0.512,
    "category_loss": 1.0986,
    "category_accuracy": 1.0,
}
LOGS = {
    **TRAINING,
    "learning_rate": 3e-4,
    **{f"val_{name}": value for name, value in TRAINING.items()},
    "val_authenticity_auc": 0.98765,
}


def test_the_columns_are_in_two_groups():
    table = EpochTable(12)
    assert table.lines("1/12", "0:42", "118", LOGS) == [
        "                           training                         validation",
        "epoch      time  images/s     loss  authenticity  category     loss  authenticity  category    AUC",
        " 1/12      0:42       118     1.79         51.2%    100.0%     1.79         51.2%    100.0%  0.988",
    ]
    diverged = {**LOGS, "loss": 1.234e30, "val_authenticity_auc": float("nan")}
    assert table.lines("12/12", "10:00:42", "12345", diverged) == [
        "12/12  10:00:42     12345  1.2e+30         51.2%    100.0%     1.79         51.2%    100.0%      -",
    ]


@pytest.mark.parametrize("head", ["category", "a_head_with_a_name_longer_than_a_column_of_the_table"])
@pytest.mark.parametrize("epochs", [1, 10_000])
def test_no_line_is_wider_than_100_columns(head, epochs):
    logs = {name.replace("category", head): 1e-5 if name.endswith("loss") else value for name, value in LOGS.items()}
    lines = EpochTable(epochs).lines(f"{epochs}/{epochs}", "99:59:59", "12345678", logs)
    assert max(map(len, lines)) <= 100
