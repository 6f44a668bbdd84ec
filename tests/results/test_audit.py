import numpy as np
import pytest

from lis_lightning.scoring.auditing import audit


@pytest.fixture(scope="module")
def result(split, latents):
    noise = np.random.default_rng(0).standard_normal((split.num_items, 8))
    return audit(split, embeddings={"noise": noise, "latents": latents})


def test_rows_hold_every_number_once(result):
    rows = result.rows()
    keys = [(row["task"], row["period"], row["measure"], row["name"], row["against"]) for row in rows]
    assert len(set(keys)) == len(keys)
    by_key = {(row["measure"], row["name"]): row for row in rows}
    part = result.parts[0]
    assert by_key["ceiling", "ids"]["high"] == part.ceilings["ids"].high
    assert by_key["future_adds", "pairs"]["value"] == pytest.approx(
        part.ceilings["pairs"].value - part.ceilings["pairs"].past
    )
    assert by_key["ais", "latents"]["low"] == part.results["latents"].ais_low
    assert by_key["ais_difference", "latents"]["against"] == "noise"
    (pair,) = part.ranking
    assert by_key["ais_difference", "latents"]["p"] == pair.p == pair.difference.p
    assert np.isnan(by_key["ais", "latents"]["p"])
    assert by_key["ais, unseen items", "noise"]["value"] == part.results["noise"].slices["unseen items"].value
