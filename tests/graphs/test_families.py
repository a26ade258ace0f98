"""Families counted: mass is conserved, kinships have the numbers that recursions and dense sums give."""

from dataclasses import replace

import numpy as np
import pytest

from graphs.families import ORDERS, age_shares, at_home, bell, births, chance_of_homes, children, lattice, with_person
from graphs.sources import load_country

NZ = load_country("New Zealand")


def test_lattice_holds_every_home_of_up_to_eight_people_once():
    people, more = lattice()
    assert people.shape == (12_870, 8)  # 16 choose 8
    assert len(np.unique(people, axis=0)) == 12_870
    for band in range(8):
        room = more[band] >= 0
        np.testing.assert_array_equal(room, people.sum(axis=1) < 8)
        np.testing.assert_array_equal(
            people[more[band][room]] - people[room], np.tile(np.eye(8, dtype=int)[band], (room.sum(), 1))
        )


def test_one_more_person_moves_all_mass_but_that_of_full_homes():
    people, _ = lattice()
    mass = np.random.default_rng(0).random(len(people))
    moved = with_person(mass, 3)
    assert moved.sum() == pytest.approx(mass[people.sum(axis=1) < 8].sum())
    assert np.einsum("c,c->", moved, people[:, 3]) == pytest.approx(
        np.einsum("c,c->", mass[people.sum(axis=1) < 8], people[people.sum(axis=1) < 8, 3] + 1.0)
    )


def test_children_at_home_are_as_many_as_the_recursion_over_births_says():
    made, people = children(NZ), lattice()[0]
    np.testing.assert_allclose(made.sum(axis=1), 1.0, rtol=1e-12)
    stays = at_home(NZ)
    another = [NZ.families[f"{order}_child"] for order in ORDERS] + [0.0]

    def expected(age, order):
        if another[order] == 0.0:
            return stays[age]
        later = [s * expected(age - y, order + 1) for y, s in enumerate(NZ.birth_spacing) if s and age >= y]
        return stays[age] + another[order] * sum(later)

    for age in (0, 5, 17, 25):
        assert np.einsum("c,c->", made[age], people.sum(axis=1)) == pytest.approx(expected(age, 0), rel=1e-12)


def test_nobody_but_children_up_to_their_age_lives_in_the_homes_of_children():
    made, people = children(NZ), lattice()[0]
    assert people[made[9] > 0].sum(axis=0)[1:].sum() == 0  # the oldest is 9
    assert people[made[25] > 0][:, 3:].sum() == 0


def test_homes_have_chances_that_sum_to_one_and_any_with_an_adult_can_occur():
    people, _ = lattice()
    made = chance_of_homes(NZ)
    assert made.sum() == pytest.approx(1.0)
    assert (made[people[:, 2:].sum(axis=1) > 0] > 0).all()
    assert made[0] == 0


def test_couples_alone_are_the_dense_sum_over_the_ages_of_partners():
    nobody_else = {"couple_has_children": 0.0, "grandparent": 0.0, "other_person": 0.0}
    paired = replace(NZ, families=NZ.families | nobody_else, living=np.tile([1.0, 0.0], (101, 1)))
    made, people = chance_of_homes(paired), lattice()[0]
    assert made[people.sum(axis=1) == 2].sum() == pytest.approx(1.0)
    adults, shares = np.arange(18, 101), age_shares(NZ)
    dense = np.zeros((8, 8))
    for age in adults:
        near = np.exp(-0.5 * ((adults - age - 2.0) / 5.0) ** 2)
        for other, weight in zip(adults, near / near.sum(), strict=True):
            dense[min(age // 10, 7), min(other // 10, 7)] += shares[age] * weight / shares[18:].sum()
    for home, chance in zip(people, made, strict=True):
        if home.sum() == 2:
            a, b = np.repeat(np.arange(8), home)
            assert chance == pytest.approx(dense[a, b] + (dense[b, a] if a != b else 0.0), abs=1e-12)


def test_mothers_are_about_thirty_as_births_and_deaths_report():
    made = births(NZ)
    assert made.sum() == pytest.approx(1.0)
    assert 29 <= int(np.searchsorted(np.cumsum(made), 0.5)) <= 32  # median of New Zealand: 30 to 31 years
    assert bell(np.arange(5), 2.0, 1.0).argmax() == 2
