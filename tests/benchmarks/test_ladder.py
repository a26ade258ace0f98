from benchmarks import page
from benchmarks.ladder import COLUMNS, NOT_BUILT, STEPS, together
from gnabm.config import load


def row(agents, **said):
    cells = [f"{name} of {agents}" for name in COLUMNS]
    cells[0] = f"{agents:,}"
    return [said.get(name, cell) for name, cell in zip(COLUMNS, cells, strict=True)]


def test_rows_of_other_sizes_stay_and_stand_by_size():
    body = page.table(COLUMNS, [row(5_000_000)])
    assert together(body, row(1_000_000)) == [row(1_000_000), row(5_000_000)]


def test_what_a_build_took_stays_when_the_store_is_there_already():
    not_built = {name: NOT_BUILT for name in COLUMNS if name.startswith("build")}
    body = page.table(COLUMNS, [row(1_000_000, seconds="9")])
    found = together(body, row(1_000_000, **not_built, seconds="1"))
    assert found == [row(1_000_000, seconds="1")]
    assert together("", row(1_000_000, **not_built)) == [row(1_000_000, **not_built)]


def test_the_config_of_the_ladder_is_shipped_and_has_the_days_of_its_size():
    config = load("nation")
    assert (config.model, config.run.shards, config.record.fields) == ("epidemic.seir", 1, [])
    assert STEPS[config.population.num_agents] == config.run.steps == 120
