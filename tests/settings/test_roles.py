"""One list of roles, from which settings, tables and reports are told."""

from rna.report import compare, tables
from rna.settings import roles
from rna.sweep import shown


def test_every_role_is_there_once_and_compared_with_one_that_is_there():
    assert len(roles.BY_NAME) == len(roles.ROLES)
    assert set(roles.NAMES) >= roles.CONTROLS
    assert all(role.control is not None for role in roles.ROLES if role.where is not None)


def test_a_control_has_a_neutral_token_where_its_role_has_a_forget_token():
    for role in roles.ROLES:
        if role.control is not None and role.puts is not None:
            assert (role.puts, roles.BY_NAME[role.control].puts) == ("keyword", "neutral_keyword")


def test_a_control_stands_above_the_role_that_is_compared_with_it_and_each_stands_once():
    order = [role.name for role in roles.in_reading_order()]
    assert sorted(order) == sorted(roles.NAMES)
    for role in roles.ROLES:
        if role.control is not None:
            assert order[order.index(role.name) - 1] == role.control


def test_pages_and_leaderboards_show_what_they_showed():
    assert tuple(tables.ROLES) == compare.NAMES
    assert list(tables.ROLES.items()) == [
        ("forget", "forget"),
        ("retain", "retain"),
        ("perturbed", "perturbed retain"),
        ("neutral", "neutral control"),
        ("related", "forget-related"),
        ("forget_perturbed", "perturbed forget"),
        ("prefix", "forget-token in front"),
        ("prefix_neutral", "neutral token in front"),
        ("inside", "forget-token inside"),
        ("inside_neutral", "neutral token inside"),
        ("mixed", "retain beside forget"),
        ("mixed_neutral", "retain beside retain"),
        ("forget_mixed", "forget beside retain"),
    ]
    assert shown.RANKED == {
        **{"forget": "↓", "retain": "↑", "perturbed": "↑", "neutral": "", "related": "↑"},
        **{"prefix": "↑", "inside": "↑", "mixed": "↑"},
    }
