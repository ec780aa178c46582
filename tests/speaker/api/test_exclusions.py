"""Which interfaces are left out: from the ConfigMap to what the announcer is told."""

from __future__ import annotations

import pytest

from cluster.config import GRACE_S
from cluster.objects import ConfigMap, ObjectMeta
from speaker.api.exclusions import LONGEST, ExcludedByName
from speaker.channel import ExcludedInterfaces
from speaker.exclusion import DEFAULT

MANIFEST = 'announcedInterfacesToExclude: ["^docker.*", "^veth.*", "^lo$"]\n'
CHART = "announcedInterfacesToExclude:\n- docker.*\n- lo\n"


def config_map(text: str, key: str = "excludel2.yaml") -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name="metallb-excludel2"), data={key: text})


def read(text: str) -> ExcludedByName:
    made = ExcludedByName()
    made.set_config_map(config_map(text), 0.0)
    return made


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        (MANIFEST, ("^docker.*", "^veth.*", "^lo$")),
        (CHART, ("docker.*", "lo")),
        ("announcedInterfacesToExclude: []", ()),
        ("announcedInterfacesToExclude:", ()),
    ],
)
def test_list_is_sent_as_it_stands_once(text: str, patterns: tuple[str, ...]) -> None:
    made = read(text)
    assert made.take(0.0, known=True) == ExcludedInterfaces(patterns)
    assert made.problems == ()
    made.set_config_map(config_map(text), 1.0)
    assert made.take(1.0, known=True) is None


def test_without_a_config_map_the_default_is_sent_as_soon_as_that_is_known() -> None:
    made = ExcludedByName()
    assert made.take(0.0, known=False) is None
    assert made.take(1.0, known=True) == ExcludedInterfaces(DEFAULT.patterns)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("announcedInterfacesToExclude: ['^lo$', '[eth']", 'announcedInterfacesToExclude[1]: "[eth" is no regular'),
        ("announcedInterfacesToExclude: ['(?=a)']", "Go has no (?="),
        ("announcedInterfacesToExclude: lo", "it is no list"),
        ("announcedInterfacesToExclude: [1, a]", "announcedInterfacesToExclude[0]: 1 is no text: put it in quotes"),
        ("announcedInterfaces: [lo]", "it has no list announcedInterfacesToExclude"),
        ("- lo", "it has no list"),
        ("", "it has no list"),
        ("announcedInterfacesToExclude: [", "it is no YAML: "),
        ("announcedInterfacesToExclude: !!python/name:os.system", "it is no YAML: "),
        pytest.param("[" * 20_000, "it is no YAML: ", id="deep"),
        pytest.param("#" * (LONGEST + 1), f"it has more than {LONGEST} characters", id="long"),
    ],
)
def test_list_that_cannot_be_honoured_leaves_the_last_good_one_and_is_named(text: str, said: str) -> None:
    made = read(MANIFEST)
    assert made.take(0.0, known=True)
    made.set_config_map(config_map(text), 1.0)
    assert made.take(1.0, known=True) is None
    (problem,) = made.problems
    assert problem.text.startswith("ConfigMap metallb-excludel2: data[excludel2.yaml]")
    assert said in problem.text
    made.set_config_map(config_map(CHART), 2.0)
    assert made.take(2.0, known=True) == ExcludedInterfaces(("docker.*", "lo"))
    assert made.problems == ()


def test_watcher_that_begins_with_a_bad_list_leaves_the_announcer_what_it_has() -> None:
    made = read("announcedInterfacesToExclude: ['[']")
    assert made.take(0.0, known=True) is None
    assert made.problems


def test_config_map_without_the_key_is_named() -> None:
    made = ExcludedByName()
    made.set_config_map(config_map(MANIFEST, key="other"), 0.0)
    assert [problem.text for problem in made.problems] == [
        "ConfigMap metallb-excludel2: data: it has no key excludel2.yaml"
    ]


def test_config_map_that_is_deleted_and_made_again_changes_nothing_and_one_that_stays_away_leaves_the_default() -> None:
    made = read(CHART)
    assert made.take(0.0, known=True)
    made.set_config_map(None, 1.0)
    assert made.take(1.0, known=True) is None
    made.set_config_map(config_map(CHART), 3.0)
    assert made.take(3.0 + GRACE_S, known=True) is None
    assert made.next_deadline() is None
    made.set_config_map(None, 20.0)
    assert made.next_deadline() == 20.0 + GRACE_S
    assert made.take(20.0 + GRACE_S, known=True) == ExcludedInterfaces(DEFAULT.patterns)
    assert made.next_deadline() is None
