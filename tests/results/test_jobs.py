"""The names of the jobs of a sweep."""

from pathlib import Path

from lis_lightning.results.jobs import Job, by_recipe


def test_settings_are_named_in_short_where_they_stay_distinct():
    def names(key, *values):
        jobs = {
            Path(str(number)): Job(recipe="bpr", seed=1, overrides={key: value}) for number, value in enumerate(values)
        }
        return list(by_recipe(jobs))

    assert names("training.learning_rate", "0.0018316240381848906", "1e-4") == [
        "bpr, learning_rate=0.00183", "bpr, learning_rate=1e-4",
    ]  # fmt: skip
    assert names("training.learning_rate", "0.0018316", "0.0018317") == [
        "bpr, learning_rate=0.0018316", "bpr, learning_rate=0.0018317",
    ]  # fmt: skip
    assert names("model", "vlm", "text") == ["bpr, model=vlm", "bpr, model=text"]
    assert names("data.seed", "1", "2") == ["bpr, data.seed=1", "bpr, data.seed=2"]
